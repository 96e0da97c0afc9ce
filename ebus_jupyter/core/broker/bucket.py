"""Token buckets: how the broker holds every rate."""

from __future__ import annotations

import msgspec


class Bucket(msgspec.Struct):
    """A rate: ``level`` units may be spent now, and ``rate`` more each second, up to ``burst``. A spender may overdraw it."""

    rate: float
    burst: float
    level: float
    at: float

    @classmethod
    def full(cls, rate: float, seconds: float, now: float) -> Bucket:
        """A bucket that holds ``seconds`` of its rate, and is full."""
        return cls(rate, rate * seconds, rate * seconds, now)

    def refill(self, now: float) -> None:
        """Note that it is ``now``, in seconds of a clock that only goes forward."""
        if now > self.at:
            self.level = min(self.burst, self.level + (now - self.at) * self.rate)
            self.at = now

    def wait(self, units: float = 1.0) -> float:
        """The seconds until so many units, or a full bucket, may be spent."""
        return max(0.0, (min(units, self.burst) - self.level) / self.rate)
