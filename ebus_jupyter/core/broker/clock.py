"""The time of day, for the stamps that people see.

The state machine's ``now`` is the host's monotonic clock: durations and rates are differences of it, so no step of the wall
clock changes them. A stamp is ``now`` plus an offset, which the host renews as time passes.
"""

from __future__ import annotations


class WallClock:
    """The time of day.

    Attributes:
        offset: The seconds by which the time of day is ahead of the monotonic clock.
    """

    __slots__ = ("offset",)

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def stamp(self, now: float) -> float:
        """The time of day at ``now``, in seconds since the epoch."""
        return now + self.offset
