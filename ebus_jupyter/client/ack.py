"""The answer to a write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator

from ebus_jupyter.errors import EbusError

from .waiting import NOT_YET, Condition

logger = logging.getLogger("ebus_jupyter")


class Ack:
    """The outcome of one write: ``await ack``, or ``ack.result(timeout=5)``, returns its offset or raises its error.

    An ack that failed and was never looked at is logged as a warning, so that no write is lost silently.
    """

    __slots__ = ("_answered", "_ensure_may_block", "_error", "_looked_at", "_name", "_offset")

    def __init__(self, name: str, ensure_may_block: Callable[[str], None]) -> None:
        self._name = name
        self._ensure_may_block = ensure_may_block
        self._offset = 0
        self._error: EbusError | None = None
        self._looked_at = False
        self._answered: Condition | None = None

    @property
    def done(self) -> bool:
        """True once the broker has answered."""
        return self._offset > 0 or self._error is not None

    @property
    def error(self) -> EbusError | None:
        """Why the write was refused; None if it was accepted, or has no answer yet."""
        self._looked_at = True
        return self._error

    def result(self, timeout: float | None = None) -> int:
        """Wait for the answer.

        Args:
            timeout: Seconds to wait. Default: None, without a limit.

        Returns:
            The offset of the message.

        Raises:
            Rejected, FilterUnavailable, Closed, BackendError: The write was not accepted.
            TimeoutError: There is no answer yet. The write may still be accepted: the client keeps asking.
            RuntimeError: The call would block the client's own event loop.
        """
        if self.done:
            return self._check()
        self._ensure_may_block("ack.result()")
        return self._condition().wait(self._check, timeout, f"no answer to a write to {self._name} yet")

    def __await__(self) -> Generator[object, None, int]:
        return self._condition().wait_async(self._check).__await__()

    def _condition(self) -> Condition:
        # Made when first waited for: most acks of a busy writer are never waited for.
        if self._answered is None:
            self._answered = Condition()
        return self._answered

    def _check(self) -> int:
        self._looked_at = True
        if self._error is not None:
            raise self._error.anew()
        found: int = self._offset or NOT_YET
        return found

    def settle(self, offset: int, error: EbusError | None) -> None:
        """Record the broker's answer. Called by the connection."""
        self._offset, self._error = offset, error
        if self._answered is not None:
            self._answered.notify()

    def __del__(self) -> None:
        if self._error is not None and not self._looked_at:
            logger.warning("a write to %s was refused, and its ack was never looked at: %s", self._name, self._error)

    def __repr__(self) -> str:
        if self._error is not None:
            return f"<Ack of {self._name}: {type(self._error).__name__}: {self._error}>"
        return f"<Ack of {self._name}: {f'offset {self._offset}' if self._offset else 'pending'}>"
