"""Logs in the memory of one process: for unnamed buses, for an embedded broker, for tests. Gone with the process."""

from __future__ import annotations

from collections.abc import Sequence

from ebus_jupyter.core.entry import Entry, Kept
from ebus_jupyter.core.log import Log
from ebus_jupyter.core.message import BusSpec
from ebus_jupyter.errors import BackendError

from .base import Sink


class _Bus:
    def __init__(self, spec: BusSpec, epoch: str) -> None:
        self.spec = spec
        self.epoch = epoch
        self.log: Log[Entry] = Log(retain=spec.retain, size=spec.size)


class MemoryBackend:
    """Keeps what the bus's size allows, until the process ends."""

    def __init__(self) -> None:
        self._buses: dict[str, _Bus] = {}
        self._sink: Sink | None = None
        self._closed = False

    async def open(self, bus: str, spec: BusSpec | None, epoch: str) -> Kept | None:
        if bus not in self._buses:
            if spec is None:
                return None
            self._buses[bus] = _Bus(spec, epoch)
        found = self._buses[bus]
        return Kept(found.spec, found.epoch, found.log.last, found.log.floor, list(found.log))

    async def append(self, batch: Sequence[Entry]) -> list[int]:
        if self._closed:
            raise BackendError("the log is closed: the broker is shutting down.")
        try:
            logs = [self._buses[entry.bus].log for entry in batch]
        except KeyError as missing:
            raise BackendError(f"{missing.args[0]} is not open here (it may just have been deleted).") from None
        for entry, log in zip(batch, logs, strict=True):
            entry.offset = log.last + 1
            log.append(entry.offset, entry, key=entry.key, deleted=entry.deleted)
        if self._sink is not None:
            self._sink(batch)
        return [entry.offset for entry in batch]

    def follow(self, sink: Sink) -> None:
        self._sink = sink

    async def buses(self) -> dict[str, BusSpec]:
        return {uri: bus.spec for uri, bus in self._buses.items()}

    async def delete(self, bus: str) -> None:
        self._buses.pop(bus, None)

    async def aclose(self) -> None:
        self._closed = True
        self._buses.clear()
