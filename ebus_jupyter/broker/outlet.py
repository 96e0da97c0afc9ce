"""A connection, as the broker's shell holds it, and the way out that it brings along."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from ebus_jupyter.core.protocol.address import Address

if TYPE_CHECKING:
    from .host import Broker

Authorizer = Callable[[Address, str], Awaitable[bool]]
"""May this connection do "read" or "write" on that bus?"""


class Outlet(Protocol):
    """What a connection gives the broker: the way out to its client."""

    @staticmethod
    def pack(parts: list[bytes]) -> bytes:
        """The message that ``parts`` are, as it goes over the wire. Called once, however many connections it goes to."""

    def send_packed(self, packed: bytes) -> None:
        """Hand over what `pack` made. Never blocks, never raises: a connection that has ended says so by itself."""

    def buffered(self) -> int:
        """Bytes handed over that the socket has not taken yet."""

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, soon after the socket has taken everything."""

    def close(self, code: int, reason: str) -> None:
        """End the connection, after what was handed over. Safe to call twice."""


class Connection:
    """One client.

    Attributes:
        out: Frames for the next message, in order; ``count`` says how many, as one of these may be several.
        paused: Nothing is to be sent from the log just now.
    """

    __slots__ = ("_broker", "authorize", "count", "id", "ip", "out", "outlet", "paused")

    def __init__(self, broker: Broker, id_: int, outlet: Outlet, authorize: Authorizer | None, ip: str) -> None:
        self._broker = broker
        self.id = id_
        self.outlet = outlet
        self.authorize = authorize
        self.ip = ip
        self.out: list[bytes] = []
        self.count = 0
        self.paused = False

    def receive(self, data: bytes) -> Awaitable[None] | None:
        """One WebSocket message has come in. Where an awaitable comes back, hand over the next one when it is done."""
        return self._broker.receive(self.id, data)

    def close(self) -> None:
        """The socket has ended. Safe to call twice."""
        self._broker.detach(self.id)
