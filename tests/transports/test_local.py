from __future__ import annotations

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from ebus_jupyter.transports.local import LocalTransport
from tests.contracts.transport import Laws


class Line:
    """A broker's end, on the same loop."""

    def __init__(self) -> None:
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._ended = asyncio.Event()
        self.transport = LocalTransport(self._attach)

    def _attach(self, outlet: LocalTransport) -> Any:
        self.outlet = outlet
        return self

    def receive(self, data: bytes) -> None:
        self._inbox.put_nowait(data)

    def close(self) -> None:
        self._ended.set()

    async def push(self, message: bytes) -> None:
        self.outlet.send_packed(self.outlet.pack([message]))

    async def arrived(self) -> bytes:
        return await self._inbox.get()

    async def hang_up(self) -> None:
        self.outlet.close(1000, "bye")

    async def ended(self) -> None:
        await self._ended.wait()


@pytest_asyncio.fixture
async def line() -> Line:
    return Line()


class TestLocal(Laws):
    pass


@pytest.mark.asyncio
async def test_nothing_lies_between_the_ends(line: Line) -> None:
    await line.transport.send(b"x")
    assert line._inbox.qsize() == 1


# --- the broker's side ----------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_what_was_not_read_yet_counts_as_buffered(line: Line) -> None:
    await line.push(b"12345")
    await line.push(b"678")
    assert line.outlet.buffered() == 8
    assert await anext(aiter(line.transport)) == b"12345"
    assert line.outlet.buffered() == 3


@pytest.mark.asyncio
async def test_the_broker_is_told_once_when_everything_was_read(line: Line) -> None:
    told: list[int] = []
    await line.push(b"1")
    await line.push(b"2")
    line.outlet.on_drain(lambda: told.append(line.outlet.buffered()))
    messages = aiter(line.transport)
    await anext(messages)
    await asyncio.sleep(0)
    assert told == []
    await anext(messages)
    await asyncio.sleep(0)
    assert told == [0]
    await line.push(b"3")
    await anext(messages)
    await asyncio.sleep(0)
    assert told == [0]


@pytest.mark.asyncio
async def test_a_sender_lets_others_run(line: Line) -> None:
    """However fast a client writes, the broker gets to answer in between."""
    turns: list[str] = []

    async def other() -> None:
        turns.append("other")

    task = asyncio.create_task(other())
    for n in range(3):
        await line.transport.send(b"x")
        turns.append(f"sent {n}")
    assert turns.index("other") < turns.index("sent 1")
    await task


@pytest.mark.asyncio
async def test_the_broker_s_hanging_up_is_not_the_client_s(line: Line) -> None:
    await line.hang_up()
    await line.transport.aclose()
    assert not line._ended.is_set()
    await line.push(b"after the end")
    assert [message async for message in line.transport] == []
