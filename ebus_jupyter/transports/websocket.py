"""Frames over a WebSocket, from Python: what a kernel, a script or a hub's client uses."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from ebus_jupyter.errors import ConnectionLost, EbusError, Forbidden, Unauthenticated, from_wire

PING_SECONDS = 20
"""How often a silent connection is asked whether it is still there; without an answer for as long, it is not."""

OPEN_SECONDS = 10
"""How long the server may take to answer a new connection."""


def websocket_url(url: str) -> str:
    """Where the broker's socket is, for the URL of a Jupyter server.

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
        certificate: A file with the certificate to trust, where the server made its own.

    Raises:
        ConnectionLost: Nobody answers there, or not as a server with ebus_jupyter does.
        Unauthenticated, Forbidden: The token is not known, or may not.
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
    return ConnectionLost(f"{url} answered with HTTP {status}.")
