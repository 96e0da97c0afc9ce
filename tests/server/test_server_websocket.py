"""The server's `WebSocket` on a socket pair: framing, buffering, back-pressure and both ways to close."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from ebus_jupyter.server.websocket import WebSocket

SECONDS = 10.0


class Recorder:
    """Keeps what a `WebSocket` hands over; ``answer`` is what `on_message` returns."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.answer: asyncio.Future[None] | None = None
        self.closed = 0
        self.changed = asyncio.Event()

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        self.messages.append(message)
        self.changed.set()
        return self.answer

    def on_close(self) -> None:
        self.closed += 1
        self.changed.set()

    async def until_messages(self, count: int) -> None:
        while len(self.messages) < count:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), SECONDS)

    async def until_closed(self) -> None:
        while not self.closed:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), SECONDS)


class Client:
    """The other end, by the same library."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.end = end
        self.protocol = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=None)
        self.frames: list[Frame] = []

    async def send(self) -> None:
        data = b"".join(self.protocol.data_to_send())
        await asyncio.get_running_loop().sock_sendall(self.end, data)

    async def send_binary(self, *messages: bytes) -> None:
        for message in messages:
            self.protocol.send_binary(message)
        await self.send()

    async def read(self) -> Frame | None:
        """The next frame; None at the end of the data."""
        while not self.frames:
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.end, 1 << 16), SECONDS)
            if not data:
                return None
            self.protocol.receive_data(data)
            self.frames += [event for event in self.protocol.events_received() if isinstance(event, Frame)]
        return self.frames.pop(0)


def pair(early: bytes = b"", **options: float) -> tuple[WebSocket, Client, Recorder]:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    recorder = Recorder()
    settings = {"message_bytes": 1 << 20, "buffer_bytes": 1 << 20, **options}
    return WebSocket(ours, recorder, early, **settings), Client(theirs), recorder  # type: ignore[arg-type]


async def receive(client: Client, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    received = b""
    while len(received) < size:
        received += await asyncio.wait_for(loop.sock_recv(client.end, min(size - len(received), 1 << 16)), SECONDS)
    return received


# --- sending ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_packed_message_is_a_standard_websocket_frame(size: int) -> None:
    message = b"x" * size
    assert WebSocket.pack([message[:3], message[3:]]) == Frame(Opcode.BINARY, message).serialize(mask=False)


@pytest.mark.asyncio
async def test_directly_sent_message_is_not_buffered() -> None:
    websocket, client, _ = pair()
    websocket.send_packed(b"x" * 100)
    assert websocket.buffered() == 0
    assert client.end.recv(1000) == b"x" * 100


@pytest.mark.asyncio
async def test_buffered_messages_count_until_drained_which_calls_back_once() -> None:
    websocket, client, _ = pair()
    calls: list[int] = []
    websocket.send_packed(b"x" * 300_000)
    websocket.send_packed(b"y" * 300_000)
    assert 300_000 < websocket.buffered() <= 600_000
    drained = asyncio.Event()

    def drain() -> None:
        calls.append(websocket.buffered())
        drained.set()

    websocket.on_drain(drain)
    await receive(client, 300_000)
    assert calls == []
    await receive(client, 300_000)
    await asyncio.wait_for(drained.wait(), SECONDS)
    await asyncio.sleep(0)
    assert calls == [0]


@pytest.mark.asyncio
async def test_partly_sent_message_arrives_whole_and_in_order() -> None:
    websocket, client, _ = pair()
    messages = [bytes((ord("a") + n,)) * (40_000 >> n) for n in range(8)]
    for message in messages:
        websocket.send_packed(message)
    assert 0 < websocket.buffered() < sum(map(len, messages))
    assert await receive(client, sum(map(len, messages))) == b"".join(messages)
    await asyncio.sleep(0)
    assert websocket.buffered() == 0


@pytest.mark.asyncio
async def test_empty_outlet_calls_back_soon_but_not_at_once() -> None:
    websocket, _, _ = pair()
    drained = asyncio.Event()
    websocket.on_drain(drained.set)
    assert not drained.is_set()
    await asyncio.wait_for(drained.wait(), SECONDS)


@pytest.mark.asyncio
async def test_send_to_a_broken_connection_closes_it_later() -> None:
    websocket, client, recorder = pair()
    client.end.close()
    websocket.send_packed(b"x")
    assert recorder.closed == 0  # a sender is never called back in the midst of what it does
    await recorder.until_closed()
    websocket.send_packed(b"x")
    assert recorder.closed == 1


@pytest.mark.asyncio
async def test_slow_reader_lives_as_long_as_its_socket_takes_anything() -> None:
    websocket, client, recorder = pair(ping_seconds=3600.0)
    websocket.send_packed(b"x" * 900_000)
    while websocket.buffered() > 300_000:  # it never sends anything: its pongs would come behind all this
        await receive(client, 50_000)
        await asyncio.sleep(0)
        websocket._ping()
        assert recorder.closed == 0


@pytest.mark.asyncio
async def test_reader_whose_socket_takes_nothing_is_gone_whatever_it_sends() -> None:
    websocket, client, recorder = pair(ping_seconds=3600.0)
    websocket.send_packed(b"x" * 900_000)
    websocket._ping()
    await client.send_binary(b"still asking")
    await recorder.until_messages(1)
    websocket._ping()
    assert recorder.closed == 1


@pytest.mark.asyncio
async def test_abort_drops_what_is_buffered_and_calls_back() -> None:
    websocket, _, recorder = pair()
    websocket.send_packed(b"x" * 300_000)
    drained = asyncio.Event()
    websocket.on_drain(drained.set)
    websocket.abort()
    websocket.abort()
    websocket.send_packed(b"more")
    await asyncio.wait_for(drained.wait(), SECONDS)
    assert (websocket.buffered(), recorder.closed) == (0, 1)


@pytest.mark.asyncio
async def test_buffer_over_its_bound_ends_the_connection() -> None:
    websocket, _, recorder = pair(buffer_bytes=400_000)
    websocket.send_packed(b"x" * 300_000)
    websocket.send_packed(b"x" * 300_000)
    await recorder.until_closed()


# --- receiving ----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_messages_arrive_in_order_whole_and_with_their_kind() -> None:
    _, client, recorder = pair()
    large = bytes(range(256)) * 2000
    client.protocol.send_text(b"text")
    client.protocol.send_binary(b"in ", fin=False)
    client.protocol.send_continuation(b"three ", fin=False)
    client.protocol.send_ping(b"?")
    client.protocol.send_continuation(b"parts", fin=True)
    await client.send_binary(b"", large)
    await recorder.until_messages(4)
    assert recorder.messages == ["text", b"in three parts", b"", large]
    pong = await client.read()
    assert pong is not None
    assert (pong.opcode, pong.data) == (Opcode.PONG, b"?")


@pytest.mark.asyncio
async def test_message_that_came_with_the_handshake_is_first() -> None:
    _, client, recorder = pair(Frame(Opcode.BINARY, b"early").serialize(mask=True))
    await client.send_binary(b"later")
    await recorder.until_messages(2)
    assert recorder.messages == [b"early", b"later"]


@pytest.mark.asyncio
async def test_next_message_waits_for_the_receiver() -> None:
    websocket, client, recorder = pair()
    recorder.answer = first = asyncio.get_running_loop().create_future()
    await client.send_binary(b"1", b"2")
    await recorder.until_messages(1)
    # The socket is read once more at most, then TCP slows the client down.
    chunk = b"x" * 60_000
    sending = asyncio.create_task(client.send_binary(*[chunk] * 100))
    done, _ = await asyncio.wait([sending], timeout=0.2)
    assert not done
    assert recorder.messages == [b"1"]
    assert len(websocket._frames) < 5
    recorder.answer = None
    first.set_result(None)
    await recorder.until_messages(102)
    await sending
    assert recorder.messages == [b"1", b"2", *[chunk] * 100]


@pytest.mark.asyncio
async def test_messages_before_the_end_are_handed_over_before_it() -> None:
    _, client, recorder = pair()
    recorder.answer = first = asyncio.get_running_loop().create_future()
    await client.send_binary(b"1", b"2")
    await recorder.until_messages(1)
    client.end.close()
    await asyncio.sleep(0)
    assert recorder.closed == 0
    recorder.answer = None
    first.set_result(None)
    await recorder.until_closed()
    assert recorder.messages == [b"1", b"2"]


@pytest.mark.asyncio
async def test_receiver_that_raises_ends_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    _, client, recorder = pair()
    recorder.answer = failing = asyncio.get_running_loop().create_future()
    await client.send_binary(b"1")
    await recorder.until_messages(1)
    failing.set_exception(ValueError("a bug"))
    await recorder.until_closed()
    assert "a bug" in caplog.text


# --- closing ------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_close_comes_after_what_was_sent_and_completes() -> None:
    websocket, client, recorder = pair()
    websocket.send_packed(WebSocket.pack([b"y" * 200_000]))
    websocket.close(1008, "why" * 100)
    websocket.close(1000, "again")
    last, close = await client.read(), await client.read()
    assert last is not None and close is not None
    assert (len(last.data), close.opcode) == (200_000, Opcode.CLOSE)
    await client.send()  # the library's answer
    assert await client.read() is None
    await recorder.until_closed()
    assert client.protocol.close_rcvd is not None
    assert (client.protocol.close_rcvd.code, client.protocol.close_rcvd.reason) == (1008, ("why" * 100)[:120])


@pytest.mark.asyncio
async def test_client_that_closes_is_answered_and_the_end_is_told_once() -> None:
    websocket, client, recorder = pair()
    client.protocol.send_binary(b"last")
    client.protocol.send_close(1000)
    await client.send()
    await recorder.until_closed()
    assert recorder.messages == [b"last"]
    answer = await client.read()
    assert answer is not None
    assert answer.opcode is Opcode.CLOSE
    assert await client.read() is None
    websocket.abort()
    assert recorder.closed == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("sent", "code"),
    [(b"\x82\x01x", 1002), (Frame(Opcode.BINARY, b"x" * 2000).serialize(mask=True), 1009)],
    ids=["unmasked", "too large"],
)
async def test_client_that_violates_the_protocol_is_told_the_code(sent: bytes, code: int) -> None:
    _, client, recorder = pair(message_bytes=1000)
    await asyncio.get_running_loop().sock_sendall(client.end, sent)
    close = await client.read()
    assert close is not None
    assert int.from_bytes(close.data[:2], "big") == code
    await recorder.until_closed()
    client.end.close()


@pytest.mark.asyncio
async def test_silent_client_is_pinged_and_then_gone() -> None:
    _, client, recorder = pair(ping_seconds=0.05)
    for _ in range(3):
        ping = await client.read()
        assert ping is not None
        assert (ping.opcode, recorder.closed) == (Opcode.PING, 0)
        await client.send()
    await recorder.until_closed()


@pytest.mark.asyncio
async def test_client_that_never_answers_a_close_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ebus_jupyter.server.websocket.CLOSE_SECONDS", 0.05)
    websocket, _, recorder = pair()
    websocket.close(1000, "bye")
    await recorder.until_closed()
