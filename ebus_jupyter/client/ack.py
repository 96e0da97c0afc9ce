"""The answer to a write."""

from __future__ import annotations

from collections.abc import Callable, Generator

from ebus_jupyter.errors import EbusError

from .topic import Holder
from .waiting import NOT_YET, Condition


class Ack:
    """The outcome of one write: ``await ack``, or ``ack.result(timeout=5)``, returns its offset or raises its error.

    An ack that failed and was never looked at is logged as a warning, so that no write is lost silently; many of one bus
    within a second are logged together. While a write has no answer, the bus stays open.
    """

    __slots__ = ("_answered", "_ensure_may_block", "_error", "_holder", "_looked_at", "_offset", "_topic")

    def __init__(self, holder: Holder, ensure_may_block: Callable[[str], None]) -> None:
        self._topic = holder.topic
        self._holder: Holder | None = holder
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
        return self._condition().wait(
            self._check, timeout, f"no answer to a write to {self._topic.name} yet; the client goes on asking"
        )

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
        self._holder = None
        if self._answered is not None:
            self._answered.notify()

    def __del__(self) -> None:
        if getattr(self, "_error", None) is not None and not self._looked_at:  # none, where the making was interrupted
            name = self._topic.name
            self._topic.unseen.add(f"a write to {name} was refused, and its ack was never looked at: {self._error}")

    def __repr__(self) -> str:
        if self._error is not None:
            return f"<Ack of {self._topic.name}: {type(self._error).__name__}: {self._error}>"
        return f"<Ack of {self._topic.name}: {f'offset {self._offset}' if self._offset else 'pending'}>"
