"""Logs in the memory of one process: for unnamed buses, for an embedded broker, for tests. Gone with the process."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ebus_jupyter.core.broker.entry import Entry, Kept, Run, by_bus, runs
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.log import Log
from ebus_jupyter.core.protocol.message import BusSpec
from ebus_jupyter.errors import BackendError

from .base import Sink, no_room


class _Bus:
    def __init__(self, spec: BusSpec, epoch: str, max_bytes: int) -> None:
        self.spec = spec
        self.epoch = epoch
        self.log: Log[Entry] = Log(retain=spec.retain, size=spec.size, max_bytes=max_bytes)
        self.recent: deque[Run] = deque()

    def append(self, entries: Sequence[Entry], dedupe: int) -> None:
        log, recent = self.log, self.recent
        for run in runs(entries, log.last):
            before = recent[-1] if recent else None
            if before is not None and (before.sender, before.id + before.length) == (run.sender, run.id):
                recent[-1] = Run(run.sender, before.id, before.offset, before.length + run.length)
            else:
                recent.append(run)
        for entry in entries:
            entry.offset = log.last + 1
            log.append(entry.offset, entry, key=entry.key, deleted=entry.deleted, size=entry.size)
        while recent and recent[0].offset + recent[0].length - 1 <= log.last - dedupe:
            recent.popleft()


class MemoryBackend:
    """Keeps what the bus's size allows, until the process ends.

    Args:
        max_bytes: What one bus may hold; over it a log loses its oldest entries.
        dedupe: Of how many writes a bus remembers the ids.
        max_buses: How many buses it keeps.
    """

    def __init__(
        self,
        *,
        max_bytes: int = Limits().log_bytes,
        dedupe: int = Limits().dedupe,
        max_buses: int = Limits().kept_buses,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_buses = max_buses
        self._dedupe = dedupe
        self._buses: dict[str, _Bus] = {}
        self._sink: Sink | None = None
        self._closed = False

    async def open(self, bus: str, spec: BusSpec | None, epoch: str) -> Kept | None:
        self._check_open()
        if bus not in self._buses:
            if spec is None:
                return None
            if len(self._buses) >= self._max_buses:
                raise no_room(self._max_buses)
            self._buses[bus] = _Bus(spec, epoch, self._max_bytes)
        found = self._buses[bus]
        return Kept(found.spec, found.epoch, found.log.last, found.log.floor, list(found.log), list(found.recent))

    async def append(self, batch: Sequence[Entry]) -> list[int]:
        return self._append(batch)

    def append_now(self, batch: Sequence[Entry]) -> list[int] | None:
        return self._append(batch)

    def _append(self, batch: Sequence[Entry]) -> list[int]:
        self._check_open()
        try:
            parts = [(self._buses[uri], entries) for uri, entries in by_bus(batch).items()]
        except KeyError as missing:
            raise BackendError(f"{missing.args[0]} is not open here (it may just have been deleted).") from None
        for bus, entries in parts:
            bus.append(entries, self._dedupe)
        if self._sink is not None:
            self._sink(batch)
        return [entry.offset for entry in batch]

    def on_committed(self, sink: Sink) -> None:
        self._sink = sink

    async def buses(self) -> dict[str, BusSpec]:
        self._check_open()
        return {uri: bus.spec for uri, bus in self._buses.items()}

    async def delete(self, bus: str) -> None:
        self._check_open()
        self._buses.pop(bus, None)

    async def aclose(self) -> None:
        self._closed = True
        self._buses.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the log is closed: the broker is shutting down.")
