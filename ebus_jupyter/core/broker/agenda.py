"""The agenda: the connections that have left something to do, and whose turn it is.

Users take turns, and then the connections of each: a user with a thousand connections that ask for a lot gets no more of
the broker than one who sends a single request. A user whose rate is spent is passed over until it is refilled.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

from .account import Account


class HasAccount(Protocol):
    """What the agenda needs of a connection."""

    id: int

    @property
    def account(self) -> Account: ...


C = TypeVar("C", bound=HasAccount)


class Agenda(Generic[C]):
    """The connections that wait for their turn. Each is here at most once."""

    def __init__(self) -> None:
        self._queues: dict[Account, deque[C]] = {}  # by account, the next one first; no queue is empty
        self._waiting: set[int] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, conn_id: object) -> bool:
        return conn_id in self._waiting

    def add(self, conn: C) -> None:
        """Let a connection take a turn after those that wait already."""
        if conn.id not in self._waiting:
            self._waiting.add(conn.id)
            queue = self._queues.get(conn.account)
            if queue is None:
                self._queues[conn.account] = deque((conn,))
            else:
                queue.append(conn)

    def next(self, now: float) -> C | None:
        """Take out the connection whose turn it is; None where there is none, or none may spend anything now."""
        for account in self._queues:
            account.requests.refill(now)
            if account.requests.level > 0:
                queue = self._queues.pop(account)
                conn = queue.popleft()
                self._waiting.discard(conn.id)
                if queue:
                    self._queues[account] = queue  # behind the other accounts
                return conn
        return None

    def wait(self) -> float:
        """The seconds until `next` returns a connection; 0 where it does so at once, or there is none."""
        return min((max(0.0, account.requests.wait()) for account in self._queues), default=0.0)
