"""How a write lies in a log: what the broker hands to a backend, and gets back from it."""

from __future__ import annotations

import msgspec

from .message import BusSpec


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


class Kept(msgspec.Struct):
    """What a backend keeps of a bus.

    Attributes:
        spec: The bus's specification.
        epoch: Names this history of the bus; never empty. A bus that is deleted and made again gets another.
        last: The last offset given, 0 where there is none (it may be greater than the last entry's).
        floor: The last offset that was dropped by the bus's bound; 0 where nothing was.
        entries: What is retained, in the order of offsets.
    """

    spec: BusSpec
    epoch: str
    last: int = 0
    floor: int = 0
    entries: list[Entry] = []
