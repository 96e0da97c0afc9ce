"""A filter that runs in the kernel which made the bus."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import msgspec

from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import EbusError, Reject

logger = logging.getLogger("ebus_jupyter")


class KernelFilter:
    """Calls the program's filter for each write.

    Args:
        function: ``function(value, sender)`` returns the value to keep, or raises `Reject`. An async one runs on the client's
            loop; a plain one on a thread of its own, one call at a time. Either works while the kernel runs a long cell.
        incoming: What is written.
        outgoing: What is kept.
    """

    def __init__(self, function: Callable[[Any, Participant], Any], incoming: Codec[Any], outgoing: Codec[Any]) -> None:
        self._function = function
        self._incoming = incoming
        self._outgoing = outgoing

    async def __call__(
        self, value: msgspec.Raw, sender: Participant, thread: Executor
    ) -> tuple[bytes, str | None, bool]:
        """The value to keep; or why it is refused; or, with True, why the filter failed."""
        try:
            decoded = self._incoming.decode(value)
            if inspect.iscoroutinefunction(self._function):
                result = await self._function(decoded, sender)
            else:
                result = await asyncio.get_running_loop().run_in_executor(thread, self._function, decoded, sender)
                if inspect.isawaitable(result):
                    result = await result
            return self._outgoing.encode(result, "the filter's answer"), None, False
        except Reject as rejected:
            return b"\xc0", str(rejected), False
        except EbusError as error:
            return b"\xc0", str(error), True
        except Exception as error:
            logger.exception("a filter failed")
            return b"\xc0", f"{type(error).__name__}: {error}", True
