"""Logs in the memory of one process: for unnamed buses, for an embedded broker, for tests. They end with the process."""

from __future__ import annotations

from collections.abc import Sequence

from ebus_jupyter.core.broker.answers import Answers
from ebus_jupyter.core.broker.entry import Entry, by_bus, runs
from ebus_jupyter.core.broker.kept import Kept
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.log import Log
from ebus_jupyter.core.protocol.message import BusSpec
from ebus_jupyter.errors import BackendError

from .base import too_many_buses


class _BusLog:
    def __init__(self, spec: BusSpec, epoch: str, max_bytes: int, answers: Answers) -> None:
        self.spec = spec
        self.epoch = epoch
        self.log: Log[Entry] = Log(retain=spec.retain, size=spec.size, max_bytes=max_bytes)
        self.answers = answers

    def append(self, entries: Sequence[Entry]) -> None:
        log, answers = self.log, self.answers
        for run in runs(entries, log.last):
            answers.accept(run.sender, answers.of(run.sender, run.user), run.id, run.offset, run.length)
        for entry in entries:
            entry.offset = log.last + 1
            log.append(entry.offset, entry, key=entry.key, deleted=entry.deleted, size=entry.size)


class MemoryBackend:
    """Keeps logs until the process ends.

    Args:
        max_bytes: The bytes that one bus may hold; a log over this bound drops its oldest entries.
        dedupe: The number of one client's writes whose ids a bus remembers.
        dedupe_bytes: The bytes that these ids may take, of all clients of a bus.
        max_buses: The number of buses that are kept.
    """

    def __init__(
        self,
        *,
        max_bytes: int = Limits().log_bytes,
        dedupe: int = Limits().dedupe,
        dedupe_bytes: int = Limits().dedupe_bytes,
        max_buses: int = Limits().kept_buses,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_buses = max_buses
        self._dedupe = dedupe
        self._dedupe_bytes = dedupe_bytes
        self._buses: dict[str, _BusLog] = {}
        self._closed = False

    async def open(self, bus: str, spec: BusSpec | None, epoch: str) -> Kept | None:
        self._check_open()
        if bus not in self._buses:
            if spec is None:
                return None
            if len(self._buses) >= self._max_buses:
                raise too_many_buses(self._max_buses)
            self._buses[bus] = _BusLog(spec, epoch, self._max_bytes, Answers(self._dedupe, self._dedupe_bytes))
        found = self._buses[bus]
        log = found.log
        start = log.floor if found.spec.retain == "log" else 0
        return Kept(found.spec, found.epoch, log.last, log.floor, list(log), found.answers.keep(), start=start)

    def read(self, bus: str, after: int, max_bytes: int) -> tuple[list[Entry], int]:
        self._check_open()
        found = self._buses.get(bus)
        if found is None:
            raise BackendError(f"{bus} is not open here (it may just have been deleted).")
        log = found.log
        return [] if after < log.floor else log.read(after, max_bytes=max_bytes), log.floor

    async def append(self, batch: Sequence[Entry]) -> Sequence[Entry]:
        return self._append(batch)

    def append_now(self, batch: Sequence[Entry]) -> Sequence[Entry] | None:
        return self._append(batch)

    def _append(self, batch: Sequence[Entry]) -> Sequence[Entry]:
        self._check_open()
        try:
            parts = [(self._buses[uri], entries) for uri, entries in by_bus(batch).items()]
        except KeyError as missing:
            raise BackendError(f"{missing.args[0]} is not open here (it may just have been deleted).") from None
        for bus, entries in parts:
            bus.append(entries)
        return batch

    async def buses(self) -> dict[str, BusSpec]:
        self._check_open()
        return {uri: bus.spec for uri, bus in self._buses.items()}

    async def alter(self, bus: str, spec: BusSpec) -> None:
        self._check_open()
        found = self._buses.get(bus)
        if found is not None:
            found.spec = spec
            found.log.size = 1 if spec.retain == "latest" else spec.size

    async def delete(self, bus: str) -> None:
        self._check_open()
        self._buses.pop(bus, None)

    async def aclose(self) -> None:
        self._closed = True
        self._buses.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the log is closed: the broker is shutting down.")
