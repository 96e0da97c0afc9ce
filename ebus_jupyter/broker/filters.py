"""Filters that run in the server, by name: installed there, never sent by a kernel.

A filter is a function of ``(value, sender)``, or of ``(value, sender, context)``. It returns the value to keep, or raises
`Reject` with the reason that the writer is told. A plain function runs on the server's event loop and must be quick; an
async one may take up to the server's limit ``filter_seconds``.
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
    """How a write came in. All of it is what the server knows; nothing is what the writer claims.

    Attributes:
        bus: The bus's address, such as ``ebus:server/votes``.
        user: The writer's username.
        ip: The address of the machine that the connection comes from; "" within the server, or where the writer has gone.
        kernel: The writer's kernel; "" where it is none.
    """

    bus: str
    user: str
    ip: str = ""
    kernel: str = ""


class Filters:
    """The server's filters.

    Args:
        functions: By name.
        seconds: How long one may take.
        log: Where it is said which one failed, and how.
    """

    def __init__(self, functions: Mapping[str, ServerFilter], seconds: float, log: logging.Logger) -> None:
        self._functions = {name: _adapted(function) for name, function in functions.items()}
        self._seconds = seconds
        self._log = log

    async def judge(self, asked: Filter, ip: str) -> tuple[bytes, EbusError | str | None]:
        """The value to keep, encoded, and None; or, of a write that is not accepted, why.

        Args:
            asked: The write, and which filter it is for.
            ip: As in `Context`.
        """
        codec: Codec[Any] = Codec()
        who = asked.sender
        try:
            function = self._functions.get(asked.name)
            if function is None:
                raise FilterUnavailable(
                    f"the filter {asked.name!r} is no longer installed in this server; nothing is accepted unfiltered."
                )
            context = Context(bus=str(asked.address), user=who.user, ip=ip, kernel=who.kernel_id)
            result = function(codec.decode(asked.value), who, context)
            if inspect.isawaitable(result):
                result = await asyncio.wait_for(result, self._seconds)
            return codec.encode(result), None
        except Reject as rejected:
            return b"", str(rejected)
        except FilterUnavailable as unavailable:
            return b"", unavailable
        except Exception as error:
            self._log.exception("ebus: filter %r failed", asked.name)
            return b"", FilterUnavailable(
                f"the filter {asked.name!r} failed ({type(error).__name__}); the write was not accepted."
            )


def _adapted(function: ServerFilter) -> Callable[[Any, Participant, Context], Any]:
    """``function``, to be called with all three."""
    try:
        inspect.signature(function).bind(None, None, None)
    except (TypeError, ValueError):
        return lambda value, sender, _context: function(value, sender)
    return function
