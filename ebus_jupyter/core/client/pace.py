"""The pace of writing: a client sends no faster than its broker lets it, so that nothing is refused and nothing is lost.

The broker's welcome says how many writes a second it takes from this client (``publish_rate``), and how many may come at once
(``publish_burst``). `Pace` counts along. The two clocks and the line between them are not exact: where the broker refuses a
write all the same, `Outbox` goes back to it.
"""

from __future__ import annotations

STEP_SECONDS = 0.02
"""Writes that have to wait are sent together in steps of about this length, rather than each at its own moment."""

_ENOUGH = 1 - 1e-3  # of a write: times are floats, and a deadline that is met is met


class Pace:
    """How many writes may be sent now.

    Attributes:
        rate: Writes a second; 0 where the broker sets no rate.
    """

    def __init__(self) -> None:
        self.rate = 0.0
        self._burst = 0.0
        self._allowed = 0.0
        self._at = 0.0

    def begin(self, rate: float, burst: float, now: float) -> None:
        """A connection begins, on which ``burst`` writes may be sent at once."""
        self.rate = rate
        # A part is kept back for writes that the line delays and then delivers together.
        self._allowed = self._burst = max(1.0, burst - burst // 10)
        self._at = now

    def stop_until(self, at: float) -> None:
        """The broker takes no write before ``at``, and one then."""
        self._allowed, self._at = 1.0, max(at, self._at)

    def take(self, now: float) -> bool:
        """Whether a write may be sent now; if so, it counts as sent."""
        if self.rate:
            if now > self._at:
                self._refill(now)
            if now < self._at or self._allowed < _ENOUGH:
                return False
            self._allowed -= 1
        return True

    def wait(self, now: float, writes: int = 1) -> float:
        """The seconds until ``writes`` of them may be sent at once, or as many as one step of time or one burst takes."""
        if not self.rate:
            return 0.0
        if now > self._at:
            self._refill(now)
        wanted = max(1.0, min(writes, self.rate * STEP_SECONDS, self._burst))
        return max(0.0, self._at - now) + max(0.0, (wanted - self._allowed) / self.rate)

    def _refill(self, now: float) -> None:
        self._allowed = min(self._burst, self._allowed + (now - self._at) * self.rate)
        self._at = now
