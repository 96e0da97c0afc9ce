"""Callbacks: each is fed from a stream of its own, on the event loop where it was registered."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable
from typing import Any

from ebus_jupyter.errors import EbusError, Lagged

from . import guard
from .connection import Connection
from .stream import Stream
from .topic import Topic

CALLS_A_SLICE = 100
"""The number of messages that a callback receives before other work on its loop gets a turn."""


class Callbacks:
    """The callbacks of one `Bus` object."""

    def __init__(self, connection: Connection, topic: Topic) -> None:
        self._connection = connection
        self._topic = topic
        self._running: dict[object, _Callback] = {}

    def add(self, function: Callable[..., Any], stream: Stream[Any]) -> None:
        """Call ``function`` with each item of ``stream``.

        A function of a notebook or script (module ``__main__``) replaces the one of the same qualified name, whichever `Bus`
        object that was given to: a cell that is run again, and perhaps opens the bus again, registers its callback once.
        """
        name = getattr(function, "__qualname__", "<")
        is_rerun = getattr(function, "__module__", "") == "__main__" and "<" not in name
        callback = _Callback(function, stream, self._connection, self._topic)
        if is_rerun:
            self._topic.reruns.pop(name, lambda: None)()
            self._topic.reruns[name] = callback.close
        for key in [key for key, other in self._running.items() if other.is_closed]:
            del self._running[key]
        self._running[object()] = callback

    def remove(self, function: Callable[..., Any]) -> None:
        """Stop calling ``function``."""
        # Compared by value: each `object.method` is another object.
        for key in [key for key, callback in [*self._running.items()] if callback.function == function]:
            self._running.pop(key).close()

    def close(self) -> None:
        """Stop all of them."""
        while self._running:
            self._running.popitem()[1].close()


class _Callback:
    """Feeds one function from one stream, on the running loop, or on the connection's where none is running."""

    def __init__(self, function: Callable[..., Any], stream: Stream[Any], connection: Connection, topic: Topic) -> None:
        self.function = function
        self._stream = stream
        self._connection = connection
        self._topic = topic
        self._scheduled = False
        self._task: asyncio.Task[None] | None = None
        self._context = contextvars.copy_context()  # so that what it prints shows under the cell that registered it
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = connection.loop
        self._topic.arrivals.each(self._schedule)
        self._schedule()

    @property
    def is_closed(self) -> bool:
        return self._stream.is_closed

    def close(self) -> None:
        self._topic.arrivals.discard(self._schedule)
        for name in [name for name, close in self._topic.reruns.items() if close == self.close]:
            del self._topic.reruns[name]
        self._stream.close()

    def _schedule(self) -> None:
        if not self._scheduled and not self._stream.is_closed:
            self._scheduled = True
            try:
                self._loop.call_soon_threadsafe(self._drain, context=self._context)
            except RuntimeError:
                self.close()  # its loop is closed: nothing can be called there any more

    def _drain(self) -> None:
        self._scheduled = False
        if self._task is not None:
            return  # an async callback is at work; its end schedules the next call
        for _ in range(CALLS_A_SLICE):
            if self._stream.is_closed:
                return
            try:
                item = self._stream.get_nowait()
            except LookupError:
                return
            except Lagged as lag:
                guard.log(logging.WARNING, f"{self._topic.name}: {lag}")
                continue
            except EbusError as error:
                self._ended(error)
                return
            try:
                result = self.function(item)
            except BaseException as error:
                self._failed(error)
                continue
            if inspect.isawaitable(result):
                self._task = self._loop.create_task(self._finish(result))
                return
        self._schedule()

    async def _finish(self, result: Any) -> None:
        try:
            await result
        except BaseException as error:
            self._failed(error)
        finally:
            self._task = None
            self._schedule()

    def _failed(self, error: BaseException) -> None:
        """The callback has raised: log it, and go on.

        Also after what is no `Exception`: a `sys.exit()` would end the loop that all callbacks share, and a `CancelledError`
        this callback only. On a program's own loop, what ends a program ends it.
        """
        if isinstance(error, KeyboardInterrupt | SystemExit) and self._loop is not self._connection.loop:
            self._schedule()
            raise error
        guard.log(logging.ERROR, f"a callback of {self._topic.name} failed", error)

    def _ended(self, error: EbusError) -> None:
        """The bus has ended. Say so, unless it was closed here or with its client."""
        self.close()
        if getattr(error, "reason", "") != "closed" and not self._connection.is_closed:
            self._connection.report(
                error, f"the callbacks of {self._topic.name} are called no more", level=logging.WARNING
            )
