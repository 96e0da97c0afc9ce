"""The seam between a client and the way to its broker: one protocol with three methods.

A transport carries whole messages (each an array of frames, see `core.protocol.frames`) in order, each once, until it ends.
It does not reconnect, retry or buffer without bound: the client alone does that. Every transport passes the contract in
`tests/contracts/transport.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol


class Transport(Protocol):
    """One connection: connected when it is made, and never again once it has ended."""

    async def send(self, data: bytes) -> None:
        """Send one message. Returns when the next may be sent (back-pressure).

        Raises:
            ConnectionLost: The connection has ended. ``data`` may have arrived or not.
        """

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the messages that arrive. Iteration stops when the connection ends, for whatever reason."""

    async def aclose(self) -> None:
        """End the connection. A second call does nothing."""


Connect = Callable[[], Awaitable[Transport]]
"""Opens a new connection at each call.

Raises:
    ConnectionLost: There was no answer; trying again may help.
    Unauthenticated, Forbidden: The broker refused this client; trying again does not help.
"""
