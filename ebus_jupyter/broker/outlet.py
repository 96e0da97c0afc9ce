"""The seam between the broker and the sockets: a connection, and the outlet that it brings along."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.message import Participant

Authorizer = Callable[[Address, str], Awaitable[bool]]
"""``authorizer(address, action)``: whether the connection may "read" that bus, or "write" to it."""


class Outlet(Protocol):
    """The way out to one client. The server that accepts the client's connection implements it."""

    @staticmethod
    def pack(parts: list[bytes]) -> bytes:
        """Join ``parts`` to one message, as it goes over the wire. Called once for all connections that receive it."""

    def send_packed(self, packed: bytes) -> None:
        """Hand over what `pack` made. Never blocks and never raises: a connection that has ended reports it by itself."""

    def buffered(self) -> int:
        """The number of bytes that were handed over and that the socket has not taken yet."""

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, soon after the socket has taken all bytes."""

    def close(self, code: int, reason: str) -> None:
        """End the connection, after everything that was handed over. Safe to call twice."""


class Receiver(Protocol):
    """The interface of the broker that a connection uses."""

    def receive(self, conn: int, data: bytes) -> Awaitable[None] | None:
        """See `Connection.receive`."""

    def hung_up(self, conn: int) -> None:
        """See `Connection.hung_up`."""

    def detach(self, conn: int) -> None:
        """See `Connection.close`."""

    async def reassess(self, conn: int, who: Participant, may_write: bool) -> None:
        """See `Connection.reassess`."""


class Connection:
    """One client's connection.

    Attributes:
        id: Its number.
        outlet: The way out to the client.
        authorize: Asked about each bus that it opens; None: every bus within its scopes is allowed.
        ip: The address that it comes from.
        out: The frames of its next message. Each item may be several frames; ``count`` is their total number.
        paused: Whether nothing is sent from the log for now.
        replies: The bytes of replies since its socket was full; messages do not count.
    """

    __slots__ = ("_broker", "authorize", "count", "id", "ip", "out", "outlet", "paused", "replies")

    def __init__(self, broker: Receiver, id_: int, outlet: Outlet, authorize: Authorizer | None, ip: str) -> None:
        self._broker = broker
        self.id = id_
        self.outlet = outlet
        self.authorize = authorize
        self.ip = ip
        self.out: list[bytes] = []
        self.count = 0
        self.paused = False
        self.replies = 0

    def receive(self, data: bytes) -> Awaitable[None] | None:
        """One WebSocket message has arrived.

        Returns:
            None, or an awaitable: then hand over the next message once it is done.
        """
        return self._broker.receive(self.id, data)

    async def reassess(self, who: Participant, may_write: bool) -> None:
        """Look at the connection's rights again: ``authorize`` is asked about each bus that it has open.

        Args:
            who: What it is authenticated as now: the same user, perhaps with another display name or other groups.
            may_write: Whether it may write at all.
        """
        await self._broker.reassess(self.id, who, may_write)

    def hung_up(self) -> None:
        """The socket has ended, and messages of it may still be handed over. It is sent nothing more."""
        self._broker.hung_up(self.id)

    def close(self) -> None:
        """The socket has ended. Safe to call twice."""
        self._broker.detach(self.id)
