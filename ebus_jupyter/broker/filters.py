"""Filters that run in the server, by name: they are installed there, never sent by a kernel.

A filter is a function of ``(value, sender)`` or of ``(value, sender, context)``. It returns the value to keep, or raises
`Reject` with a reason for the writer. A plain function runs on the server's event loop and must be quick; an async one may
take up to the server's limit ``filter_seconds``.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ebus_jupyter.core.broker.effects import Filter
from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import EbusError, FilterUnavailable, Reject

ServerFilter = Callable[..., Any]
"""``filter(value, sender)`` or ``filter(value, sender, context)``; sync or async."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The circumstances of a write, as the server knows them. Nothing here is claimed by the writer.

    Attributes:
        bus: The bus's address, such as ``ebus:server/votes``.
        user: The writer's username.
        ip: The address of the machine that the connection comes from; "" within the server, or once the writer has gone.
        kernel: The id of the writer's kernel; "" where the writer is not a kernel.
    """

    bus: str
    user: str
    ip: str = ""
    kernel: str = ""


class Filters:
    """The server's filters.

    Args:
        functions: The filters, by name.
        seconds: How long a filter may take.
        log: Where a filter that fails is reported.
    """

    def __init__(self, functions: Mapping[str, ServerFilter], seconds: float, log: logging.Logger) -> None:
        self._functions = {name: _with_context(function) for name, function in functions.items()}
        self._seconds = seconds
        self._log = log

    async def run(self, write: Filter, ip: str) -> tuple[bytes, EbusError | str | None]:
        """Run the filter that ``write`` names.

        Args:
            write: The write.
            ip: As in `Context`.

        Returns:
            The encoded value to keep, and None. For a write that is not accepted: nothing, and the filter's reason as text
            or the error that kept it from deciding.
        """
        codec: Codec[Any] = Codec()
        who = write.sender
        try:
            function = self._functions.get(write.name)
            if function is None:
                raise FilterUnavailable(
                    f"the filter {write.name!r} is no longer installed in this server; nothing is accepted unfiltered."
                )
            context = Context(bus=str(write.address), user=who.user, ip=ip, kernel=who.kernel_id)
            result = function(codec.decode(write.value), who, context)
            if inspect.isawaitable(result):
                result = await asyncio.wait_for(result, self._seconds)
            return codec.encode(result), None
        except Reject as rejected:
            return b"", str(rejected)
        except FilterUnavailable as unavailable:
            return b"", unavailable
        except Exception as error:
            self._log.exception("ebus: filter %r failed", write.name)
            return b"", FilterUnavailable(
                f"the filter {write.name!r} failed ({type(error).__name__}); the write was not accepted."
            )


def _with_context(function: ServerFilter) -> Callable[[Any, Participant, Context], Any]:
    """``function``, callable with all three arguments."""
    try:
        inspect.signature(function).bind(None, None, None)
    except (TypeError, ValueError):
        return lambda value, sender, _context: function(value, sender)
    return function
