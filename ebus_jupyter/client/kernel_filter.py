"""Filters that run in the kernel that made the bus."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple

import msgspec

from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import EbusError, Reject

from . import guard
from .loop_thread import loop_thread

_NIL = b"\xc0"


class KernelFilter(NamedTuple):
    """A program's filter for one bus, and the types that it converts between.

    Attributes:
        function: ``function(value, sender)`` returns the value to keep, or raises `Reject`; sync or async.
        codec: Decodes what is written.
        emits_codec: Encodes what is kept.
    """

    function: Callable[[Any, Participant], Any]
    codec: Codec[Any]
    emits_codec: Codec[Any]


class Verdict(NamedTuple):
    """The answer to a filter request: the value to keep; or why it is rejected; or why the filter ``failed``."""

    value: bytes
    reject: str | None = None
    failed: bool = False


class FilterRunner:
    """Runs the filters of one client.

    An async filter runs on `loop`, a plain one on a thread of its own, one call at a time. Either works while the
    kernel runs a long cell.

    Args:
        loop: The event loop of async filters. Default: one of the process's own, apart from the callbacks': others wait for a
            filter, and a callback may sleep.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._calls: SimpleQueue[Callable[[], None] | None] | None = None
        self._lock = threading.Lock()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of async filters; started when it is first needed."""
        return self._loop or loop_thread("ebus-filters").loop

    def start(self, function: Callable[..., Any]) -> None:
        """Make what calls of ``function`` need. At the end of a process it is too late: no thread can be started then."""
        self.loop  # noqa: B018 - starts it
        if not inspect.iscoroutinefunction(function):
            self._start_thread()

    def _start_thread(self) -> SimpleQueue[Callable[[], None] | None]:
        # Not an executor: those end before a process waits for the answers to its writes.
        with self._lock:
            if self._calls is None:
                calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
                threading.Thread(target=_call_all, args=(calls,), name="ebus-filter", daemon=True).start()
                self._calls = calls
            return self._calls

    async def run(self, kernel_filter: KernelFilter, value: msgspec.Raw, sender: Participant) -> Verdict:
        """Call the filter with one write. A filter that fails is logged; its write is not accepted."""
        function, codec, emits_codec = kernel_filter
        try:
            decoded = codec.decode(value)
            if inspect.iscoroutinefunction(function):
                result = await function(decoded, sender)
            else:
                result, failure = await self._on_thread(function, decoded, sender)
                if failure is not None:
                    raise failure
                if inspect.isawaitable(result):
                    result = await result
            return Verdict(emits_codec.encode(result, "the filter's answer"))
        except Reject as rejected:
            return Verdict(_NIL, guard.describe(rejected))
        except EbusError as error:
            return Verdict(_NIL, guard.describe(error), failed=True)
        except BaseException as error:  # a cancelled await or a sys.exit(), too: the writer waits for an answer
            guard.log_soon(logging.ERROR, "a filter failed", error)
            return Verdict(_NIL, f"{type(error).__name__}: {guard.describe(error)}", failed=True)

    async def _on_thread(self, function: Callable[..., Any], *args: Any) -> tuple[Any, BaseException | None]:
        """What ``function`` returns or raises, called on the thread."""
        loop = asyncio.get_running_loop()
        # Its exception is a result: a future can't carry all of them (StopIteration, and then it is never done).
        done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

        def settle(outcome: tuple[Any, BaseException | None]) -> None:
            if not done.done():
                done.set_result(outcome)

        def call() -> None:
            outcome = _outcome(function, *args)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, outcome)

        self._start_thread().put(call)
        return await done

    def close(self) -> None:
        """Let the thread end once the calls that wait for it have returned."""
        with self._lock:
            if self._calls is not None:
                self._calls.put(None)
                self._calls = None


def _call_all(calls: SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        guard.attempt(call)


def _outcome(function: Callable[..., Any], *args: Any) -> tuple[Any, BaseException | None]:
    """What ``function`` returns, or what it raises."""
    try:
        return function(*args), None
    except BaseException as error:
        return None, error
