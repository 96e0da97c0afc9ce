"""Writes as the broker hands them to a backend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import msgspec

from ebus_jupyter.core.protocol.message import Participant

from .account import Account


class Writer(msgspec.Struct):
    """A participant that writes, the bytes that stand for it in each of its entries, and the account of its user."""

    who: Participant
    encoded: bytes
    account: Account

    @property
    def id(self) -> str:
        return self.who.id


class Entry(msgspec.Struct, array_like=True, gc=False, weakref=False):
    """One write, as it is stored.

    Attributes:
        bus: The bus's address, as a string.
        id: The sender's count for this write.
        time: Seconds since the epoch.
        sender: The encoded `Participant`, without its groups.
        value: The encoded value.
        key: The key that it sets, or None.
        deleted: True where it removes ``key``.
        to: The users and ``group:NAME`` that receive it; None: all.
        echo: Whether its writer receives it.
        offset: Its place in the bus's order; 0 until the backend has assigned one.
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
        """The bytes that count towards a log's bound."""
        size = len(self.value) + len(self.sender)
        if self.key is not None:
            size += len(self.key)
        return size if self.to is None else size + recipients_size(self.to)


def recipients_size(to: Sequence[str]) -> int:
    """The bytes that the names of recipients take in memory, approximately."""
    return sum(map(len, to)) + 64 * len(to)


class Run(NamedTuple):
    """Adjacent writes of one sender: its writes ``id``, ``id + 1`` … (``length`` of them) have ``offset``, ``offset + 1`` …

    ``user`` is the sender's user.
    """

    sender: str
    id: int
    offset: int
    length: int = 1
    user: str = ""


def by_bus(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Group entries by the bus that they belong to; each group keeps their order."""
    if len(entries) == 1:  # a lone write
        return {entries[0].bus: [entries[0]]}
    found: dict[str, list[Entry]] = {}
    for bus, adjacent in groupby(entries, key=_bus):
        found.setdefault(bus, []).extend(adjacent)
    return found


_bus = attrgetter("bus")


def runs(entries: Iterable[Entry], last: int) -> list[Run]:
    """The runs that ``entries`` consist of, where the offsets after ``last`` are assigned to them."""
    found: list[Run] = []
    sender = b""
    first = count = 0
    for entry in entries:
        if count and entry.id == first + count and entry.sender == sender:
            count += 1
            continue
        if count:
            found.append(_run(sender, first, last + 1, count))
            last += count
        sender, first, count = entry.sender, entry.id, 1
    if count:
        found.append(_run(sender, first, last + 1, count))
    return found


def _run(sender: bytes, first: int, offset: int, length: int) -> Run:
    id_, user = sender_key(sender)
    return Run(id_, first, offset, length, user)


_participant = msgspec.msgpack.Decoder(Participant)


@lru_cache(maxsize=4096)
def sender_id(sender: bytes) -> str:
    """The id of an encoded `Participant`."""
    return _participant.decode(sender).id


@lru_cache(maxsize=4096)
def sender_key(sender: bytes) -> tuple[str, str]:
    """The id and the user of an encoded `Participant`."""
    who = _participant.decode(sender)
    return who.id, who.user
