"""A WebSocket on an event loop: for pages that reach the broker by way of this process, and for tests.

A client's own connection is a `websocket.WebSocketLine`, which needs no event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from ebus_jupyter.errors import ConnectionLost

from .websocket import OPEN_SECONDS, PING_SECONDS, refusal, tls_context, unreachable, websocket_url


class WebSocketTransport:
    """A connection to a broker behind a WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        try:
            await self._socket.send(data)
        except ConnectionClosed as closed:
            raise ConnectionLost(f"the connection to the server has ended ({closed}).") from None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._socket:
                if isinstance(data, bytes):
                    yield data
        except ConnectionClosed:
            return

    async def aclose(self) -> None:
        await self._socket.close()


async def connect_websocket(url: str, authorization: str, *, certificate: str = "") -> WebSocketTransport:
    """Connect to the broker of the Jupyter server at ``url``.

    Args:
        url: The server's base URL.
        authorization: The value of the Authorization header.
        certificate: A file with the certificate to trust, where the server made its own.

    Raises:
        ConnectionLost: Nobody answers there, or not as a server with ebus_jupyter does.
        Unauthenticated, Forbidden: The token is not known, or may not.
    """
    target = websocket_url(url)
    try:
        socket = await connect(
            target,
            additional_headers={"Authorization": authorization},
            compression=None,
            max_size=None,
            open_timeout=OPEN_SECONDS,
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS,
            ssl=tls_context(target, certificate),
            proxy=None,
        )
    except InvalidStatus as refused:
        raise refusal(url, refused.response.status_code, bytes(refused.response.body or b"")) from None
    except (OSError, TimeoutError, WebSocketException) as failed:
        raise unreachable(url, failed) from None
    return WebSocketTransport(socket)
