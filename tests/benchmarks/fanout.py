"""Fan-out: one writer, many subscribers, every subscriber gets every message.

The writer is a bounded number of messages ahead of the slowest subscriber, so that what is measured is work, not a queue.
The server's CPU a delivery is the figure that a loaded machine spoils least.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from .measure import Row, Span, percentile
from .peers.base import FanOut
from .wire import PATIENCE_SECONDS, Line, text_of


async def measure(
    peer: FanOut,
    *,
    subscribers: int,
    size: int,
    seconds: float,
    lone: int,
    burst: int = 50,
    ahead: int = 500,
    pause: float = 0.005,
    warm_up: int = 0,
    prompt: bool = False,
) -> Row:
    """One round.

    Args:
        peer: Who spreads the messages.
        subscribers: How many listen.
        size: Bytes of a message's text.
        seconds: How long the writer goes on.
        lone: How many messages are sent one by one, to see how long the last subscriber waits.
        burst: How many messages the writer has to say at once.
        ahead: How many messages the writer may be ahead of the slowest subscriber.
        pause: Seconds between two lone messages.
        warm_up: How many lone messages go before those that count: a server that has just made its files waits for the disk.
        prompt: All acknowledge at once what they get; see `Line.acknowledge_at_once`.
    """
    text = text_of(size)
    with peer.serve() as server:
        async with audience(peer, server.port, subscribers, prompt=prompt) as (writer, lines):
            await _settle(peer, writer, lines, text)
            await _one_by_one(peer, writer, lines, text, warm_up, pause)
            waits = await _one_by_one(peer, writer, lines, text, lone, pause)
            span = Span(server.pid)
            before = lines[0].count
            await flood(peer, writer, lines, [text] * burst, seconds, ahead)
            span.stop()
            deliveries = subscribers * (lines[0].count - before)
            return {
                "deliveries_per_second": deliveries / span.wall,
                "deliveries_per_cpu_second": deliveries / span.cpu,
                "cpu_microseconds": span.cpu / deliveries * 1e6,
                "wait_p50_ms": percentile(waits, 0.5) * 1e3,
                "wait_p95_ms": percentile(waits, 0.95) * 1e3,
                "wait_p99_ms": percentile(waits, 0.99) * 1e3,
                "megabytes": span.megabytes(),
                "bytes_per_delivery": lines[0].bytes / lines[0].count,
            }


@contextlib.asynccontextmanager
async def audience(
    peer: FanOut, port: int, subscribers: int, *, prompt: bool = False
) -> AsyncIterator[tuple[Line, list[Line]]]:
    """A writer and so many subscribers, who count what they hear from here on."""
    lines = [await Line.connect(port) for _ in range(subscribers)]
    for line in lines:
        await peer.listen(line)
    writer = await Line.connect(port)
    await peer.enter(writer)
    try:
        for line in (*lines, writer):
            if prompt:
                line.acknowledge_at_once()
            line.count_from_here()
        yield writer, lines
    finally:
        for line in (*lines, writer):
            line.close()


async def _settle(peer: FanOut, writer: Line, lines: list[Line], text: str) -> None:
    """Write until all have heard the same: some servers take a subscriber in a little after they have answered it."""
    for _ in range(100):
        counts = [line.count for line in lines]
        writer.send(peer.pack([text]))
        await asyncio.sleep(0.05)
        if all(line.count == before + 1 for line, before in zip(lines, counts, strict=True)):
            break
    first = max(line.count for line in lines)
    for line in lines:
        line.count = first


async def _one_by_one(peer: FanOut, writer: Line, lines: list[Line], text: str, lone: int, pause: float) -> list[float]:
    waits = []
    for _ in range(lone):
        heard = [line.has(line.count + 1) for line in lines]
        message = peer.pack([text])
        sent = time.perf_counter()
        writer.send(message)
        await asyncio.wait_for(asyncio.gather(*heard), PATIENCE_SECONDS)
        waits.append(max(line.last_at for line in lines) - sent)
        await asyncio.sleep(pause)
    return waits


async def flood(peer: FanOut, writer: Line, lines: list[Line], texts: list[str], seconds: float, ahead: int) -> None:
    """Write ``texts`` again and again, at most ``ahead`` messages ahead of the slowest."""
    target = lines[0].count
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        writer.send(peer.pack(texts))
        target += len(texts)
        await _all_have(lines, target - ahead)
    await _all_have(lines, target)


async def _all_have(lines: list[Line], count: int) -> None:
    behind = [line.has(count) for line in lines if line.count < count]
    if behind:
        await asyncio.wait_for(asyncio.gather(*behind), PATIENCE_SECONDS)
    else:
        await asyncio.sleep(0)
