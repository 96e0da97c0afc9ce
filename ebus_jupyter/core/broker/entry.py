"""How a write lies in a log: what the broker hands to a backend, and gets back from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import msgspec

from ebus_jupyter.core.protocol.message import BusSpec, Id


class Entry(msgspec.Struct, array_like=True, gc=False, weakref=False):
    """One write, as it is kept. ``offset`` is 0 until the backend has given it one.

    Attributes:
        bus: The bus's address, as a string.
        id: The sender's count for this write.
        time: Seconds since the epoch.
        sender: The encoded `Participant`, without groups.
        value: The encoded value.
        key: The entry it sets, or None.
        deleted: It removes ``key``.
        to: Users it is for; None: everyone.
        echo: Whether its writer hears it.
        offset: Its place in the order.
    """

    bus: str
    id: int
    time: float
    sender: bytes
    value: bytes
    key: str | None = None
    deleted: bool = False
    to: tuple[str, ...] | None = None
    echo: bool = True
    offset: int = 0

    @property
    def size(self) -> int:
        """What it counts for, where bytes are bounded."""
        return len(self.value) + len(self.sender)


class Run(NamedTuple):
    """Writes of one sender, side by side: its writes ``id``, ``id + 1`` … (``length`` of them) got ``offset``, …"""

    sender: str
    id: int
    offset: int
    length: int = 1


class Kept(msgspec.Struct):
    """What a backend keeps of a bus.

    Attributes:
        spec: The bus's specification.
        epoch: Names this history of the bus; never empty. A bus that is deleted and made again gets another.
        last: The last offset given, 0 where there is none (it may be greater than the last entry's).
        floor: The last offset that was dropped by the bus's bound; 0 where nothing was.
        entries: What is retained, in the order of offsets.
        recent: The writes that were accepted last, in the order of offsets, whether they are still retained or not: a
            retry is answered with its first offset, over a restart too.
    """

    spec: BusSpec
    epoch: str
    last: int = 0
    floor: int = 0
    entries: list[Entry] = []
    recent: list[Run] = []

    def ids(self) -> Iterator[tuple[Id, int]]:
        """Every write of `recent`, and its offset."""
        for sender, id_, offset, length in self.recent:
            for i in range(length):
                yield (sender, id_ + i), offset + i


def by_bus(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The writes to each bus."""
    found: dict[str, list[Entry]] = {}
    for bus, side_by_side in groupby(entries, key=_bus):
        found.setdefault(bus, []).extend(side_by_side)
    return found


_bus = attrgetter("bus")


def runs(entries: Iterable[Entry], last: int) -> list[Run]:
    """The writes of ``entries``, which got the offsets after ``last``."""
    found: list[Run] = []
    writer = b""
    first = count = 0
    for entry in entries:
        if count and entry.id == first + count and entry.sender == writer:
            count += 1
            continue
        if count:
            found.append(Run(sender_id(writer), first, last + 1, count))
            last += count
        writer, first, count = entry.sender, entry.id, 1
    if count:
        found.append(Run(sender_id(writer), first, last + 1, count))
    return found


_participant = msgspec.msgpack.Decoder(tuple[str, str, str, str, str, tuple[str, ...]])


@lru_cache(maxsize=4096)
def sender_id(sender: bytes) -> str:
    """The id of an encoded `Participant`."""
    return _participant.decode(sender)[0]
