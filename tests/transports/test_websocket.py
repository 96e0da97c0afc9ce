"""The WebSocket transport: the contract, and how it connects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from ebus_jupyter.errors import ConnectionLost, EbusError, Forbidden, Unauthenticated
from ebus_jupyter.transports.websocket import websocket_url
from ebus_jupyter.transports.websocket_asyncio import connect_websocket
from tests.contracts.transport import BufferedLaws


class Line:
    """A WebSocket server with one connection, as the broker's end."""

    def __init__(self) -> None:
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._connected: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()
        self._taking = asyncio.Event()
        self._taking.set()

    async def serve(self, socket: ServerConnection) -> None:
        self._connected.set_result(socket)
        while True:
            await self._taking.wait()
            try:
                message = await socket.recv()
            except Exception:
                break
            assert isinstance(message, bytes)
            await self._inbox.put(message)

    async def push(self, message: bytes) -> None:
        await (await self._connected).send(message)

    async def arrived(self) -> bytes:
        return await self._inbox.get()

    async def hang_up(self) -> None:
        await (await self._connected).close()

    async def ended(self) -> None:
        await (await self._connected).wait_closed()

    def stall(self) -> None:
        self._taking.clear()

    def resume(self) -> None:
        self._taking.set()


def url_of(server: Server, base: str = "/") -> str:
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{base}"


@pytest_asyncio.fixture
async def line() -> AsyncIterator[Any]:
    made: Any = Line()
    async with serve(made.serve, "127.0.0.1", 0, max_size=None, compression=None) as server:
        made.transport = await connect_websocket(url_of(server), "token t")
        yield made
        made.resume()
        await made.transport.aclose()


class TestWebSocket(BufferedLaws):
    pass


# --- connecting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "socket"),
    [
        ("http://127.0.0.1:8888", "ws://127.0.0.1:8888/ebus/ws"),
        ("http://127.0.0.1:8888/user/ann/", "ws://127.0.0.1:8888/user/ann/ebus/ws"),
        ("https://hub.example/services/ebus?token=x#y", "wss://hub.example/services/ebus/ebus/ws"),
        ("wss://hub.example/ebus/ws", "wss://hub.example/ebus/ws"),
    ],
)
def test_socket_url_is_below_the_base_url(url: str, socket: str) -> None:
    assert websocket_url(url) == socket


@pytest.mark.asyncio
async def test_token_is_sent_in_the_authorization_header() -> None:
    seen: list[Request] = []

    async def record(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append(socket.request)

    async with serve(record, "127.0.0.1", 0) as server:
        transport = await connect_websocket(url_of(server, "/user/ann/"), "token secret")
        assert [message async for message in transport] == []
    assert seen[0].path == "/user/ann/ebus/ws"
    assert seen[0].headers["Authorization"] == "token secret"


@pytest.mark.asyncio
async def test_text_messages_are_ignored() -> None:
    async def send_both(socket: ServerConnection) -> None:
        await socket.send("text")
        await socket.send(b"bytes")

    async with serve(send_both, "127.0.0.1", 0) as server:
        transport = await connect_websocket(url_of(server), "token t")
        assert [message async for message in transport] == [b"bytes"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "body", "error", "match"),
    [
        (401, b"", Unauthenticated, "fresh one"),
        (403, b"<html>", Forbidden, "fresh one"),
        (403, {"code": "unauthenticated", "text": "nobody issued that token."}, Unauthenticated, "nobody issued"),
        (404, b"", ConnectionLost, "install it there"),
        (503, b"", ConnectionLost, "503"),
    ],
)
async def test_refused_handshake_raises_the_named_error(
    status: int, body: Any, error: type[EbusError], match: str
) -> None:
    content = msgspec.json.encode(body) if isinstance(body, dict) else body

    def refuse(socket: ServerConnection, request: Request) -> Response:
        return socket.respond(HTTPStatus(status), content.decode())

    async with serve(_nothing, "127.0.0.1", 0, process_request=refuse) as server:
        with pytest.raises(error, match=match) as refused:
            await connect_websocket(url_of(server), "token t")
    assert type(refused.value) is error


@pytest.mark.asyncio
async def test_absent_server_raises_temporary_connection_lost(unused_tcp_port_factory: Callable[[], int]) -> None:
    with pytest.raises(ConnectionLost, match="Is the Jupyter server running") as lost:
        await connect_websocket(f"http://127.0.0.1:{unused_tcp_port_factory()}/", "token t")
    assert lost.value.temporary


async def _nothing(socket: ServerConnection) -> None:
    pass
