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

logger = logging.getLogger("ebus_jupyter")

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

    An async filter runs on the loop of filters, a plain one on a thread of its own, one call at a time. Either works while the
    kernel runs a long cell.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None

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
                result = await asyncio.get_running_loop().run_in_executor(self._thread, function, decoded, sender)
                if inspect.isawaitable(result):
                    result = await result
            return Verdict(emits_codec.encode(result, "the filter's answer"))
        except Reject as rejected:
            return Verdict(_NIL, str(rejected))
        except EbusError as error:
            return Verdict(_NIL, str(error), failed=True)
        except BaseException as error:  # a cancelled await or a sys.exit(), too: the writer waits for an answer
            logger.exception("a filter failed")
            return Verdict(_NIL, f"{type(error).__name__}: {error}", failed=True)

    def close(self) -> None:
        """Let the thread end once the call that it is in returns."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)
