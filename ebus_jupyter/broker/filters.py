"""Filters that run in the server, by name: installed there, never sent by a kernel.

A filter is a function of ``(value, sender)``, or of ``(value, sender, context)``. It returns the value to keep, or raises
`Reject` with the reason that the writer is told. A plain function runs on the server's event loop and must be quick; an
async one may take up to the server's limit ``filter_seconds``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from ebus_jupyter.core.message import Participant

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


def adapted(function: ServerFilter) -> Callable[[Any, Participant, Context], Any]:
    """``function``, to be called with all three."""
    try:
        inspect.signature(function).bind(None, None, None)
    except (TypeError, ValueError):
        return lambda value, sender, _context: function(value, sender)
    return function
