"""The work that one check may take, in proportion to the value that it is about."""

from __future__ import annotations

STEPS = 4_000
"""The steps that any check may take. A step takes a quarter of a microsecond, or less."""

STEPS_PER_BYTE = 8
"""The steps that each byte of the value adds."""

MOST_STEPS = 300_000
"""The steps that no check exceeds."""

FAILED_STEPS = 5
"""The steps of a branch that was tried in vain: its error is made, and thrown away."""

DEPTH = 200
"""The nesting of a value that is held to a schema."""


class Overrun(Exception):
    """A check would take more work than its value pays for."""


class Meter:
    """Counts the steps of one check.

    Args:
        size: The size of the value, in bytes.
    """

    __slots__ = ("depth", "left")

    def __init__(self, size: int) -> None:
        self.left = min(STEPS + STEPS_PER_BYTE * size, MOST_STEPS)
        self.depth = 0

    def spend(self, steps: int) -> None:
        """Take ``steps``.

        Raises:
            Overrun: There are not so many left.
        """
        self.left -= steps
        if self.left < 0:
            raise Overrun

    def enter(self) -> None:
        """Go one level down into the value; `leave` goes up again.

        Raises:
            Overrun: The value is nested too deeply.
        """
        self.depth += 1
        if self.depth > DEPTH:
            raise Overrun

    def leave(self) -> None:
        self.depth -= 1
