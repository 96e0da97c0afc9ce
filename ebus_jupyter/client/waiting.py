"""Waiting until something is so, from a thread or from a coroutine on any event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from typing import Any, Final, TypeVar

from . import guard
from .arguments import seconds

T = TypeVar("T")

NOT_YET: Final[Any] = object()
"""The result of a check that has nothing to return yet."""


class Condition:
    """Wakes threads and coroutines that wait for one thing. Every method may be called from any thread."""

    __slots__ = ("_callbacks", "_listeners")

    def __init__(self) -> None:
        # Nothing here takes a lock: a finaliser may come back here, and a forked child never gets one that another thread
        # has held. Each change is one operation on a deque or a list.
        self._callbacks: deque[Callable[[], None]] = deque()
        self._listeners: list[Callable[[], None]] = []

    def notify(self) -> None:
        """Wake every waiter; each runs its check again. What a callback raises is logged, and the others are still called.

        Raises:
            KeyboardInterrupt: It came meanwhile; everyone was woken first.
        """
        if not self._callbacks and not self._listeners:
            return
        interrupted = False
        for callback in (*self._listeners, *self._waiting()):
            try:
                callback()
            except BaseException as error:
                interrupted = interrupted or isinstance(error, KeyboardInterrupt)
                guard.log_soon(logging.ERROR, "a waiter could not be woken", error)
        if interrupted:
            raise KeyboardInterrupt

    def _waiting(self) -> Iterator[Callable[[], None]]:
        # Those that are there now; one that waits again meanwhile waits for the next time.
        for _ in range(len(self._callbacks)):
            try:
                callback = self._callbacks.popleft()
            except IndexError:  # another thread has called it
                return
            yield callback

    def once(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` at the next `notify`, on the thread that calls `notify`."""
        self._callbacks.append(callback)

    def each(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` at every `notify`, on the thread that calls `notify`, until `discard`."""
        self._listeners.append(callback)

    def discard(self, callback: Callable[[], None]) -> None:
        """Take back a callback that was given to `once` or `each`; one that is not there is ignored."""
        for waiters in (self._listeners, self._callbacks):
            with contextlib.suppress(ValueError):
                waiters.remove(callback)
                return

    def wait(self, check: Callable[[], T], timeout: float | None, what: str) -> T:
        """Block this thread until ``check`` returns something other than `NOT_YET`, and return that.

        Args:
            check: Called before waiting and after each `notify`. An exception that it raises ends the wait.
            timeout: Seconds to wait; None: without a limit.
            what: The text of the TimeoutError, without a full stop: what did not happen.

        Raises:
            TimeoutError: ``timeout`` seconds have passed.
            TypeError, ValueError: ``timeout`` is no number.
        """
        limit = seconds(timeout)
        deadline = time.monotonic() + limit
        while True:
            # The first check registers nothing, so that reading what is here already leaves nothing behind.
            found = check()
            if found is not NOT_YET:
                return found
            # A bare lock is the quickest thing that a thread can wait for.
            changed = allocate_lock()
            changed.acquire()
            wake = changed.release
            self.once(wake)
            woken = False
            try:
                found = check()
                if found is not NOT_YET:
                    return found
                left = -1 if deadline == inf else max(0.0, deadline - time.monotonic())
                woken = changed.acquire(timeout=left)
            finally:
                if not woken:  # timed out, interrupted, or not needed
                    self.discard(wake)
            if not woken:
                raise TimeoutError(f"{what} (waited {max(0.0, limit):g} s).")

    async def wait_async(self, check: Callable[[], T]) -> T:
        """Suspend this coroutine until ``check`` returns something other than `NOT_YET`, and return that."""
        loop = asyncio.get_running_loop()
        while True:
            found = check()
            if found is not NOT_YET:
                return found
            changed: asyncio.Future[None] = loop.create_future()
            wake = partial(_wake, loop, changed)
            self.once(wake)
            try:
                found = check()
                if found is not NOT_YET:
                    return found
                await changed
            finally:
                if not changed.done() or changed.cancelled():
                    self.discard(wake)


def _wake(loop: asyncio.AbstractEventLoop, changed: asyncio.Future[None]) -> None:
    with contextlib.suppress(RuntimeError):  # the waiter's loop is closed
        loop.call_soon_threadsafe(_settle, changed)


def _settle(changed: asyncio.Future[None]) -> None:
    if not changed.done():
        changed.set_result(None)
