"""Errors that nobody looked at, told in the log: for each bus at most once a second, with their number."""

from __future__ import annotations

import logging
import time

from . import background

logger = logging.getLogger("ebus_jupyter")

SECONDS = 1.0
"""The least time between two warnings of one bus."""


class UnseenErrors:
    """The refused writes of one bus that nobody asked about."""

    def __init__(self) -> None:
        self._told_at = -SECONDS
        self._count = 0
        self._last = ""

    def add(self, text: str) -> None:
        """Log a warning soon, alone or as one of many. May be called by a finaliser."""
        self._count += 1
        self._last = text
        if self not in _waiting:
            _waiting.add(self)
            background.later(max(0.0, self._told_at + SECONDS - time.monotonic()), self._tell)

    def _tell(self) -> None:
        _waiting.discard(self)  # first: what is added from now on is told next time
        count, self._count = self._count, 0
        self._told_at = time.monotonic()
        if count == 1:
            logger.warning("%s", self._last)
        elif count:
            logger.warning("%s (and %d more like this within a second)", self._last, count - 1)


_waiting: set[UnseenErrors] = set()


def tell_all() -> None:
    """Log what waits for its second to pass. For the end of the process."""
    for unseen in list(_waiting):
        unseen._tell()
