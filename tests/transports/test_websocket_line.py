"""The WebSocket of kernels and scripts: the contract, and what holds only for a line that belongs to no event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http import HTTPStatus
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from websockets.asyncio.server import serve
from websockets.frames import Frame
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.sync.server import Server, ServerConnection
from websockets.sync.server import serve as serve_threaded

from ebus_jupyter.client.discover import remote_client
from ebus_jupyter.errors import ConnectionLost, EbusError, Forbidden, Unauthenticated
from ebus_jupyter.transports import websocket
from ebus_jupyter.transports.websocket import WebSocketLine, connect_line, tls_context
from tests.contracts.transport import Laws
from tests.transports.test_websocket import Line, url_of


class LineTransport:
    """A line, as the contract sees a transport."""

    def __init__(self, line: WebSocketLine) -> None:
        self._line = line

    async def send(self, data: bytes) -> None:
        self._line.send(data)
        self._line.wake()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                messages = await asyncio.to_thread(self._line.receive, 5.0)
            except ConnectionLost:
                return
            for message in messages:
                yield message

    async def aclose(self) -> None:
        self._line.close()


@pytest_asyncio.fixture
async def line() -> AsyncIterator[Any]:
    made: Any = Line()
    async with serve(made.serve, "127.0.0.1", 0, max_size=None, compression=None, close_timeout=0.2) as server:
        opened = await asyncio.to_thread(connect_line, url_of(server), "token t")
        made.transport = LineTransport(opened)
        yield made
        opened.abandon()


# --- a server on a thread -------------------------------------------------------------------------------------------

Handler = Callable[[ServerConnection], None]


@pytest.fixture
def make_server() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(handler: Handler, **options: Any) -> Server:
        server = serve_threaded(handler, "127.0.0.1", 0, max_size=None, compression=None, close_timeout=0.2, **options)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.shutdown()


def url(server: Server, base: str = "/") -> str:
    return f"http://127.0.0.1:{server.socket.getsockname()[1]}{base}"


@contextlib.contextmanager
def raw_server(handler: Callable[[socket.socket, ServerProtocol], None], *, at_once: bool = False) -> Iterator[str]:
    """A server of one connection that does nothing by itself but the handshake; yields its URL.

    Args:
        handler: Called after the handshake; what its protocol then has to send is sent.
        at_once: Send the handshake together with that.
    """

    def answer() -> None:
        peer, _ = listener.accept()
        with peer:
            protocol = ServerProtocol(max_size=None)
            request = None
            while request is None:
                protocol.receive_data(peer.recv(65536))
                request = next(iter(protocol.events_received()), None)
            assert isinstance(request, Request)
            protocol.send_response(protocol.accept(request))
            if not at_once:
                peer.sendall(b"".join(protocol.data_to_send()))
            handler(peer, protocol)
            peer.sendall(b"".join(protocol.data_to_send()))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join(5)


def receive_all(line: WebSocketLine) -> list[bytes]:
    found: list[bytes] = []
    while True:
        try:
            found += line.receive(5.0)
        except ConnectionLost:
            return found


def echo(socket: ServerConnection) -> None:
    for message in socket:
        socket.send(message)


def silent(_: ServerConnection) -> None:
    return


def test_threads_send_at_once_and_every_message_arrives_whole(make_server: Callable[..., Server]) -> None:
    line = connect_line(url(make_server(echo)), "token t")

    def send(letter: bytes) -> None:
        for n in range(50):
            line.send(letter * (n * 997))

    threads = [threading.Thread(target=send, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    found: list[bytes] = []
    while len(found) < 150:
        found += line.receive(5.0)
    for thread in threads:
        thread.join()
    for letter in (b"a", b"b", b"c"):
        assert [len(message) for message in found if message.startswith(letter)] == [n * 997 for n in range(1, 50)]
    assert all(len(set(message)) <= 1 for message in found)
    line.close()
    assert receive_all(line) == []
    line.abandon()


def test_send_to_a_stalled_server_queues_and_does_not_block() -> None:
    go_on = threading.Event()
    got: list[int] = []

    def stalled(peer: socket.socket, protocol: ServerProtocol) -> None:
        go_on.wait(10)
        while data := peer.recv(1 << 20):
            protocol.receive_data(data)
            got.extend(
                len(frame.data) for frame in protocol.events_received() if isinstance(frame, Frame) and frame.data
            )

    with raw_server(stalled) as server:
        line = connect_line(server, "token t")
        for _ in range(20):
            line.send(b"x" * 1_000_000)
        assert line.backlog > 1_000_000
        go_on.set()
        while line.backlog:
            line.receive(0.1)
        line.close()
        receive_all(line)
        line.abandon()
    assert sum(got) >= 20_000_000


def test_wake_ends_a_wait_of_another_thread(make_server: Callable[..., Server]) -> None:
    line = connect_line(url(make_server(echo)), "token t")
    waiting = threading.Thread(target=line.receive, args=(None,))
    waiting.start()
    line.wake()
    waiting.join(5)
    assert not waiting.is_alive()
    line.close()
    receive_all(line)


def test_messages_sent_with_the_handshake_are_kept() -> None:
    def speak(_peer: socket.socket, protocol: ServerProtocol) -> None:
        protocol.send_binary(b"first")
        protocol.send_binary(b"second")

    with raw_server(speak, at_once=True) as server:
        line = connect_line(server, "token t")
        assert receive_all(line) == [b"first", b"second"]
        line.abandon()


def test_silent_peer_is_pinged_then_counts_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "PING_SECONDS", 0.2)
    pings: list[Any] = []

    def never_pong(peer: socket.socket, protocol: ServerProtocol) -> None:
        while data := peer.recv(65536):
            protocol.receive_data(data)
            pings.extend(protocol.events_received())

    with raw_server(never_pong) as server:
        line = connect_line(server, "token t")
        with pytest.raises(ConnectionLost, match="has sent nothing"):
            while True:
                line.receive(None)
        line.abandon()
    assert len(pings) == 1


def test_server_that_accepts_and_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "OPEN_SECONDS", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(ConnectionLost, match="Is the Jupyter server"),
    ):
        connect_line(f"http://127.0.0.1:{listener.getsockname()[1]}/", "token t")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8888",
        "ftp://127.0.0.1/",
        "http:///",
        "http://127.0.0.1:99999/",
        "http://[::1/",
        "http://" + "a" * 64 + ".org",
    ],
)
def test_text_that_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="such as http"):
        remote_client(url, "token")


def test_token_that_can_be_none_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="line break") as refused:
        remote_client("http://127.0.0.1:9/", "secret\nsecret")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "ulimit"),
        (ssl.SSLCertVerificationError(1, "self-signed certificate"), "EBUS_CERT"),
        (ConnectionRefusedError(111, "refused"), "running"),
    ],
)
def test_error_of_a_failed_attempt_says_what_to_do(
    reason: OSError, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(reason, ssl.SSLError):
        reason.verify_message = "self-signed certificate"  # type: ignore[attr-defined]

    def fail(*_: object, **__: object) -> None:
        raise reason

    monkeypatch.setattr(socket, "create_connection", fail)
    with pytest.raises(ConnectionLost, match=advice):
        connect_line("http://127.0.0.1:9/", "token t")


def test_certificate_that_is_not_there_is_named() -> None:
    with pytest.raises(ConnectionLost, match="nowhere"):
        tls_context("wss://127.0.0.1/", "nowhere.pem")


def test_text_messages_are_ignored(make_server: Callable[..., Server]) -> None:
    def both(socket: ServerConnection) -> None:
        socket.send("text")
        socket.send([b"by", b"tes"])
        socket.send(["th", "irty"])

    line = connect_line(url(make_server(both)), "token t")
    assert receive_all(line) == [b"bytes"]


def test_redirect_on_the_same_host_is_followed(make_server: Callable[..., Server]) -> None:
    def redirect(socket: ServerConnection, request: Request) -> Response | None:
        if request.path.startswith("/old/"):
            response = socket.respond(HTTPStatus.FOUND, "")
            response.headers["Location"] = "/new/ebus/ws"
            return response
        assert request.headers["Authorization"] == "token t"
        return None

    line = connect_line(url(make_server(echo, process_request=redirect), "/old/"), "token t")
    line.send(b"hello")
    assert line.receive(5.0) == [b"hello"]


def test_redirect_to_another_host_gets_no_token(make_server: Callable[..., Server]) -> None:
    def redirect(socket: ServerConnection, _: Request) -> Response:
        response = socket.respond(HTTPStatus.FOUND, "")
        response.headers["Location"] = "http://localhost:1/ebus/ws"
        return response

    with pytest.raises(ConnectionLost, match="that server's own URL"):
        connect_line(url(make_server(echo, process_request=redirect)), "token t")


@pytest.mark.parametrize(
    ("status", "body", "error", "match"),
    [
        (401, b"", Unauthenticated, "fresh one"),
        (403, {"code": "unauthenticated", "text": "nobody issued that token."}, Unauthenticated, "nobody issued"),
        (403, b"<html>", Forbidden, "fresh one"),
        (404, b"", ConnectionLost, "install it there"),
        (503, b"", ConnectionLost, "503"),
    ],
)
def test_refused_handshake_raises_the_named_error(
    make_server: Callable[..., Server], status: int, body: Any, error: type[EbusError], match: str
) -> None:
    content = msgspec.json.encode(body) if isinstance(body, dict) else body

    def refuse(socket: ServerConnection, request: Request) -> Response:
        return socket.respond(HTTPStatus(status), content.decode())

    with pytest.raises(error, match=match) as refused:
        connect_line(url(make_server(silent, process_request=refuse)), "token t")
    assert type(refused.value) is error


def test_closing_ends_though_the_server_never_answers(monkeypatch: pytest.MonkeyPatch, make_server: Any) -> None:
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.2)
    held = threading.Event()
    line = connect_line(url(make_server(lambda _: held.wait(10) and None)), "token t")
    line.close()
    began = time.monotonic()
    receive_all(line)
    assert time.monotonic() - began < 5
    held.set()
    with pytest.raises(ConnectionLost):
        line.send(b"too late")
    line.abandon()


class TestWebSocketLine(Laws):
    pass
