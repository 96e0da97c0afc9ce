"""The local transport: the contract, and its broker's side."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from ebus_jupyter.transports.local import LocalTransport
from tests.contracts.transport import Laws


class Line:
    """The broker's end of a local transport, on the same loop."""

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
async def test_send_reaches_the_broker_directly(line: Line) -> None:
    await line.transport.send(b"x")
    assert line._inbox.qsize() == 1


# --- the broker's side ----------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_unread_messages_count_as_buffered(line: Line) -> None:
    await line.push(b"12345")
    await line.push(b"678")
    assert line.outlet.buffered() == 8
    assert await anext(aiter(line.transport)) == b"12345"
    assert line.outlet.buffered() == 3


@pytest.mark.asyncio
async def test_drain_callback_runs_once_when_all_is_read(line: Line) -> None:
    calls: list[int] = []
    await line.push(b"1")
    await line.push(b"2")
    line.outlet.on_drain(lambda: calls.append(line.outlet.buffered()))
    messages = aiter(line.transport)
    await anext(messages)
    await asyncio.sleep(0)
    assert calls == []
    await anext(messages)
    await asyncio.sleep(0)
    assert calls == [0]
    await line.push(b"3")
    await anext(messages)
    await asyncio.sleep(0)
    assert calls == [0]


@pytest.mark.asyncio
async def test_send_yields_to_other_tasks(line: Line) -> None:
    """However fast a client writes, the broker runs in between."""
    order: list[str] = []

    async def other() -> None:
        order.append("other")

    task = asyncio.create_task(other())
    for n in range(3):
        await line.transport.send(b"x")
        order.append(f"sent {n}")
    assert order.index("other") < order.index("sent 1")
    await task


@pytest.mark.asyncio
async def test_broker_close_is_not_reported_back_to_the_broker(line: Line) -> None:
    await line.hang_up()
    await line.transport.aclose()
    assert not line._ended.is_set()
    await line.push(b"after the end")
    assert [message async for message in line.transport] == []
