"""What touches the logs: one queue, in order, so that a bus is open before its first append and gone after its last.

Appends that wait together are one batch. Where a backend fails, who waits for it is told, and the others' writes go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from ebus_jupyter.backends.base import Backend
from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.core.broker.effects import Append, DeleteLog, Effect, ListBuses, OpenLog, Send
from ebus_jupyter.core.broker.entry import Entry, by_bus
from ebus_jupyter.core.broker.state import BrokerState
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import BusSpec
from ebus_jupyter.errors import BackendError, EbusError, Rejected

from .time_slice import TimeSlice

Job = Append | OpenLog | DeleteLog | ListBuses
JOBS = (Append, OpenLog, DeleteLog, ListBuses)  # for isinstance: a union would be built anew for each effect


class StorageQueue:
    """The buses' backends, and the jobs that wait for them.

    Args:
        state: Told what became of each job.
        durable: Keeps the named buses. None: memory.
        limits: The bounds.
        log: Where it says what went wrong.
        clock: Seconds since the epoch.
        perform: Performs what ``state`` decides.
        flush: Sends what there is to send.
        listed: Told the answer to a `ListBuses`.

    Attributes:
        jobs: What waits, in order. Who adds to it calls `wake`.
    """

    def __init__(
        self,
        state: BrokerState,
        durable: Backend | None,
        limits: Limits,
        log: logging.Logger,
        clock: Callable[[], float],
        perform: Callable[[list[Effect]], None],
        flush: Callable[[], None],
        listed: Callable[[ListBuses, dict[str, BusSpec]], None],
    ) -> None:
        memory = partial(MemoryBackend, max_bytes=limits.log_bytes, dedupe=limits.dedupe, max_buses=limits.kept_buses)
        self._volatile = memory()
        self.durable: Backend = durable or memory()
        self._state = state
        self._log = log
        self._clock = clock
        self._perform = perform
        self._flush = flush
        self._listed = listed
        self.jobs: deque[Job] = deque()
        self._awake = asyncio.Event()
        self._is_busy = False  # with a job: what comes now comes after it

    def start(self) -> None:
        """Hear of every entry that is kept."""
        for backend in (self.durable, self._volatile):
            backend.on_committed(lambda entries: self._perform(self._state.commit(entries)))

    async def aclose(self) -> None:
        """Let go of the logs."""
        await self._volatile.aclose()
        await self.durable.aclose()

    def wake(self) -> None:
        """There are jobs to do."""
        self._awake.set()

    async def finish(self) -> None:
        """Wait until every job was begun."""
        while self.jobs:
            await asyncio.sleep(0)

    def _backend(self, uri: str, address: Address | None = None) -> Backend:
        return self._volatile if "~" in uri and (address or Address.parse(uri)).unnamed else self.durable

    async def work(self, turn: TimeSlice) -> None:
        """One job after the other, for as long as nobody cancels this."""
        while True:
            if not self.jobs:
                self._awake.clear()
                await self._awake.wait()
            self._is_busy = True
            try:
                await self._next_job()
            except Exception:  # of ours: the others' writes go on
                self._log.exception("ebus: a job of the broker failed; please report this")
            self._is_busy = False
            self._flush()
            if self.jobs and turn.is_over():
                await asyncio.shield(turn.next())

    async def _next_job(self) -> None:
        if not self.jobs:
            return
        if isinstance(self.jobs[0], Append):
            await self._append(self._appends())
            return
        match self.jobs.popleft():
            case OpenLog(address, spec, epoch):
                kept, error = None, None
                try:
                    kept = await self._backend(str(address), address).open(str(address), spec, epoch)
                except Exception as failed:
                    error = self._explained(f"{address} could not be read", failed)
                self._perform(self._state.log_opened(address, kept, error, self._clock()))
            case DeleteLog(address) as job:
                error = None
                try:
                    await self._backend(str(address), address).delete(str(address))
                except Exception as failed:
                    error = self._explained(f"{address} could not be deleted", failed)
                self._perform(self._state.log_deleted(job, error))
            case ListBuses(conn, req) as job:
                try:
                    self._listed(job, await self.durable.buses())
                except Exception as failed:
                    error = self._explained("the buses that are kept could not be listed", failed)
                    self._perform([Send(conn, frames.encode(frames.refusal(error, req=req)))])

    def _appends(self) -> list[Entry]:
        """What waits to be appended, up to the first job of another kind."""
        batch: list[Entry] = []
        while self.jobs and isinstance(self.jobs[0], Append):
            batch.append(self.jobs.popleft().entry)  # type: ignore[union-attr]
        return batch

    def _parted(self, batch: list[Entry]) -> list[tuple[Backend, list[Entry]]]:
        parts: dict[Backend, list[Entry]] = {}
        for uri, entries in by_bus(batch).items():
            parts.setdefault(self._backend(uri), []).extend(entries)
        return list(parts.items())

    async def _append(self, batch: list[Entry]) -> None:
        for backend, entries in self._parted(batch):
            try:
                offsets = await backend.append(entries)
            except Exception as error:
                self._failed(entries, error)
            else:
                self._perform(self._state.appended(entries, offsets))

    def append_now(self) -> None:
        """Append what waits in this very round of the loop. (Where many come together, they are one batch, in the next.)"""
        if self._is_busy:
            return
        for backend, entries in self._parted(self._appends()):
            try:
                offsets = backend.append_now(entries)
            except Exception as error:
                self._failed(entries, error)
            else:
                if offsets is None:
                    self.jobs.extendleft(Append(entry) for entry in reversed(entries))
                else:
                    self._perform(self._state.appended(entries, offsets))
        self._flush()

    def _failed(self, entries: list[Entry], failed: Exception) -> None:
        what = f"{len(entries)} writes were refused, as the log failed"
        self._perform(self._state.failed(entries, self._explained(what, failed)))

    def _explained(self, what: str, failed: Exception) -> EbusError:
        """A backend failed: what those who wait for it are told."""
        if isinstance(failed, EbusError):
            if not isinstance(failed, Rejected):  # who asks for too much is told; the log is not for them to fill
                self._log.error("ebus: %s: %s", what, failed)
            return failed
        self._log.error("ebus: %s; please report this", what, exc_info=failed)
        return BackendError(f"{what}: {failed}. See the server's log.")
