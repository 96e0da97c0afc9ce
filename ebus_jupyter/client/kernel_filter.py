"""Filters that run in the kernel that made the bus."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
        self._thread: ThreadPoolExecutor | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of async filters; started when it is first needed."""
        return self._loop or loop_thread("ebus-filters").loop

    async def run(self, kernel_filter: KernelFilter, value: msgspec.Raw, sender: Participant) -> Verdict:
        """Call the filter with one write. A filter that fails is logged; its write is not accepted."""
        function, codec, emits_codec = kernel_filter
        try:
            decoded = codec.decode(value)
            if inspect.iscoroutinefunction(function):
                result = await function(decoded, sender)
            else:
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, thread_name_prefix="ebus-filter")
                # Its exception is a result: a future can't carry all of them (StopIteration, and then it is never done).
                loop = asyncio.get_running_loop()
                result, failure = await loop.run_in_executor(self._thread, _outcome, function, decoded, sender)
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
            guard.log(logging.ERROR, "a filter failed", error)
            return Verdict(_NIL, f"{type(error).__name__}: {guard.describe(error)}", failed=True)

    def close(self) -> None:
        """Let the thread end once the call that it is in returns."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)


def _outcome(function: Callable[..., Any], *args: Any) -> tuple[Any, BaseException | None]:
    """What ``function`` returns, or what it raises."""
    try:
        return function(*args), None
    except BaseException as error:
        return None, error
