"""Who is on a bus: people's pages, kernels, the server.

A participant is *here* from its first open until it leaves. One that loses its connection is *away* for a while (a
reload, a lost network) before it has left, so that others don't see it flicker. What a participant says about itself
(`set`) is its own; its activity ("idle", "busy", "restarting", "dead") is a fact that the server knows of a kernel.

Changes are gathered and told as one `Diff` when the broker's shell asks, so that a class of five hundred that opens one
notebook costs each of them a few diffs, not five hundred.
"""

from __future__ import annotations

import msgspec

from ebus_jupyter.core.protocol.frames import NIL
from ebus_jupyter.core.protocol.message import Participant

HERE, AWAY = "here", "away"


class Seat(msgspec.Struct):
    """One participant on one bus, as others see it."""

    who: Participant
    since: float
    state: msgspec.Raw = NIL
    activity: str = ""
    watches: bool = False
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

    __slots__ = ("_changed", "_seats")

    def __init__(self) -> None:
        self._seats: dict[str, Seat] = {}
        self._changed: set[str] | None = None  # a set when there is something in it: there are many that have none

    def __len__(self) -> int:
        return len(self._seats)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._seats

    @property
    def has_changed(self) -> bool:
        """Whether `diff` has something to tell."""
        return self._changed is not None

    @property
    def has_away(self) -> bool:
        """Whether someone may have to leave when time has passed."""
        return any(seat.away_since is not None for seat in self._seats.values())

    @property
    def watchers(self) -> list[str]:
        """Who wants to be told of changes."""
        return [id_ for id_, seat in self._seats.items() if seat.watches]

    def _change(self, id_: str) -> None:
        if self._changed is None:
            self._changed = set()
        self._changed.add(id_)

    def join(self, who: Participant, now: float) -> None:
        """``who`` is here (again). What it said about itself before it went away still holds."""
        seat = self._seats.get(who.id)
        if seat is None:
            self._seats[who.id] = Seat(who, now)
        else:
            seat.who, seat.away_since = who, None
        self._change(who.id)

    def away(self, id_: str, now: float) -> None:
        """Its connection is lost; it may be back before `expire`."""
        if id_ in self._seats:
            self._seats[id_].away_since = now
            self._change(id_)

    def leave(self, id_: str) -> None:
        """It has closed the bus."""
        if self._seats.pop(id_, None) is not None:
            self._change(id_)

    def set(self, id_: str, state: msgspec.Raw) -> None:
        """It says ``state`` of itself."""
        if id_ in self._seats:
            self._seats[id_].state = state
            self._change(id_)

    def watch(self, id_: str, watches: bool) -> None:
        """It wants to be told of changes, or no longer."""
        if id_ in self._seats:
            self._seats[id_].watches = watches

    def kernel(self, kernel_id: str, activity: str) -> bool:
        """The server knows that a kernel is idle, busy, restarting or dead. Whether it has a seat here at all."""
        seats = [(id_, seat) for id_, seat in self._seats.items() if seat.who.kernel_id == kernel_id]
        for id_, seat in seats:
            if seat.activity != activity:
                seat.activity = activity
                self._change(id_)
        return bool(seats)

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
        if self._changed is None:
            return None
        changed, self._changed = sorted(self._changed), None
        here = [self._seats[id_].encode() for id_ in changed if id_ in self._seats]
        return Diff(here, [id_ for id_ in changed if id_ not in self._seats])
