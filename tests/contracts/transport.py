"""The laws of `ebus_jupyter.transports.base`.

The test file of a transport has a fixture ``line`` and inherits `Laws`, or `BufferedLaws` where the transport buffers messages
between its two ends.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import pytest

from ebus_jupyter.errors import ConnectionLost
from ebus_jupyter.transports.base import Transport


class Line(Protocol):
    """A connected transport, and the other end of it."""

    transport: Transport

    async def push(self, message: bytes) -> None:
        """The broker sends ``message``."""

    async def arrived(self) -> bytes:
        """The next message that arrives at the broker."""

    async def hang_up(self) -> None:
        """The broker ends the connection, after what it has sent."""

    async def ended(self) -> None:
        """Returns once the broker has noticed that the client ended the connection."""


class BufferedLine(Line, Protocol):
    """A line that buffers messages between its ends."""

    def stall(self) -> None:
        """The broker stops receiving what the client sends."""

    def resume(self) -> None:
        """The broker receives it again."""


MESSAGES = [b"", b"\x00", b"two\nlines", *(bytes([n]) * n * 10 for n in range(1, 200)), b"x" * 3_000_000, b"last"]


async def everything(transport: Transport) -> list[bytes]:
    return [message async for message in transport]


@pytest.mark.asyncio
class Laws:
    """What every transport promises."""

    # --- whole messages, in order, each once ------------------------------------------------------------------------

    async def test_broker_receives_what_was_sent(self, line: Line) -> None:
        async def send() -> None:
            for message in MESSAGES:
                await line.transport.send(message)

        sending = asyncio.create_task(send())
        assert [await line.arrived() for _ in MESSAGES] == MESSAGES
        await sending

    async def test_client_receives_what_was_pushed(self, line: Line) -> None:
        reading = asyncio.create_task(everything(line.transport))
        for message in MESSAGES:
            await line.push(message)
        await line.hang_up()
        assert await reading == MESSAGES

    async def test_both_directions_at_once(self, line: Line) -> None:
        reading = asyncio.create_task(everything(line.transport))
        for n in range(100):
            await line.transport.send(b"up %d" % n)
            await line.push(b"down %d" % n)
        assert [await line.arrived() for _ in range(100)] == [b"up %d" % n for n in range(100)]
        await line.hang_up()
        assert await reading == [b"down %d" % n for n in range(100)]

    async def test_messages_that_arrive_before_reading_are_kept(self, line: Line) -> None:
        await line.push(b"early")
        await line.push(b"bird")
        await line.hang_up()
        assert await everything(line.transport) == [b"early", b"bird"]

    # --- closing ----------------------------------------------------------------------------------------------------

    async def test_iteration_stops_when_the_broker_hangs_up(self, line: Line) -> None:
        reading = asyncio.create_task(everything(line.transport))
        await asyncio.sleep(0)
        await line.hang_up()
        assert await reading == []

    async def test_iteration_stops_when_the_client_closes(self, line: Line) -> None:
        reading = asyncio.create_task(everything(line.transport))
        await asyncio.sleep(0)
        await line.transport.aclose()
        assert await reading == []
        await line.ended()

    async def test_sending_after_the_broker_hung_up_fails(self, line: Line) -> None:
        await line.hang_up()
        assert await everything(line.transport) == []
        with pytest.raises(ConnectionLost):
            await line.transport.send(b"too late")

    async def test_sending_after_closing_fails(self, line: Line) -> None:
        await line.transport.aclose()
        with pytest.raises(ConnectionLost):
            await line.transport.send(b"too late")

    async def test_closing_twice_is_safe(self, line: Line) -> None:
        await line.transport.aclose()
        await line.transport.aclose()
        assert await everything(line.transport) == []

    async def test_closing_after_the_broker_hung_up_is_safe(self, line: Line) -> None:
        await line.hang_up()
        assert await everything(line.transport) == []
        await line.transport.aclose()


@pytest.mark.asyncio
class BufferedLaws(Laws):
    """What a transport promises besides, where it buffers messages between its ends."""

    async def test_stalled_broker_makes_the_sender_wait(self, line: BufferedLine) -> None:
        """A transport buffers a bounded number of bytes. A sender of more waits, and nothing is lost."""
        message = b"x" * (1 << 20)
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(64):
                await line.transport.send(message)
                sent += 1

        line.stall()
        sending = asyncio.create_task(send())
        for _ in range(200):
            before = sent
            await asyncio.sleep(0.01)
            if sent == before and sent:
                break
        assert sent < 64
        line.resume()
        for _ in range(64):
            assert await line.arrived() == message
        await sending
