"""Presence: the participants of a bus.

A participant is *here* from the time it opens the bus until it leaves. A participant that loses its connection is *away*
for a while (a page reload, a lost network) before it counts as left, so that others do not see it flicker. The state that
a participant sets belongs to it; the activity of a kernel ("idle", "busy", "restarting", "dead") is set by the server.

Changes are collected, and sent as one `Diff` at the host's pace: when five hundred participants open a notebook at once,
each of them receives a few diffs, not five hundred. Of a state that changes fast, such as a cursor, others see the newest one
and not each: a bus spends `Limits.presence_rate` on its diffs, and what does not fit waits, while newer states take its place.
Those who come, leave or lose their connection go first.
"""

from __future__ import annotations

import math

import msgspec

from ebus_jupyter.core.protocol.frames import NIL
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.core.protocol.seat import AWAY, HERE, encode_seat

from .account import Account
from .bucket import Bucket


class Member(msgspec.Struct):
    """One participant on one bus, as others see it.

    Attributes:
        who: The participant.
        since: When it first opened the bus, in seconds since the epoch.
        state: The encoded state that it has set.
        activity: Of a kernel: "idle", "busy", "restarting" or "dead".
        watches: Whether it receives the changes to presence.
        is_away: Whether it has lost its connection.
        account: The account that holds its state.
    """

    who: Participant
    since: float
    state: msgspec.Raw = NIL
    activity: str = ""
    watches: bool = False
    is_away: bool = False
    account: Account | None = None

    def encode(self) -> msgspec.Raw:
        status = AWAY if self.is_away else HERE
        return encode_seat(self.who, status, self.since, self.state, self.activity)


class Diff(msgspec.Struct):
    """The changes since the previous diff: the participants that came or changed, and the ids of those that left.

    ``size`` is that of both, in bytes.
    """

    here: list[msgspec.Raw]
    left: list[str]
    size: int = 0


class Presence:
    """The participants of one bus. Times are arguments, in seconds."""

    __slots__ = ("__weakref__", "_away", "_budget", "_changed", "_members", "_restated")

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._changed: dict[str, None] | None = None  # None while it is empty: most buses have no changes
        self._restated: dict[str, None] | None = None  # those with another state and no other change, the oldest first
        self._budget: Bucket | None = None  # the bytes that may be sent; None until the first are
        self._away: dict[str, float] | None = None  # since when, the longest first; None while it is empty

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._members

    @property
    def has_changed(self) -> bool:
        """True if there are changes since the last `diff`."""
        return self._changed is not None or self._restated is not None

    @property
    def away_since(self) -> float | None:
        """The time since which a participant has been away, of the one that has been for the longest; None: all are here."""
        return next(iter(self._away.values())) if self._away else None

    @property
    def watchers(self) -> list[str]:
        """The ids of the participants that receive the changes."""
        return [id_ for id_, member in self._members.items() if member.watches]

    def _change(self, id_: str) -> None:
        if self._changed is None:
            self._changed = {}
        self._changed[id_] = None
        if self._restated is not None:
            self._restated.pop(id_, None)
            self._restated = self._restated or None

    def join(self, who: Participant, since: float) -> None:
        """``who`` is here, perhaps again. The state that it set before it went away is kept.

        Args:
            who: The participant.
            since: The time of day.
        """
        member = self._members.get(who.id)
        if member is None:
            self._members[who.id] = Member(who, since)
        else:
            member.who, member.is_away = who, False
            self._is_back(who.id)
        self._change(who.id)

    def _is_back(self, id_: str) -> None:
        if self._away is not None:
            self._away.pop(id_, None)
            self._away = self._away or None

    def away(self, id_: str, now: float) -> None:
        """The participant has lost its connection. It may come back before it expires."""
        member = self._members.get(id_)
        if member is not None and not member.is_away:
            member.is_away = True
            if self._away is None:
                self._away = {}
            self._away[id_] = now
            self._change(id_)

    def leave(self, id_: str) -> None:
        """The participant has left the bus."""
        member = self._members.pop(id_, None)
        if member is not None:
            _release(member)
            self._is_back(id_)
            self._change(id_)

    def clear(self) -> None:
        """The bus is unloaded."""
        for member in self._members.values():
            _release(member)
        self._members.clear()
        self._changed = self._away = self._restated = None

    def set(self, id_: str, state: msgspec.Raw, account: Account | None = None) -> None:
        """The participant sets its state, which ``account`` holds from now on.

        Raises:
            TooLarge: The account has no room for it.
        """
        member = self._members.get(id_)
        if member is None:
            return
        held = 0 if member.account is None else len(member.state)
        if account is not None and len(state) > held:
            account.check("presence", len(state) - held)
        _release(member)
        member.state = msgspec.Raw(bytes(state))  # a copy: what arrived is a part of a message that may be large
        if account is not None:
            member.account = account
            account.add("presence", len(member.state))
        if self._changed is None or id_ not in self._changed:
            if self._restated is None:
                self._restated = {}
            self._restated[id_] = None

    def watch(self, id_: str, watches: bool) -> None:
        """The participant begins to receive changes, or stops."""
        if id_ in self._members:
            self._members[id_].watches = watches

    def kernel(self, kernel_id: str, activity: str) -> bool:
        """Set the activity of a kernel.

        Returns:
            Whether the kernel is a participant of the bus.
        """
        members = [(id_, member) for id_, member in self._members.items() if member.who.kernel_id == kernel_id]
        for id_, member in members:
            if member.activity != activity:
                member.activity = activity
                self._change(id_)
        return bool(members)

    def expire(self, before: float) -> None:
        """Remove the participants that went away before the time ``before``."""
        while self._away:
            id_, since = next(iter(self._away.items()))
            if since >= before:
                break
            self.leave(id_)

    def snapshot(self) -> list[msgspec.Raw]:
        """Every participant, encoded."""
        return [member.encode() for member in self._members.values()]

    def budget(self, now: float, rate: float) -> Bucket:
        """The bytes that may be spent on diffs, where ``rate`` bytes per second may be; at most two seconds' worth."""
        if self._budget is None:
            self._budget = Bucket.full(rate, 2.0, now)
        self._budget.refill(now)
        return self._budget

    def diff(self, max_bytes: float = math.inf) -> Diff | None:
        """The changes since the last call; None where there are none.

        Args:
            max_bytes: The size above which further changes wait for the next call. One is returned at least.
        """
        found = Diff([], [])
        for changes in (self._changed, self._restated):
            while changes and found.size < max_bytes:
                id_ = next(iter(changes))
                del changes[id_]
                member = self._members.get(id_)
                if member is None:
                    found.left.append(id_)
                else:
                    found.here.append(member.encode())
                found.size += len(id_) + 2 if member is None else len(found.here[-1])
        self._changed, self._restated = self._changed or None, self._restated or None
        return found if found.size else None


def _release(member: Member) -> None:
    if member.account is not None:
        member.account.add("presence", -len(member.state))
        member.account = None
