"""Fair shares of the event loop: a server's notebooks come first.

Everything in a Jupyter server runs on one event loop. What a busy bus does in one go, the messages of a running cell
wait for, at every hop of their way. So frames are taken for half a millisecond; then whoever brings them waits while
everybody else has a turn. As nobody reads from a socket that waits so, TCP slows its writer down.

To hand out what a turn has taken costs by the connection, not by the message. Where there are very many connections it is
most of a turn however few frames were taken, so more are: as long again, a few times over.
"""

from __future__ import annotations

import asyncio
import math

SLICE_SECONDS = 0.0005
"""How long frames are taken, from all connections together, before others have their turn."""

FEW = 32
"""To so many connections, at most, something is handed out quickly."""

HANDED_OUT = 2
"""How many times as long as it took to hand out the last ones, where that is longer."""


class TimeSlice:
    """The broker's turn on the loop.

    Args:
        loop: The loop.
        seconds: How long a turn is, at least. 0: no longer than it takes to take something.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._least = self._seconds = seconds
        self._ends: float | None = None
        self._quiet_from = 0.0
        self._next: asyncio.Future[None] | None = None

    def is_quiet(self) -> bool:
        """Whether who comes now comes alone, and is served at once: nothing was handed out for as long as it takes."""
        return self._loop.time() >= self._quiet_from

    def is_over(self) -> bool:
        """Whether this turn's time is used up. It runs from the first call."""
        now = self._loop.time()
        if self._ends is None:
            self._ends = now + self._seconds
            self._loop.call_soon(self._others)
        return now >= self._ends

    def handed_out(self, seconds: float, connections: int) -> None:
        """It took so long, till now, to hand out what was taken."""
        # A round of the loop is not worth saving where this takes many times as long.
        self._quiet_from = self._loop.time() + seconds if connections <= FEW else math.inf
        if self._least:
            self._seconds = max(self._least, HANDED_OUT * seconds)

    def next(self) -> asyncio.Future[None]:
        """Done when the next turn begins. All who wait for it share it: a task that may be cancelled shields it."""
        if self._next is None:
            self.is_over()  # so that this one has an end
            self._next = self._loop.create_future()
        return self._next

    def _others(self) -> None:
        # Two rounds of the loop are theirs: a message from a kernel's socket to a page takes as many.
        self._loop.call_soon(self._end)

    def _end(self) -> None:
        self._ends = None
        if self._next is not None:
            self._next.set_result(None)
            self._next = None
