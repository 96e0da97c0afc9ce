"""The storage queue: everything that touches a log, in order.

A bus's log is opened before the first append to it, and deleted after the last. Appends that wait together are one batch.
When a backend fails, the writers and openers that wait for it receive an error, and the other jobs go on.

A local backend's `append` returns what it committed, and the queue reports that to the state machine: first as committed,
which delivers it, then as appended, which acknowledges it. A shared engine's `append` only acknowledges; what is committed
arrives by its feed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from ebus_jupyter.backends.base import Backend, SharedBackend, reader
from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.core.broker.effects import AlterLog, Append, DeleteLog, OpenLog, Send, SendQueued
from ebus_jupyter.core.broker.entry import Entry, by_bus
from ebus_jupyter.core.broker.state import BrokerState
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.errors import BackendError, EbusError, Rejected

from .figures import Timing
from .performer import Performer
from .time_slice import TimeSlice

BATCH_BYTES = 1 << 20
"""The bytes of values that are appended, and delivered, at once. A socket that is full meanwhile is given no more of them."""

Job = Append | OpenLog | AlterLog | DeleteLog | SendQueued
# For isinstance: a union would be built anew for each effect.
JOBS = (Append, OpenLog, AlterLog, DeleteLog, SendQueued)


class StorageQueue:
    """The backends, and the jobs that wait for them.

    Args:
        state: The state machine, which is told the outcome of each job.
        host: Performs its effects.
        durable: Keeps the named buses. None: memory.
        limits: The bounds.
        clock: Seconds, of any clock that only goes forward.
        log: Where failures are reported.

    Attributes:
        durable: Keeps the named buses. It may be replaced before `start`.
        jobs: The jobs that wait, in order. Call `wake` after adding one.
        writes: The number of writes that were committed.
        committing: How long the commits took, one for each batch.
        failure: Why the last commit of named buses failed; None where it did not.
    """

    def __init__(
        self,
        state: BrokerState,
        host: Performer,
        durable: Backend | None,
        limits: Limits,
        clock: Callable[[], float],
        log: logging.Logger,
    ) -> None:
        memory = partial(
            MemoryBackend,
            max_bytes=limits.log_bytes,
            dedupe=limits.dedupe,
            dedupe_bytes=limits.dedupe_bytes,
            max_buses=limits.kept_buses,
        )
        self.durable: Backend = durable or memory()
        self.jobs: deque[Job] = deque()
        self.writes = 0
        self.committing = Timing()
        self.failure: EbusError | None = None
        self._volatile = memory()
        self._state = state
        self._host = host
        self._clock = clock
        self._log = log
        self._fed: SharedBackend | None = None  # the backend that reports what is committed by its feed
        self._awake = asyncio.Event()
        self._is_busy = False  # with a job: later ones must wait for it

    def start(self) -> None:
        """Begin to follow the feed, where the durable backend has one."""
        if isinstance(self.durable, SharedBackend):
            self._fed = self.durable
            self._fed.on_committed(self._committed)

    def _committed(self, entries: Sequence[Entry]) -> None:
        self._host.perform(self._state.commit(entries))

    async def aclose(self) -> None:
        """Close the backends."""
        await self._volatile.aclose()
        await self.durable.aclose()

    def wake(self) -> None:
        """Jobs were added."""
        self._awake.set()

    @property
    def has_work(self) -> bool:
        """True if a job waits or is being done."""
        return self._is_busy or bool(self.jobs)

    async def work(self, time_slice: TimeSlice) -> None:
        """Do one job after the other, until cancelled."""
        while True:
            if not self.jobs:
                self._awake.clear()
                await self._awake.wait()
            self._is_busy = True
            try:
                await self._next_job()
            except Exception:  # a bug of ours, or of a backend: the other jobs go on
                self._log.exception("ebus: a job of the broker failed; please report this")
            self._is_busy = False
            self._host.flush()
            if self.jobs and time_slice.is_over():
                await asyncio.shield(time_slice.next_slice())

    async def _next_job(self) -> None:
        if not self.jobs:
            return
        if isinstance(self.jobs[0], Append):
            await self._append(self._take_appends())
            return
        match self.jobs.popleft():
            case OpenLog(address, spec, epoch):
                kept, error = None, None
                backend = self._backend_of(str(address), address)
                try:
                    kept = await backend.open(str(address), spec, epoch)
                except Exception as failure:
                    error = self._report(f"{address} could not be read", failure)
                self._host.perform(
                    self._state.registry.log_opened(address, kept, error, self._clock(), reader(backend, str(address)))
                )
            case AlterLog(address, spec) as change:
                error = None
                try:
                    await self._backend_of(str(address), address).alter(str(address), spec)
                except Exception as failure:
                    error = self._report(f"{address} could not be altered", failure)
                self._host.perform(self._state.registry.log_altered(change, error, self._clock()))
            case DeleteLog(address) as deletion:
                error = None
                try:
                    await self._backend_of(str(address), address).delete(str(address))
                except Exception as failure:
                    error = self._report(f"{address} could not be deleted", failure)
                self._host.perform(self._state.registry.log_deleted(deletion, error))
            case SendQueued(conn, frame):
                self._host.perform([Send(conn, frame)])

    # --- appending --------------------------------------------------------------------------------------------------

    async def _append(self, batch: list[Entry]) -> None:
        for backend, entries in self._by_backend(batch):
            began = time.monotonic()
            try:
                appended = _checked(backend, entries, await backend.append(entries))
            except Exception as failure:
                self._refuse(backend, entries, failure)
            else:
                self._appended(backend, appended, began)

    def append_now(self) -> None:
        """Append the waiting entries in this iteration of the event loop, where their backend can.

        This is for lone writes. Where many come together, they are one batch in the next iteration.
        """
        if self._is_busy:
            return
        for backend, entries in self._by_backend(self._take_appends()):
            began = time.monotonic()
            try:
                appended = backend.append_now(entries)
                if appended is not None:
                    _checked(backend, entries, appended)
            except Exception as failure:
                self._refuse(backend, entries, failure)
            else:
                if appended is None:
                    self.jobs.extendleft(Append(entry) for entry in reversed(entries))
                else:
                    self._appended(backend, appended, began)
        self._host.flush()

    def _appended(self, backend: Backend, appended: Sequence[Entry], began: float) -> None:
        self.committing.add(time.monotonic() - began)
        self.writes += len(appended)
        if backend is self.durable:
            self.failure = None
        delivered = [] if backend is self._fed else self._state.commit(appended)
        self._host.perform(delivered + self._state.appended(appended))

    def _take_appends(self) -> list[Entry]:
        """The entries that wait to be appended, up to the first job of another kind, and up to `BATCH_BYTES`."""
        jobs = self.jobs
        batch: list[Entry] = []
        size = 0
        while jobs and size < BATCH_BYTES and isinstance(jobs[0], Append):
            entry = jobs.popleft().entry  # type: ignore[union-attr]
            batch.append(entry)
            size += len(entry.value)
        return batch

    def _by_backend(self, batch: list[Entry]) -> list[tuple[Backend, list[Entry]]]:
        if len(batch) == 1:
            return [(self._backend_of(batch[0].bus), batch)]
        parts: dict[Backend, list[Entry]] = {}
        for uri, entries in by_bus(batch).items():
            parts.setdefault(self._backend_of(uri), []).extend(entries)
        return list(parts.items())

    def _backend_of(self, uri: str, address: Address | None = None) -> Backend:
        return self._volatile if "~" in uri and (address or Address.parse(uri)).unnamed else self.durable

    # --- failures ---------------------------------------------------------------------------------------------------

    def _refuse(self, backend: Backend, entries: list[Entry], failure: Exception) -> None:
        error = self._report(f"{len(entries)} writes were refused, as the log failed", failure)
        if backend is self.durable and not isinstance(error, Rejected):
            self.failure = error
        self._host.perform(self._state.failed(entries, error))

    def _report(self, what: str, failure: Exception) -> EbusError:
        """Log a backend's failure, and return the error for those who wait for it."""
        if isinstance(failure, EbusError):
            if not isinstance(failure, Rejected):  # a client that asks for too much must not fill the server's log
                self._log.error("ebus: %s: %s", what, failure)
            return failure
        self._log.error("ebus: %s; please report this", what, exc_info=failure)
        return BackendError(f"{what}: {failure}. See the server's log.")


def _checked(backend: Backend, batch: list[Entry], appended: Sequence[Entry]) -> Sequence[Entry]:
    """The answer of a backend to an append, if it is one: else its writers would wait for ever.

    Raises:
        TypeError: The backend did not return the entries of the batch.
    """
    if len(appended) != len(batch) or (appended and not isinstance(appended[0], Entry)):
        raise TypeError(
            f"{type(backend).__name__}.append returned {len(appended)} items for {len(batch)} entries; it must return the "
            "entries themselves, with their offsets (see ebus_jupyter.backends.base)"
        )
    return appended
