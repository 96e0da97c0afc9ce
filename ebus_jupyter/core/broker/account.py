"""Accounts: what each user holds of a broker, over all its connections, and what it may still ask for.

A kernel acts for the user who started it, so one account counts all kernels, pages and requests of a user. Whatever a frame
makes the broker keep is taken from the account of the user who caused it, in items or in bytes, and given back when the
broker drops it: an account's holdings are what the broker holds for that user, and are zero when nothing is left. Each kind
of holding is bounded for a user and for all users together (`BOUNDS`).

The server's own participants are trusted: they are counted, and refused nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import EbusError, RateLimited, TooLarge

from .bucket import Bucket

IDLE_SECONDS = 60.0
"""The time for which the account of a user that holds nothing is kept: a user that comes back must not find a full bucket."""


class Bound(NamedTuple):
    """The bounds of one kind of holding: the names of the limits for a user and for all users (""; none), and its words."""

    user: str
    total: str
    words: str
    error: type[EbusError] = TooLarge


BOUNDS: dict[str, Bound] = {
    "connections": Bound("user_connections", "connections", "connections"),
    "opened": Bound("user_opened", "opened", "buses open, each counted for every connection that has it open"),
    "received": Bound(
        "user_received_bytes", "received_bytes", "bytes of messages that have not been handled", RateLimited
    ),
    "pending": Bound("user_pending_bytes", "total_pending_bytes", "bytes of writes without an answer", RateLimited),
    "presence": Bound("user_presence_bytes", "total_presence_bytes", "bytes of presence"),
    "specs": Bound("user_spec_bytes", "", "bytes of specifications of buses that it has made"),
    "buses": Bound("user_buses", "", "buses that it has made"),
    "log": Bound("user_log_bytes", "total_log_bytes", "bytes in the logs of buses that it has made"),
}
"""The kinds of holdings."""


class Account:
    """The account of one user.

    Args:
        user: The user's name.
        limits: The broker's bounds.
        totals: What all accounts hold, by kind; shared by them.
        now: The time.
        trusted: Whether nothing is refused.

    Attributes:
        held: What the user holds, by kind.
        requests: The rate of its frames that are no writes. A frame may overdraw it.
        writes: The rate of the writes of its pages and clients.
        idle_since: When it was last seen to hold nothing; None while it holds something.
    """

    __slots__ = ("_most", "_totals", "held", "idle_since", "requests", "trusted", "user", "writes")

    def __init__(self, user: str, limits: Limits, totals: dict[str, int], now: float, *, trusted: bool = False) -> None:
        self.user = user
        self.trusted = trusted
        self.idle_since: float | None = None
        self.held = dict.fromkeys(BOUNDS, 0)
        self.requests = Bucket.full(limits.request_rate, limits.request_burst, now)
        self.writes = Bucket.full(limits.user_publish_rate, limits.publish_burst, now)
        self._totals = totals
        self._most: dict[str, tuple[float, float]] = {
            kind: (getattr(limits, bound.user), getattr(limits, bound.total) if bound.total else inf)
            for kind, bound in BOUNDS.items()
        }

    @property
    def holds_nothing(self) -> bool:
        return not any(self.held.values())

    def take(self, kind: str, n: int) -> None:
        """Count ``n`` more items or bytes.

        Raises:
            EbusError: There would be too many. Nothing is counted.
        """
        held, totals = self.held, self._totals
        count, total = held[kind] + n, totals[kind] + n
        most, most_of_all = self._most[kind]
        if count > most or total > most_of_all:
            self.check(kind, n)
        held[kind], totals[kind] = count, total

    def check(self, kind: str, n: int) -> None:
        """Raise the error of `take` where ``n`` more would be too many."""
        if self.trusted:
            return
        bound, (most, most_of_all) = BOUNDS[kind], self._most[kind]
        if self.held[kind] + n > most:
            words = f"{self.user or 'this user'} has {self.held[kind]} {bound.words}"
            raise _over(words, bound.error, bound.user, most)
        if self._totals[kind] + n > most_of_all:
            words = f"this server's users have {self._totals[kind]} {bound.words}"
            raise _over(words, bound.error, bound.total, most_of_all)

    def add(self, kind: str, n: int) -> None:
        """Count ``n`` more, or with a negative ``n`` fewer, of what was allowed before."""
        self.held[kind] += n
        self._totals[kind] += n

    def excess(self, kind: str) -> float:
        """How much more than its bounds allow is held; 0 or less where it is not."""
        most, most_of_all = self._most[kind]
        if self.held[kind] <= most and self._totals[kind] <= most_of_all:
            return 0.0
        return max(self.held[kind] - most, self._totals[kind] - most_of_all)


def _over(words: str, error: type[EbusError], limit: str, most: float) -> EbusError:
    text = f"{words}; the server's limit `{limit}` is {most:g} (c.EBus.{limit})."
    return error(text, limit=limit, retry_after=1.0) if error is RateLimited else error(text, limit=limit)


class Accounts:
    """The accounts of all users that hold something, or did a short while ago.

    Args:
        limits: The broker's bounds.

    Attributes:
        totals: What all accounts hold together, by kind.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_user: dict[str, Account] = {}
        self.totals = dict.fromkeys(BOUNDS, 0)
        self._server = Account("the server", limits, self.totals, 0.0, trusted=True)

    def __iter__(self) -> Iterator[Account]:
        return iter([self._server, *self._by_user.values()])

    def __len__(self) -> int:
        return len(self._by_user)

    def of(self, who: Participant, now: float) -> Account:
        """The account that ``who`` spends from."""
        return self._server if who.kind == "server" else self.of_user(who.user, now)

    def of_user(self, user: str, now: float) -> Account:
        """The account of a user, as for a bus that it has made."""
        account = self._by_user.get(user)
        if account is None:
            account = self._by_user[user] = Account(user, self._limits, self.totals, now)
        return account

    def tick(self, now: float) -> None:
        """Drop the accounts that have held nothing for a while."""
        for user, account in list(self._by_user.items()):
            if not account.holds_nothing:
                account.idle_since = None
            elif account.idle_since is None:
                account.idle_since = now
            elif now - account.idle_since > IDLE_SECONDS:
                del self._by_user[user]
