"""Callbacks: each is fed from a stream of its own, on the event loop where it was registered."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable
from typing import Any

from ebus_jupyter.errors import EbusError, Lagged

from .connection import Connection
from .stream import Stream
from .topic import Topic

logger = logging.getLogger("ebus_jupyter")

CALLS_A_SLICE = 100
"""The number of messages that a callback receives before other work on its loop gets a turn."""


class Callbacks:
    """The callbacks of one `Bus` object."""

    def __init__(self, connection: Connection, topic: Topic) -> None:
        self._connection = connection
        self._topic = topic
        self._running: dict[Any, _Callback] = {}

    def add(self, function: Callable[..., Any], stream: Stream[Any]) -> None:
        """Call ``function`` with each item of ``stream``.

        A function of a notebook or script (module ``__main__``) replaces the one of the same qualified name: a cell that is
        run again registers its callback once.
        """
        name = getattr(function, "__qualname__", "<")
        is_rerun = getattr(function, "__module__", "") == "__main__" and "<" not in name
        key = name if is_rerun else object()
        replaced = self._running.pop(key, None)
        if replaced is not None:
            replaced.close()
        self._running[key] = _Callback(function, stream, self._connection, self._topic)

    def remove(self, function: Callable[..., Any]) -> None:
        """Stop calling ``function``."""
        for key in [key for key, callback in self._running.items() if callback.function is function]:
            self._running.pop(key).close()

    def close(self) -> None:
        """Stop all of them."""
        for callback in self._running.values():
            callback.close()


class _Callback:
    """Feeds one function from one stream, on the running loop, or on the connection's where none is running."""

    def __init__(self, function: Callable[..., Any], stream: Stream[Any], connection: Connection, topic: Topic) -> None:
        self.function = function
        self._stream = stream
        self._topic = topic
        self._scheduled = False
        self._task: asyncio.Task[None] | None = None
        self._context = contextvars.copy_context()  # so that what it prints shows under the cell that registered it
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = connection.loop
        self._topic.arrivals.once(self._arrived)
        self._schedule()

    def close(self) -> None:
        self._stream.close()

    def _arrived(self) -> None:
        self._topic.arrivals.once(self._arrived)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and self._stream.status != "closed":
            self._scheduled = True
            try:
                self._loop.call_soon_threadsafe(self._drain, context=self._context)
            except RuntimeError:
                self._stream.close()  # its loop is closed: nothing can be called there any more

    def _drain(self) -> None:
        self._scheduled = False
        if self._task is not None:
            return  # an async callback is at work; its end schedules the next call
        for _ in range(CALLS_A_SLICE):
            try:
                item = self._stream.get_nowait()
            except LookupError:
                return
            except Lagged as lag:
                logger.warning("%s: %s", self._topic.name, lag)
                continue
            except EbusError:
                return
            try:
                result = self.function(item)
            except Exception:
                logger.exception("a callback of %s failed", self._topic.name)
                continue
            if inspect.isawaitable(result):
                self._task = self._loop.create_task(self._finish(result))
                return
        self._schedule()

    async def _finish(self, result: Any) -> None:
        try:
            await result
        except Exception:
            logger.exception("a callback of %s failed", self._topic.name)
        self._task = None
        self._schedule()
