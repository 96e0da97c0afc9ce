"""The log of a bus: what is kept for late joiners and slow readers, and how a reader learns that it missed something.

A log holds the newest entries of one bus in the order of their offsets. Offsets increase strictly; they need not be
contiguous. A reader is nothing but the offset up to which it has read: reading costs the log no memory, a slow reader is
just further behind, and a thousand readers share one log. The broker keeps a log of each bus; each client keeps one of
the messages that it received, for all of its streams.

Size
    ``retain="log"`` keeps the last ``size`` entries. ``"latest"`` keeps one. ``"keys"`` keeps the last entry of each
    key, for at most ``size`` keys, and as many marks of removed keys. ``max_bytes`` bounds every kind.

Lagging
    The *floor* is the highest offset that was dropped for want of room. A reader below it has missed something and is
    told, once: `Lagged`, with how many offsets it missed and where to go on. Then it goes on. (With keys it goes on from
    the start: it then reads the whole state.)

    >>> log = Log(size=2)
    >>> for offset, value in enumerate("abc", start=1):
    ...     log.append(offset, value)
    >>> log.read(after=0)
    Traceback (most recent call last):
    ...
    ebus_jupyter.errors.Lagged: missed 1 message; the stream goes on after offset 1. Read faster, or give the bus a larger size.
    >>> log.read(after=1)
    ['b', 'c']

Conflation
    With "latest" and "keys", an entry that a newer one replaces does not count as missed and moves no floor: such a bus is
    made for slow readers that see only the newest entry.

    >>> speed = Log(retain="latest")
    >>> speed.append(1, "slow"), speed.append(2, "fast")
    (None, None)
    >>> speed.read(after=0)
    ['fast']
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ebus_jupyter.errors import Lagged

from .message import Retain

T = TypeVar("T")

_SLACK = 64
"""The number of dropped entries that may stay at the front of the lists before they are cut off, so that a drop costs O(1)."""

_NO_KEYS: dict[str | None, int] = {}
"""The keys of every log without keys, shared: a broker may have very many silent and empty logs."""


class Log(Generic[T]):
    """The newest entries of one bus.

    Args:
        retain: "log", "latest" or "keys"; see "Size" above.
        size: How many entries (or keys) are kept. Default: 1000.
        max_bytes: How many bytes are kept, by the sizes given to `append`. Default: no bound.

    Attributes:
        floor: The highest offset that was dropped for want of room; 0 where none was.
        last: The offset of the newest entry; 0 before the first.
    """

    __slots__ = (
        "__weakref__",
        "_by_key",
        "_bytes",
        "_front",
        "_items",
        "_offsets",
        "_removed",
        "_sizes",
        "floor",
        "last",
        "max_bytes",
        "retain",
        "size",
    )

    def __init__(self, *, retain: Retain = "log", size: int = 1000, max_bytes: int = 1 << 62) -> None:
        self.retain = retain
        self.size = 1 if retain == "latest" else size
        self.max_bytes = max_bytes
        self.floor = 0
        self.last = 0
        self._offsets: list[int] = []
        self._items: list[T | None] = []  # None where a newer entry of the same key has taken over
        self._sizes: list[int] = []
        self._front = 0
        self._bytes = 0
        self._by_key: dict[str | None, int] = {} if retain == "keys" else _NO_KEYS
        self._removed: dict[str | None, int] = {} if retain == "keys" else _NO_KEYS

    def __len__(self) -> int:
        """The number of entries that are kept."""
        if self.retain == "keys":
            return len(self._by_key) + len(self._removed)
        return len(self._offsets) - self._front

    def __iter__(self) -> Iterator[T]:
        return (item for item in self._items[self._front :] if item is not None)

    @property
    def bytes(self) -> int:
        """The bytes of the entries that are kept."""
        return self._bytes

    def shrink(self, max_bytes: int) -> None:
        """Drop the oldest entries but the newest one, until there are no more bytes than that. Keys are never dropped."""
        if self.retain != "keys":
            while self._bytes > max_bytes and len(self._offsets) - self._front > 1:
                self._drop()

    @property
    def start(self) -> int:
        """The offset before the first entry that is kept. (With keys, the oldest entry may be older than the floor.)"""
        return 0 if self.retain == "keys" else self.floor

    def full_for(self, key: str | None, size: int = 0, others: int = 0) -> bool:
        """True if there is no room for an entry of ``key``. Keys are never dropped, so such a write is to be refused.

        Args:
            key: The key.
            size: The entry's bytes.
            others: How many other writes are on their way; each may bring a new key.
        """
        if self.retain != "keys":
            return False
        present = self._by_key.get(key)
        if present is None and len(self._by_key) + others >= self.size:
            return True
        replaced = 0 if present is None else self._sizes[self._index(present)]
        return size > replaced and self._bytes - replaced + size > self.max_bytes

    def grows_by(self, key: str | None, size: int) -> bool:
        """True if an entry of ``key`` with so many bytes is larger than the one whose place it takes."""
        present = self._by_key.get(key)
        return size > (0 if present is None else self._sizes[self._index(present)])

    def offset_of(self, key: str | None) -> int:
        """The offset of the entry of ``key``; 0 where there is none. Without keys: the last offset."""
        return self._by_key.get(key, 0) if self.retain == "keys" else self.last

    def append(self, offset: int, item: T, *, key: str | None = None, deleted: bool = False, size: int = 0) -> None:
        """Add the newest entry.

        An accepted write is always taken, whatever its key: ask `full_for` before a write is accepted.

        Args:
            offset: Greater than `last`.
            item: The entry; not None.
            key: Its key, with keys.
            deleted: True for the mark of a removed key.
            size: Its bytes.

        Raises:
            ValueError: ``offset`` does not follow `last`.
        """
        if offset <= self.last:
            raise ValueError(f"offset {offset} does not follow {self.last}")
        if self.retain == "keys":
            self._take_over(key, deleted, offset)
        self.last = offset
        self._offsets.append(offset)
        self._items.append(item)
        self._sizes.append(size)
        self._bytes += size
        if self.retain != "keys":
            while (kept := len(self._offsets) - self._front) > self.size or (self._bytes > self.max_bytes and kept > 1):
                self._drop()

    def at(self, offset: int) -> T | None:
        """The entry at ``offset``; None where none is kept."""
        i = self._index(offset)
        return self._items[i] if i >= self._front and self._offsets[i] == offset else None

    def read(self, after: int, *, known: int = 0, max_bytes: int = 1 << 62) -> list[T]:
        """The entries after offset ``after``, oldest first.

        Args:
            after: The offset up to which the reader has read.
            known: The floor when the reader began. With keys, a reader that began at the start is on its way through a
                snapshot, and has missed nothing below that floor.
            max_bytes: The bytes of the entries to return; at least one entry is returned if there is one.

        Raises:
            Lagged: Entries after ``after`` were dropped. Read again after its ``resume_after``.
        """
        if after < self.floor and after != self.start and known < self.floor:
            raise Lagged(skipped=self.floor - after, resume_after=self.start)
        if after >= self.last:
            return []
        start = bisect_right(self._offsets, after, self._front)
        found: list[T] = []
        total = 0
        for i in range(start, len(self._items)):
            item = self._items[i]
            if item is None:
                continue
            total += self._sizes[i]
            if found and total > max_bytes:
                break
            found.append(item)
        return found

    def count_back(self, n: int, until: int, counts: Callable[[T], bool], most: int) -> tuple[int, int]:
        """Go back from offset ``until`` over ``n`` of the entries for which ``counts`` is true, or over ``most`` of all.

        Returns:
            How many of them there were, and the offset before the first of those passed.
        """
        found = looked = 0
        for i in range(self._index(until), self._front - 1, -1):
            item = self._items[i]
            if item is None:
                continue
            if found >= n or looked >= most:
                return found, self._offsets[i]
            looked += 1
            found += counts(item)
        return found, self.start

    def before_last(self, n: int, until: int = 1 << 62, counts: Callable[[T], bool] = lambda item: True) -> int:
        """The offset before the last ``n`` of the entries up to offset ``until``, of those for which ``counts`` is true."""
        for i in range(self._index(until), self._front - 1, -1):
            item = self._items[i]
            if item is None:
                continue
            if n <= 0:
                return self._offsets[i]
            n -= counts(item)
        return self.start

    def restart(self, floor: int = 0) -> None:
        """Forget everything. Another history follows, which begins after offset ``floor``."""
        self.__init__(retain=self.retain, size=self.size, max_bytes=self.max_bytes)  # type: ignore[misc]
        self.floor = self.last = floor

    def _take_over(self, key: str | None, deleted: bool, offset: int) -> None:
        for holder in (self._by_key, self._removed):
            replaced = holder.pop(key, None)
            if replaced is not None:
                self._clear(self._index(replaced))
        (self._removed if deleted else self._by_key)[key] = offset
        if len(self._removed) > self.size:
            # A reader from before this removal can't learn of it any more: it has to begin again from a snapshot.
            oldest = next(iter(self._removed))
            self.floor = max(self.floor, self._removed[oldest])
            self._clear(self._index(self._removed.pop(oldest)))
        if len(self._offsets) - self._front > 2 * (len(self._by_key) + len(self._removed)) + _SLACK:
            self._compact()

    def _index(self, offset: int) -> int:
        """The index of the last entry that is not after ``offset``; less than the front where there is none."""
        return bisect_right(self._offsets, offset, self._front) - 1

    def _clear(self, i: int) -> None:
        self._items[i] = None
        self._bytes -= self._sizes[i]
        self._sizes[i] = 0

    def _compact(self) -> None:
        keep = [i for i in range(self._front, len(self._items)) if self._items[i] is not None]
        self._offsets = [self._offsets[i] for i in keep]
        self._items = [self._items[i] for i in keep]
        self._sizes = [self._sizes[i] for i in keep]
        self._front = 0

    def _drop(self) -> None:
        if self.retain == "log":
            self.floor = self._offsets[self._front]
        self._clear(self._front)
        self._front += 1
        if self._front > _SLACK and self._front * 2 > len(self._offsets):
            del self._offsets[: self._front], self._items[: self._front], self._sizes[: self._front]
            self._front = 0
