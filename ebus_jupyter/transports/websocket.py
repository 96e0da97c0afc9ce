"""The transport of kernels, scripts and hub clients: a WebSocket, opened from Python."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from ebus_jupyter.errors import ConnectionLost, EbusError, Forbidden, Unauthenticated, from_wire

PING_SECONDS = 20
"""The interval of keepalive pings, and the time that the answer to one may take before the connection counts as lost."""

OPEN_SECONDS = 10
"""The time that the server may take to accept a connection."""


def websocket_url(url: str) -> str:
    """The URL of the broker's socket, for the base URL of a Jupyter server.

    >>> websocket_url("http://127.0.0.1:8888/user/ann/")
    'ws://127.0.0.1:8888/user/ann/ebus/ws'
    """
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path if parts.path.endswith("/ebus/ws") else parts.path.rstrip("/") + "/ebus/ws"
    return urlunsplit((scheme, parts.netloc, path, "", ""))


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
        certificate: A file with the certificate to trust, where the server made its own. Default: the system's authorities.

    Raises:
        ConnectionLost: There is no answer, or not that of a server with ebus_jupyter.
        Unauthenticated: The server does not know the token.
        Forbidden: The token's user may not use the buses.
    """
    target = websocket_url(url)
    context: ssl.SSLContext | None = None
    if target.startswith("wss:"):
        context = ssl.create_default_context(cafile=certificate or None)
        # A server's own certificate is pinned by the file itself; it seldom names the address that kernels use.
        context.check_hostname = not certificate
        if certificate:
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        socket = await connect(
            target,
            additional_headers={"Authorization": authorization},
            compression=None,
            max_size=None,
            open_timeout=OPEN_SECONDS,
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS,
            ssl=context,
            proxy=None,
        )
    except InvalidStatus as refused:
        raise _refusal(refused, url) from None
    except (OSError, TimeoutError, WebSocketException) as failed:
        raise ConnectionLost(f"no ebus broker answers at {url} ({failed}). Is the Jupyter server running?") from None
    return WebSocketTransport(socket)


def _refusal(refused: InvalidStatus, url: str) -> EbusError:
    """The error that a refused handshake stands for: the one in its body, or the best guess from its status."""
    status = refused.response.status_code
    try:
        said = msgspec.json.decode(refused.response.body or b"", type=dict[str, str])
        return from_wire(said["code"], said["text"])
    except (msgspec.MsgspecError, KeyError):
        pass
    if status == 404:
        return ConnectionLost(f"{url} is a server without ebus_jupyter: install it there and restart it.")
    if status in (401, 403):
        cls = Unauthenticated if status == 401 else Forbidden
        return cls(f"{url} refused the token (HTTP {status}). Take a fresh one from the server, and check the URL.")
    return ConnectionLost(f"{url} answered with HTTP {status}; the client tries again.")
