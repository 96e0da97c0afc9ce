"""Fair shares of the event loop: a server's notebooks come first.

A Jupyter server runs everything on one event loop. While a busy bus is served, the messages of a running cell wait, at each
hop of their way. The broker therefore handles frames for half a millisecond at a time, its *time slice*. A connection that
brings more waits until the other users of the loop have run. Its socket is not read meanwhile, so TCP slows its writer
down.

The cost of a delivery depends on the number of connections, not of messages. With very many connections a delivery would
take most of each slice however few frames were handled, so slices become longer there: a multiple of the time that the
previous delivery took.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

SLICE_SECONDS = 0.0005
"""Minimum slice length: the time for which frames of all connections are handled before others run."""

FEW_CONNECTIONS = 32
"""The number of connections up to which a delivery is quick."""

DELIVERY_FACTOR = 2
"""Minimum slice length, as a multiple of the time spent on the previous delivery."""


class TimeSlice:
    """The broker's share of the event loop.

    Args:
        loop: The event loop.
        seconds: The minimum length of a slice. 0: each slice ends at once.
        clock: Seconds, of any clock that only goes forward. Default: the loop's.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, clock: Callable[[], float] | None = None
    ) -> None:
        self._loop = loop
        self.clock = clock or loop.time
        self._minimum = self._seconds = seconds
        self._ends_at: float | None = None
        self._used_at = -math.inf
        self._quiet_from = 0.0
        self._next: asyncio.Future[None] | None = None

    def begin(self) -> bool:
        """A message has arrived. The slice is a new one where the last was not used for as long as a slice is.

        Returns:
            Whether it `is_quiet`.
        """
        now = self.clock()
        if self._next is None and now - self._used_at >= self._seconds:
            self._ends_at = now + self._seconds
        self._used_at = now
        return now >= self._quiet_from

    def is_quiet(self) -> bool:
        """True if a message that arrives now is a lone one, and may be served at once.

        It is where nothing was delivered for as long as a delivery takes.
        """
        return self.clock() >= self._quiet_from

    def is_over(self) -> bool:
        """True if the current slice is used up. A slice begins with the first call."""
        now = self._used_at = self.clock()
        if self._ends_at is None:
            self._ends_at = now + self._seconds
        return now >= self._ends_at

    def delivered(self, seconds: float, connections: int) -> None:
        """A delivery to so many connections has just ended, and took so long."""
        self._used_at = self.clock()
        # With many connections, an iteration of the loop costs little beside the delivery: never quiet.
        self._quiet_from = self._used_at + seconds if connections <= FEW_CONNECTIONS else math.inf
        if self._minimum:
            self._seconds = max(self._minimum, DELIVERY_FACTOR * seconds)

    def next_slice(self) -> asyncio.Future[None]:
        """Done when the next slice begins. All callers share the future: a task that may be cancelled shields it."""
        if self._next is None:
            self._next = self._loop.create_future()
            self._loop.call_soon(self._let_others_run)
        return self._next

    def _let_others_run(self) -> None:
        # For two iterations of the loop: a message from a kernel's socket to a page takes that many.
        self._loop.call_soon(self._end)

    def _end(self) -> None:
        self._ends_at = None
        if self._next is not None:
            self._next.set_result(None)
            self._next = None
