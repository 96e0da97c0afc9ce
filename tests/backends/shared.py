"""An engine that several brokers share, in memory: it behaves as a NATS or Redis backend would."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ebus_jupyter.backends.base import Sink
from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.core.broker.entry import Entry


class SharedMemory(MemoryBackend):
    """`append` only acknowledges. What is committed arrives by the feed, as other objects: before the acknowledgement, or
    after it, when `deliver` is called.

    Args:
        feed_first: Whether an entry arrives by the feed before it is acknowledged.
    """

    def __init__(self, *, feed_first: bool = False) -> None:
        super().__init__()
        self._feed_first = feed_first
        self._sinks: list[Sink] = []
        self._undelivered: list[Entry] = []

    def on_committed(self, sink: Sink) -> None:
        self._sinks.append(sink)

    async def append(self, batch: Sequence[Entry]) -> Sequence[Entry]:
        appended = await super().append(batch)
        self._undelivered += [msgspec.structs.replace(entry) for entry in appended]
        if self._feed_first:
            self.deliver()
        return appended

    def append_now(self, batch: Sequence[Entry]) -> Sequence[Entry] | None:
        return None

    def deliver(self) -> None:
        """Report every committed entry that was not reported yet."""
        entries, self._undelivered = self._undelivered, []
        if entries:
            for sink in self._sinks:
                sink(entries)
