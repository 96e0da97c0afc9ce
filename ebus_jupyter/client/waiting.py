"""Waiting until something is so, from a thread or from a coroutine on any event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

NOT_YET: Final[Any] = object()
"""The result of a check that has nothing to return yet."""


class Condition:
    """Wakes threads and coroutines that wait for one thing. Every method may be called from any thread."""

    __slots__ = ("_callbacks",)

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []

    def notify(self) -> None:
        """Wake every waiter; each runs its check again."""
        if self._callbacks:
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                callback()

    def once(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` at the next `notify`, on the thread that calls `notify`."""
        self._callbacks.append(callback)

    def wait(self, check: Callable[[], T], timeout: float | None, what: str) -> T:
        """Block this thread until ``check`` returns something other than `NOT_YET`, and return that.

        Args:
            check: Called before waiting and after each `notify`. An exception that it raises ends the wait.
            timeout: Seconds to wait; None: without a limit.
            what: The text of the TimeoutError, without a full stop: what did not happen.

        Raises:
            TimeoutError: ``timeout`` seconds have passed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            # The first check registers nothing, so that reading what is here already leaves nothing behind.
            found = check()
            if found is not NOT_YET:
                return found
            changed = threading.Event()
            self.once(changed.set)
            found = check()
            if found is not NOT_YET:
                return found
            left = None if deadline is None else deadline - time.monotonic()
            if not changed.wait(left if left is None or left > 0 else 0):
                raise TimeoutError(f"{what} (waited {timeout:g} s).")

    async def wait_async(self, check: Callable[[], T]) -> T:
        """Suspend this coroutine until ``check`` returns something other than `NOT_YET`, and return that."""
        loop = asyncio.get_running_loop()
        while True:
            found = check()
            if found is not NOT_YET:
                return found
            changed: asyncio.Future[None] = loop.create_future()
            self.once(lambda changed=changed: _wake(loop, changed))  # type: ignore[misc]
            found = check()
            if found is not NOT_YET:
                return found
            await changed


def _wake(loop: asyncio.AbstractEventLoop, changed: asyncio.Future[None]) -> None:
    with contextlib.suppress(RuntimeError):  # the waiter's loop is closed
        loop.call_soon_threadsafe(_settle, changed)


def _settle(changed: asyncio.Future[None]) -> None:
    if not changed.done():
        changed.set_result(None)
