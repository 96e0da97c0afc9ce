"""Waiting for something to change, from a thread or from a coroutine on any loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

NOT_YET: Final[Any] = object()
"""What a check returns while there is nothing to return."""


class Waiting:
    """Those who wait for one thing. `notify` may be called from any thread."""

    __slots__ = ("_callbacks",)

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []

    def notify(self) -> None:
        """Something may have changed: everyone looks again."""
        if self._callbacks:
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                callback()

    def once(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` at the next `notify`, on whatever thread that comes from."""
        self._callbacks.append(callback)

    def wait(self, check: Callable[[], T], timeout: float | None, what: str) -> T:
        """Block this thread until ``check`` returns something else than `NOT_YET`; what it raises is raised.

        Raises:
            TimeoutError: ``timeout`` seconds have passed; says ``what`` was waited for.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            # Looked at before anyone registers, so that reading what is here already leaves nothing behind.
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
                raise TimeoutError(f"nothing within {timeout:g} s: {what}.")

    async def wait_async(self, check: Callable[[], T]) -> T:
        """The same for a coroutine."""
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
    with contextlib.suppress(RuntimeError):  # the loop of someone who waited is closed
        loop.call_soon_threadsafe(_settle, changed)


def _settle(changed: asyncio.Future[None]) -> None:
    if not changed.done():
        changed.set_result(None)
