"""The broker's process is killed during a thousand writes, and started again on the same file."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ebus_jupyter.client.client import Client
from ebus_jupyter.client.driver import SocketDriver
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.transports.websocket import WebSocketLine, connect_line
from ebus_jupyter.transports.websocket_asyncio import WebSocketTransport, connect_websocket
from tests.broker.peer import Peer

WRITES = 1000
ROOT = Path(__file__).parents[2]


class Server:
    """A broker that is killed without warning, and started again at the same address."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._port = "0"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.faults.broker_process", str(self._file), self._port]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._port = self._process.stdout.readline().strip()
        assert self._port, "the broker did not start"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        assert self._process.wait() == -signal.SIGKILL
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            self.kill()

    async def connect(self) -> WebSocketTransport:
        return await connect_websocket(f"http://127.0.0.1:{self._port}/", "token of-ann")

    def connect_line(self) -> WebSocketLine:
        return connect_line(f"http://127.0.0.1:{self._port}/", "token of-ann")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "ebus.sqlite")
    made.start()
    yield made
    made.close()


async def acks(peer: Peer, until: int) -> dict[int, int]:
    """The answers to writes, as offsets by id, until there are ``until`` of them or the connection ends."""
    found: dict[int, int] = {}
    while len(found) < until and (frame := await peer.read()) is not None:
        assert not isinstance(frame, frames.Error), frame
        if isinstance(frame, frames.Ok):
            found.update({frame.id + i: frame.offset + i for i in range(frame.count)})
    return found


async def log(peer: Peer, bus: int) -> list[frames.Delivery]:
    found: list[frames.Delivery] = []
    after, more = 0, True
    while more:
        await peer.send(frames.Fetch(1, bus, after))
        page = await peer.expect(frames.Page)
        found += [frames.delivery(message) for message in page.messages]
        after, more = page.through, page.more
    return found


async def write_until_killed(server: Server, peer: Peer, bus: int, kill_after: int, key: str | None) -> dict[int, int]:
    """Write a thousand values, one message each, as fast as the socket takes them, and return the offsets of acked writes."""

    async def write() -> None:
        for n in range(1, WRITES + 1):
            await peer.publish(bus, f"value {n}", id=n, key=key)

    writing = asyncio.create_task(write())
    acked = await acks(peer, kill_after)
    server.kill()
    acked |= await acks(peer, WRITES)
    await asyncio.gather(writing, return_exceptions=True)
    return acked


@pytest.mark.asyncio
@pytest.mark.parametrize("kill_after", [1, 100, 400, 700])
async def test_acked_writes_survive_and_offsets_are_not_reused(server: Server, kill_after: int) -> None:
    before = Peer(await server.connect())
    await before.hello()
    opened = await before.open("votes")
    acked = await write_until_killed(server, before, opened.bus, kill_after, None)
    assert kill_after <= len(acked)

    server.start()
    after = Peer(await server.connect(), before.instance)
    await after.hello()
    again = await after.open("votes")
    assert again.epoch == opened.epoch

    survived = {message.offset: message for message in await log(after, again.bus)}
    assert list(survived) == sorted(survived)
    assert again.last == max(survived)
    for id, offset in acked.items():
        assert survived[offset].id == id
        assert msgspec.msgpack.decode(survived[offset].value) == f"value {id}"

    # The client does not know which of the others were accepted, and sends all of them again.
    retried: dict[int, int] = {}
    for n in range(1, WRITES + 1):
        await after.publish(again.bus, f"value {n}", id=n)
        retried |= await acks(after, 1)
    assert acked.items() <= retried.items()
    whole = await log(after, again.bus)
    assert [message.id for message in whole] == list(range(1, WRITES + 1))
    assert {message.id: message.offset for message in whole} == retried
    assert all(survived[message.offset].id == message.id for message in whole if message.offset in survived)
    await after.transport.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize(("retain", "key"), [("latest", None), ("keys", "k")])
async def test_retry_of_a_replaced_write_gets_its_first_offset(server: Server, retain: str, key: str | None) -> None:
    before = Peer(await server.connect())
    await before.hello()
    opened = await before.open("speed", retain=retain)
    acked = await write_until_killed(server, before, opened.bus, 300, key)

    server.start()
    after = Peer(await server.connect(), before.instance)
    await after.hello()
    again = await after.open("speed")
    assert again.epoch == opened.epoch
    assert again.last >= max(acked.values())
    for id in list(acked)[::20]:
        assert await after.write(again.bus, f"value {id}", id=id, key=key) == acked[id]
    assert await after.write(again.bus, "new", id=WRITES + 1, key=key) == again.last + 1
    await after.transport.aclose()


def test_client_loses_nothing_over_two_kills(server: Server) -> None:
    """The real client reconnects, resumes and retries by itself."""
    writer, reader = (Client(SocketDriver(server.connect_line), where="the server") for _ in range(2))
    try:
        votes: Any = writer.bus("votes", int, scope="server", size=2 * WRITES)
        live = reader.bus("votes", int).messages(since="start")
        acks = []
        for n in range(WRITES):
            acks.append(votes.write(n))
            if n in (200, 600):
                acks[n - 50].result(20)
                server.kill()
                server.start()
        offsets = [ack.result(30) for ack in acks]
        heard = live.take(WRITES, 30)
        assert [message.value for message in heard] == list(range(WRITES))
        assert [message.offset for message in heard] == offsets
        late = reader.bus("votes", int).messages(since="start").take(WRITES, 30)
        assert late == heard
    finally:
        writer.close()
        reader.close()
