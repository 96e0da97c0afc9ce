"""How frames travel between a client and a broker: one seam, three methods.

A transport carries whole messages (each an array of frames, see `core.protocol.frames`), in order, each once, until it ends.
It does not reconnect, retry or buffer without bound: that is the client's business, and only there.
Every transport passes `tests/contracts/transport.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol


class Transport(Protocol):
    """One connection. Made connected, closed once."""

    async def send(self, data: bytes) -> None:
        """Hand over one message; returns when the next may be handed over (back-pressure).

        Raises:
            ConnectionLost: The connection has ended; nothing says whether ``data`` arrived.
        """

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The messages that arrive, until the connection ends, for whatever reason: then iteration just stops."""

    async def aclose(self) -> None:
        """End the connection. Safe to call twice."""


Connect = Callable[[], Awaitable[Transport]]
"""Opens a connection, each time a new one.

Raises:
    ConnectionLost: Nobody answered; trying again may help.
    Unauthenticated, Forbidden: The broker turned us away; trying again won't help.
"""
