"""The way out to a client: frames built once, written to the stream, counted until the socket has taken them."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tornado.iostream import IOStream
from websockets.frames import Frame, Opcode

from ebus_jupyter.server.handlers import Outlet


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_a_packed_message_is_what_any_websocket_library_would_send(size: int) -> None:
    message = b"x" * size
    assert Outlet.pack([message[:3], message[3:]]) == Frame(Opcode.BINARY, message).serialize(mask=False)


def pair() -> tuple[Outlet, IOStream, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    stream = IOStream(ours)
    return Outlet(stream, lambda code, reason: stream.close()), stream, theirs


async def swallow(theirs: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    theirs.setblocking(False)
    taken = b""
    while len(taken) < size:
        taken += await loop.sock_recv(theirs, min(size - len(taken), 65536))
    return taken


@pytest.mark.asyncio
async def test_what_the_socket_takes_at_once_does_not_count() -> None:
    outlet, _, theirs = pair()
    outlet.send_packed(b"x" * 100)
    assert outlet.buffered() == 0
    assert theirs.recv(1000) == b"x" * 100


@pytest.mark.asyncio
async def test_what_waits_counts_until_it_is_taken_and_then_the_broker_is_called_once() -> None:
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
    await swallow(theirs, 300_000)
    assert calls == []
    await swallow(theirs, 300_000)
    await asyncio.wait_for(drained.wait(), 5)
    await asyncio.sleep(0)
    assert calls == [0]


@pytest.mark.asyncio
async def test_what_the_socket_takes_a_part_of_arrives_whole_and_before_what_comes_after() -> None:
    outlet, _, theirs = pair()
    said = [bytes((ord("a") + n,)) * (40_000 >> n) for n in range(8)]
    for message in said:
        outlet.send_packed(message)
    assert 0 < outlet.buffered() < sum(map(len, said))
    assert await asyncio.wait_for(swallow(theirs, sum(map(len, said))), 5) == b"".join(said)
    await asyncio.sleep(0)
    assert outlet.buffered() == 0


@pytest.mark.asyncio
async def test_a_connection_that_is_found_broken_ends() -> None:
    outlet, stream, theirs = pair()
    theirs.close()
    outlet.send_packed(b"x")
    assert stream.closed()
    outlet.send_packed(b"x")


@pytest.mark.asyncio
async def test_an_outlet_that_is_empty_drains_soon_not_at_once() -> None:
    outlet, _, _ = pair()
    drained = asyncio.Event()
    outlet.on_drain(drained.set)
    assert not drained.is_set()
    await asyncio.wait_for(drained.wait(), 5)


@pytest.mark.asyncio
async def test_a_connection_that_has_ended_takes_anything_without_a_word() -> None:
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
async def test_over_the_hard_bound_the_connection_ends_and_nothing_grows() -> None:
    outlet, stream, _ = pair()
    stream.max_write_buffer_size = 400_000
    outlet.send_packed(b"x" * 300_000)
    outlet.send_packed(b"x" * 300_000)
    assert stream.closed()
