"""The tunnel of a page's frames through its kernel: numbers, joined messages, and the end after a hole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from ebus_jupyter.widgets import comm_tunnel

pytestmark = pytest.mark.asyncio


class Widget:
    """Records what is sent to its page."""

    def __init__(self) -> None:
        self.sent: list[tuple[dict[str, Any], list[bytes]]] = []

    def send(self, content: Any, buffers: Any = None) -> None:
        self.sent.append((content, buffers or []))

    def of(self, kind: str) -> list[tuple[int, list[bytes]]]:
        return [(content["n"], buffers) for content, buffers in self.sent if content["ebus"] == kind]


class Transport:
    """A connection to a broker, of which both ends are the test's."""

    def __init__(self) -> None:
        self.to_broker: list[bytes] = []
        self.from_broker: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = False

    async def send(self, data: bytes) -> None:
        self.to_broker.append(data)

    async def aclose(self) -> None:
        self.closed = True

    def __aiter__(self) -> Transport:
        return self

    async def __anext__(self) -> bytes:
        return await self.from_broker.get()


class Client:
    """A kernel's client that opens ``transport`` for a page."""

    embedded = False

    def __init__(self, transport: Transport) -> None:
        self.connection = SimpleNamespace(relay_loop=asyncio.get_running_loop())
        self._transport = transport

    async def relay(self) -> Transport:
        return self._transport


async def until(done: Callable[[], object]) -> None:
    while not done():
        await asyncio.sleep(0)


@pytest_asyncio.fixture
async def tunnel():
    transport, widget = Transport(), Widget()
    client: Any = Client(transport)

    def page(kind: str, n: int = 0, *buffers: bytes) -> None:
        content = {"ebus": kind, "channel": "c1", "client": comm_tunnel.client_key(client), "n": n}
        comm_tunnel.receive(widget, content, list(buffers))

    page("open")
    yield SimpleNamespace(transport=transport, widget=widget, page=page)
    page("close")
    await until(lambda: transport.closed)


async def test_messages_of_a_page_arrive_in_order(tunnel):
    tunnel.page("frames", 1, b"hello", b"open")
    tunnel.page("frames", 2, b"write")
    await until(lambda: len(tunnel.transport.to_broker) == 3)
    assert tunnel.transport.to_broker == [b"hello", b"open", b"write"]


async def test_lost_message_of_a_page_ends_its_channel(tunnel):
    tunnel.page("frames", 1, b"hello")
    tunnel.page("frames", 3, b"behind the hole")
    await until(lambda: tunnel.transport.closed)
    assert tunnel.transport.to_broker == [b"hello"]
    assert len(tunnel.widget.of("closed")) == 1


async def test_messages_to_a_page_are_numbered_and_joined(tunnel):
    for n in range(1000):
        tunnel.transport.from_broker.put_nowait(b"%d" % n)
    await until(lambda: sum(len(buffers) for _, buffers in tunnel.widget.of("frames")) == 1000)
    sent = tunnel.widget.of("frames")
    assert [n for n, _ in sent] == [*range(1, len(sent) + 1)]
    assert [data for _, buffers in sent for data in buffers] == [b"%d" % n for n in range(1000)]
    assert len(sent) < 10


async def test_message_to_a_page_holds_a_bounded_number_of_bytes(tunnel):
    part = bytes(comm_tunnel.BATCH_BYTES // 2)
    for _ in range(4):
        tunnel.transport.from_broker.put_nowait(part)
    await until(lambda: sum(len(buffers) for _, buffers in tunnel.widget.of("frames")) == 4)
    assert max(len(buffers) for _, buffers in tunnel.widget.of("frames")) == 2
