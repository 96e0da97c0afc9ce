"""What a connection tells a program that is not waiting for it: its status, and errors that no caller receives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from ebus_jupyter.errors import EbusError

from . import guard
from .loop_thread import loop_thread

F = TypeVar("F", bound=Callable[..., Any])


class Reports:
    """The listeners of one connection. They are called on an event loop, never on the thread that found something out.

    Args:
        loop: The event loop. Default: one of the process's own, which is started when it is first needed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._status_listeners: list[Callable[[str], None]] = []
        self._error_listeners: list[Callable[[Exception], None]] = []
        self._reported = ""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that callbacks and feeds run on."""
        return self._loop or loop_thread("ebus-callbacks").loop

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Call ``function`` soon, on `loop`; an exception is logged, and hurts nobody else."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process, or the server, is ending
            self.loop.call_soon_threadsafe(guard.attempt, function, *args)

    def on_status(self, listener: F) -> F:
        """Call ``listener`` with each new status, on `loop`."""
        self._status_listeners.append(listener)
        return listener

    def on_error(self, listener: F) -> F:
        """Call ``listener`` with each error that was reported rather than raised, on `loop`."""
        self._error_listeners.append(listener)
        return listener

    def status(self, status: str) -> None:
        """Tell the listeners of a new status."""
        if status == "live":
            self._reported = ""
        for listener in [*self._status_listeners]:
            self.call(listener, status)

    def error(self, error: BaseException, what: str, level: int = logging.ERROR) -> None:
        """Report an error that no caller is there to receive: log it, once in a row, and tell the listeners."""
        text = f"{what}: {type(error).__name__}: {guard.describe(error)}"
        if text != self._reported:
            self._reported = text
            guard.log_soon(level, text, None if isinstance(error, EbusError) else error)
        for listener in [*self._error_listeners]:
            self.call(listener, error)
