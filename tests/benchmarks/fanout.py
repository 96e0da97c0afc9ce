"""Fan-out: one writer, many subscribers; every subscriber receives every message.

The writer stays within a bounded number of messages of the slowest subscriber, so that the figures measure work, not a queue.
The server's CPU time per delivery is the figure that other load on the machine affects least.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from .measure import Row, Span, percentile
from .peers.base import FanOut
from .wire import PATIENCE_SECONDS, RawClient, text_of


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
    quick_ack: bool = False,
) -> Row:
    """Measure one peer for one round.

    Args:
        peer: The server under test.
        subscribers: Number of subscribers.
        size: Bytes of a message's text.
        seconds: How long the writer floods the server.
        lone: Number of messages that are sent one by one, to measure how long the last subscriber waits.
        burst: Number of messages that the writer sends at once.
        ahead: Number of messages by which the writer may be ahead of the slowest subscriber.
        pause: Seconds between two lone messages.
        warm_up: Number of lone messages before those that count: a server that has just created its files waits for the disk.
        quick_ack: Acknowledge every TCP segment at once; see `RawClient.acknowledge_immediately`.
    """
    text = text_of(size)
    with peer.serve() as server:
        async with audience(peer, server.port, subscribers, quick_ack=quick_ack) as (writer, clients):
            await _settle(peer, writer, clients, text)
            await _one_by_one(peer, writer, clients, text, warm_up, pause)
            waits = await _one_by_one(peer, writer, clients, text, lone, pause)
            span = Span(server.pid)
            before = clients[0].count
            await flood(peer, writer, clients, [text] * burst, seconds, ahead)
            span.stop()
            deliveries = subscribers * (clients[0].count - before)
            return {
                "deliveries_per_second": deliveries / span.wall,
                "deliveries_per_cpu_second": deliveries / span.cpu,
                "cpu_microseconds": span.cpu / deliveries * 1e6,
                "wait_p50_ms": percentile(waits, 0.5) * 1e3,
                "wait_p95_ms": percentile(waits, 0.95) * 1e3,
                "wait_p99_ms": percentile(waits, 0.99) * 1e3,
                "megabytes": span.megabytes(),
                "bytes_per_delivery": clients[0].bytes / clients[0].count,
            }


@contextlib.asynccontextmanager
async def audience(
    peer: FanOut, port: int, subscribers: int, *, quick_ack: bool = False
) -> AsyncIterator[tuple[RawClient, list[RawClient]]]:
    """Connect a writer and ``subscribers`` subscribers, which count the messages that they receive."""
    clients = [await RawClient.connect(port) for _ in range(subscribers)]
    for client in clients:
        await peer.subscribe(client)
    writer = await RawClient.connect(port)
    await peer.join(writer)
    try:
        for client in (*clients, writer):
            if quick_ack:
                client.acknowledge_immediately()
            client.start_counting()
        yield writer, clients
    finally:
        for client in (*clients, writer):
            client.close()


async def _settle(peer: FanOut, writer: RawClient, clients: list[RawClient], text: str) -> None:
    """Write until all subscribers have the same messages: some servers add a subscriber shortly after they have answered it."""
    for _ in range(100):
        counts = [client.count for client in clients]
        writer.send(peer.pack([text]))
        await asyncio.sleep(0.05)
        if all(client.count == before + 1 for client, before in zip(clients, counts, strict=True)):
            break
    first = max(client.count for client in clients)
    for client in clients:
        client.count = first


async def _one_by_one(
    peer: FanOut, writer: RawClient, clients: list[RawClient], text: str, lone: int, pause: float
) -> list[float]:
    waits = []
    for _ in range(lone):
        arrivals = [client.when_received(client.count + 1) for client in clients]
        message = peer.pack([text])
        sent = time.perf_counter()
        writer.send(message)
        await asyncio.wait_for(asyncio.gather(*arrivals), PATIENCE_SECONDS)
        waits.append(max(client.last_at for client in clients) - sent)
        await asyncio.sleep(pause)
    return waits


async def flood(
    peer: FanOut, writer: RawClient, clients: list[RawClient], texts: list[str], seconds: float, ahead: int
) -> None:
    """Write ``texts`` repeatedly, at most ``ahead`` messages ahead of the slowest subscriber."""
    target = clients[0].count
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        writer.send(peer.pack(texts))
        target += len(texts)
        await _all_have(clients, target - ahead)
    await _all_have(clients, target)


async def _all_have(clients: list[RawClient], count: int) -> None:
    behind = [client.when_received(count) for client in clients if client.count < count]
    if behind:
        await asyncio.wait_for(asyncio.gather(*behind), PATIENCE_SECONDS)
    else:
        await asyncio.sleep(0)
