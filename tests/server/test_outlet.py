"""`TornadoOutlet` on a socket pair: framing, buffering and draining."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tornado.iostream import IOStream
from websockets.frames import Frame, Opcode

from ebus_jupyter.server.outlet import TornadoOutlet


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_packed_message_is_a_standard_websocket_frame(size: int) -> None:
    message = b"x" * size
    assert TornadoOutlet.pack([message[:3], message[3:]]) == Frame(Opcode.BINARY, message).serialize(mask=False)


def pair() -> tuple[TornadoOutlet, IOStream, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    stream = IOStream(ours)
    return TornadoOutlet(stream, lambda code, reason: stream.close()), stream, theirs


async def receive(theirs: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    theirs.setblocking(False)
    received = b""
    while len(received) < size:
        received += await loop.sock_recv(theirs, min(size - len(received), 65536))
    return received


@pytest.mark.asyncio
async def test_directly_sent_message_is_not_buffered() -> None:
    outlet, _, theirs = pair()
    outlet.send_packed(b"x" * 100)
    assert outlet.buffered() == 0
    assert theirs.recv(1000) == b"x" * 100


@pytest.mark.asyncio
async def test_buffered_messages_count_until_drained_which_calls_back_once() -> None:
    outlet, _, theirs = pair()
    calls: list[int] = []
    outlet.send_packed(b"x" * 300_000)
    outlet.send_packed(b"y" * 300_000)
    assert outlet.buffered() == 600_000
    drained = asyncio.Event()

    def drain() -> None:
        calls.append(outlet.buffered())
        drained.set()

    outlet.on_drain(drain)
    await receive(theirs, 300_000)
    assert calls == []
    await receive(theirs, 300_000)
    await asyncio.wait_for(drained.wait(), 5)
    await asyncio.sleep(0)
    assert calls == [0]


@pytest.mark.asyncio
async def test_partly_sent_message_arrives_whole_and_in_order() -> None:
    outlet, _, theirs = pair()
    messages = [bytes((ord("a") + n,)) * (40_000 >> n) for n in range(8)]
    for message in messages:
        outlet.send_packed(message)
    assert 0 < outlet.buffered() < sum(map(len, messages))
    assert await asyncio.wait_for(receive(theirs, sum(map(len, messages))), 5) == b"".join(messages)
    await asyncio.sleep(0)
    assert outlet.buffered() == 0


@pytest.mark.asyncio
async def test_send_to_a_broken_connection_closes_it() -> None:
    outlet, stream, theirs = pair()
    theirs.close()
    outlet.send_packed(b"x")
    assert stream.closed()
    outlet.send_packed(b"x")


@pytest.mark.asyncio
async def test_empty_outlet_calls_back_soon_but_not_at_once() -> None:
    outlet, _, _ = pair()
    drained = asyncio.Event()
    outlet.on_drain(drained.set)
    assert not drained.is_set()
    await asyncio.wait_for(drained.wait(), 5)


@pytest.mark.asyncio
async def test_send_to_a_closed_connection_is_ignored() -> None:
    outlet, stream, theirs = pair()
    outlet.send_packed(b"x" * 300_000)
    drained = asyncio.Event()
    outlet.on_drain(drained.set)
    theirs.close()
    stream.close()
    outlet.send_packed(b"more")
    await asyncio.wait_for(drained.wait(), 5)
    assert outlet.buffered() == 0


@pytest.mark.asyncio
async def test_buffer_over_its_bound_closes_the_connection() -> None:
    outlet, stream, _ = pair()
    stream.max_write_buffer_size = 400_000
    outlet.send_packed(b"x" * 300_000)
    outlet.send_packed(b"x" * 300_000)
    assert stream.closed()
