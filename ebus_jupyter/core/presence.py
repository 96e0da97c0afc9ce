"""Who is on a bus: people's pages, kernels, the server.

A participant is *here* from its first open until it leaves. One that loses its connection is *away* for a while (a
reload, a lost network) before it has left, so that others don't see it flicker. What a participant says about itself
(`set`) is its own; its activity ("idle", "busy", "restarting", "dead") is a fact that the server knows of a kernel.

Changes are gathered and told as one `Diff` when the broker's shell asks, so that a class of five hundred that opens one
notebook costs each of them a few diffs, not five hundred.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .frames import NIL
from .message import Participant

HERE, AWAY = "here", "away"


class Seat(msgspec.Struct):
    """One participant on one bus, as others see it."""

    who: Participant
    since: float
    state: msgspec.Raw = NIL
    activity: str = ""
    away_since: float | None = None

    def encode(self) -> msgspec.Raw:
        status = HERE if self.away_since is None else AWAY
        return msgspec.Raw(msgspec.msgpack.encode([self.who, status, self.since, self.state, self.activity]))


class Diff(msgspec.Struct):
    """What changed since the last one."""

    here: list[msgspec.Raw]
    left: list[str]


class Presence:
    """The seats of one bus. Times are arguments, in seconds."""

    __slots__ = ("_changed", "_left", "_seats")

    def __init__(self) -> None:
        self._seats: dict[str, Seat] = {}
        self._changed: dict[str, None] = {}  # sets in dicts: an empty one is small, and there are many
        self._left: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._seats)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._seats

    @property
    def has_changed(self) -> bool:
        """Whether `diff` has something to tell."""
        return bool(self._changed or self._left)

    def join(self, who: Participant, now: float) -> None:
        """``who`` is here (again). What it said about itself before it went away still holds."""
        seat = self._seats.get(who.id)
        if seat is None:
            self._seats[who.id] = Seat(who, now)
            self._left.pop(who.id, None)
        else:
            seat.who, seat.away_since = who, None
        self._changed[who.id] = None

    def away(self, id_: str, now: float) -> None:
        """Its connection is lost; it may be back before `expire`."""
        if id_ in self._seats:
            self._seats[id_].away_since = now
            self._changed[id_] = None

    def leave(self, id_: str) -> None:
        """It has closed the bus."""
        if self._seats.pop(id_, None) is not None:
            self._left[id_] = None
            self._changed.pop(id_, None)

    def set(self, id_: str, state: msgspec.Raw) -> None:
        """It says ``state`` of itself."""
        if id_ in self._seats:
            self._seats[id_].state = state
            self._changed[id_] = None

    def kernel(self, kernel_id: str, activity: str) -> None:
        """The server knows that a kernel is idle, busy, restarting or dead."""
        for id_, seat in self._seats.items():
            if seat.who.kernel_id == kernel_id and seat.activity != activity:
                seat.activity = activity
                self._changed[id_] = None

    def expire(self, before: float) -> None:
        """Whoever is away since before ``before`` has left."""
        for id_ in [
            id_ for id_, seat in self._seats.items() if seat.away_since is not None and seat.away_since < before
        ]:
            self.leave(id_)

    def snapshot(self) -> list[msgspec.Raw]:
        return [seat.encode() for seat in self._seats.values()]

    def diff(self) -> Diff | None:
        """What changed since the last call; None where nothing did."""
        if not self.has_changed:
            return None
        found = Diff([self._seats[id_].encode() for id_ in sorted(self._changed)], sorted(self._left))
        self._changed, self._left = {}, {}
        return found


def read_seat(raw: msgspec.Raw) -> tuple[Participant, str, float, Any, str]:
    """What `Seat.encode` wrote, on the client's side: who, "here" or "away", since when, its own words, its activity."""
    return msgspec.msgpack.decode(raw, type=tuple[Participant, str, float, Any, str])
