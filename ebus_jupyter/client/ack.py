"""The answer to a write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from typing import Any

from ebus_jupyter.errors import EbusError

from .waiting import NOT_YET, Waiting

logger = logging.getLogger("ebus_jupyter")


class Ack:
    """What became of one write: ``await ack``, or ``ack.result(timeout=5)``, gives its offset or raises why not.

    An ack that failed and that nobody looked at is logged as a warning, so that no write is lost in silence.
    """

    __slots__ = ("_error", "_looked", "_may_block", "_name", "_offset", "_waiting")

    def __init__(self, name: str, ensure_may_block: Callable[[str], None]) -> None:
        self._name = name
        self._may_block = ensure_may_block
        self._offset = 0
        self._error: EbusError | None = None
        self._looked = False
        self._waiting: Waiting | None = None

    @property
    def done(self) -> bool:
        """Whether the answer is here."""
        return self._offset > 0 or self._error is not None

    @property
    def error(self) -> EbusError | None:
        """Why the write was refused; None where it was not, or not yet."""
        self._looked = True
        return self._error

    def result(self, timeout: float | None = None) -> int:
        """Wait for the answer, up to ``timeout`` seconds (None: as long as it takes), and return the offset.

        Raises:
            Rejected, FilterUnavailable, Closed, BackendError: Why the write was not accepted.
            TimeoutError: No answer yet. The write may still be accepted: the client goes on asking.
            RuntimeError: Called on the client's own loop, which it would block.
        """
        if self.done:
            return self._check()
        self._may_block("ack.result()")
        return self._wait().wait(self._check, timeout, f"no answer to a write to {self._name} yet")

    def __await__(self) -> Generator[Any, None, int]:
        return self._wait().wait_async(self._check).__await__()

    def _wait(self) -> Waiting:
        if self._waiting is None:
            self._waiting = Waiting()
        return self._waiting

    def _check(self) -> int:
        self._looked = True
        if self._error is not None:
            raise self._error
        found: int = self._offset or NOT_YET
        return found

    def settle(self, offset: int, error: EbusError | None) -> None:
        """The broker has answered."""
        self._offset, self._error = offset, error
        if self._waiting is not None:
            self._waiting.notify()

    def __del__(self) -> None:
        if self._error is not None and not self._looked:
            logger.warning("a write to %s was not accepted, and nobody looked at its ack: %s", self._name, self._error)

    def __repr__(self) -> str:
        if self._error is not None:
            return f"<Ack of {self._name}: {type(self._error).__name__}: {self._error}>"
        return f"<Ack of {self._name}: {f'offset {self._offset}' if self._offset else 'on its way'}>"
