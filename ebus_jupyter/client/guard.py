"""What keeps the client's own threads and loops alive: nothing that others raise gets past it.

Code of a program (a callback, a decoder, a listener, a logging handler) may raise anything, `SystemExit` and
`CancelledError` included, and an error may have no text. On a thread of the client an exception that nobody catches would
end the thread without a word.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from . import background

logger = logging.getLogger("ebus_jupyter")


def attempt(function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function``, and return its result; what it raises is logged, and None returned. Never raises."""
    try:
        return function(*args)
    except BaseException as error:
        with contextlib.suppress(BaseException):  # there may be no memory even for the text
            log_soon(logging.ERROR, f"{getattr(function, '__qualname__', function)} failed", error)
        return None


def log(level: int, text: str, error: BaseException | None = None) -> None:
    """Log ``text``, with the traceback of ``error`` if there is one. Never raises, whatever the program's handlers do.

    For threads and loops of the program's code only: a handler may block, and wait for this client.
    """
    with contextlib.suppress(BaseException):
        logger.log(level, "%s", text, exc_info=error)


def log_soon(level: int, text: str, error: BaseException | None = None) -> None:
    """As `log`, on the background thread: for threads that others wait for, locks, and finalisers."""
    with contextlib.suppress(BaseException):
        background.later(0, log, level, text, error)


def describe(error: BaseException) -> str:
    """The text of an error, as far as it has one that can be encoded."""
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return "an error without a text"
