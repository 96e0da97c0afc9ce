"""The log of one bus in the broker: its newest messages in memory, the older ones where its backend keeps them.

A bus may keep a hundred thousand messages, and almost all readers want the newest. So memory holds a window of them
(`RECENT_BYTES`), encoded once for all subscribers; what a reader wants before that is read from the backend, a page at a time,
and encoded for it alone. A bus with keys, or of an engine that cannot be read without waiting, is in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ebus_jupyter.core.protocol.log import Log
from ebus_jupyter.errors import Lagged

from .bus_info import BusInfo
from .entry import Entry, recipients_size
from .kept import Kept
from .record import Record

RECENT = (4096, 1 << 20)
"""The newest messages of one bus that are in memory: their number, and their bytes."""

LOOK_BACK = 1024
"""The messages for others that are passed over where the last messages for a participant are counted."""

Older = Callable[[int, int], tuple[list[Entry], int]]
"""``older(after, max_bytes)``: the kept entries after an offset, and the last offset that was dropped."""


class BusLog:
    """The log of one bus, with the interface of `core.protocol.log.Log`.

    Args:
        info: The fixed facts about the bus.
        older: Reads what is not in memory; None: everything is.

    Attributes:
        floor: The highest offset that was dropped for want of room, as far as this is known; 0 where none was.
    """

    __slots__ = ("__weakref__", "_info", "_older", "_recent", "floor")

    def __init__(self, info: BusInfo, older: Older | None) -> None:
        spec, max_bytes = info.spec, info.limits.log_bytes
        self._info = info
        self._older = older if spec.retain == "log" else None
        number, size = (spec.size, max_bytes) if self._older is None else RECENT
        self._recent: Log[Record] = Log(retain=spec.retain, size=min(spec.size, number), max_bytes=min(max_bytes, size))
        self.floor = 0

    def altered(self) -> None:
        """The bus has another spec, with a greater size or the same one."""
        spec = self._info.spec
        if spec.retain != "latest":
            self._recent.size = spec.size if self._older is None else min(spec.size, RECENT[0])

    def load(self, kept: Kept) -> None:
        """Begin with what a backend has kept."""
        self._recent.floor = self._recent.last = kept.start
        for entry in kept.entries:
            self.append(Record.of(self._info, entry), key=entry.key, deleted=entry.deleted)
        self._recent.last = max(self._recent.last, kept.last)
        self._raise_floor(kept.floor)

    def _raise_floor(self, floor: int) -> None:
        self.floor = max(self.floor, floor)
        if self._recent.floor < self.floor:
            self._recent.floor = self.floor

    # --- the interface of a log -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """The number of messages in memory."""
        return len(self._recent)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._recent)

    @property
    def last(self) -> int:
        """The offset of the newest message; 0 before the first."""
        return self._recent.last

    @last.setter
    def last(self, offset: int) -> None:
        self._recent.last = offset

    @property
    def in_memory_after(self) -> int:
        """The offset after which every message is in memory."""
        return self._recent.floor

    @property
    def start(self) -> int:
        """The offset before the first message that is kept."""
        return self._recent.start if self._older is None else self.floor

    def full_for(self, key: str | None, size: int = 0, others: int = 0) -> bool:
        """See `Log.full_for`."""
        return self._recent.full_for(key, size, others)

    @property
    def bytes(self) -> int:
        """The bytes of the messages in memory."""
        return self._recent.bytes

    def grows_by(self, key: str | None, size: int) -> bool:
        """See `Log.grows_by`."""
        return self._recent.grows_by(key, size)

    def shrink(self, max_bytes: int) -> None:
        """See `Log.shrink`. What the backend keeps is read from there."""
        self._recent.shrink(max_bytes)
        if self._older is None:
            self.floor = self._recent.floor

    def offset_of(self, key: str | None) -> int:
        """See `Log.offset_of`."""
        return self._recent.offset_of(key)

    def append(self, record: Record, *, key: str | None = None, deleted: bool = False) -> None:
        """Add the newest message."""
        recent, offset = self._recent, record.offset
        size = len(record.frame)
        if record.hidden:
            size += len(record.hidden) + (0 if record.to is None else recipients_size(record.to))
        recent.append(offset, record, key=key, deleted=deleted, size=size)
        if self._older is None:
            self.floor = recent.floor
        elif offset - self._info.spec.size > self.floor:  # the offsets of a local backend have no gaps
            self.floor = offset - self._info.spec.size

    def at(self, offset: int) -> Record | None:
        """The message at ``offset``; None where none is kept."""
        record = self._recent.at(offset)
        if record is None and self._older is not None and self.floor < offset <= self._recent.floor:
            entries, _ = self._older(offset - 1, 1)
            record = Record.of(self._info, entries[0]) if entries and entries[0].offset == offset else None
        return record

    def read(self, after: int, *, known: int = 0, max_bytes: int = 1 << 62) -> list[Record]:
        """See `Log.read`. What is not in memory is at most a page."""
        recent = self._recent
        if self._older is None or after >= recent.floor:
            return recent.read(after, known=known, max_bytes=max_bytes)
        if after >= self.floor:
            entries, floor = self._older(after, max_bytes)
            if floor <= after:
                return [Record.of(self._info, entry) for entry in entries]
            self._raise_floor(floor)
        raise Lagged(skipped=self.floor - after, resume_after=self.floor)

    def before_last(self, n: int, until: int, counts: Callable[[Any], bool]) -> int:
        """The offset before the last ``n`` messages up to offset ``until``, of those for which ``counts`` is true.

        Among those that are not in memory, and beyond `LOOK_BACK` for which it is not, every message counts.
        """
        found, reached = self._recent.count_back(n, until, counts, n + LOOK_BACK)
        return max(self.start, min(reached, until) - (n - found))
