"""Large values, and subscribers that do not read: their cost for the server and for other subscribers."""

from __future__ import annotations

import asyncio
import time

import msgspec

from ebus_jupyter.core.protocol import frames

from . import fanout
from .measure import Row, Span
from .peers import jupyter
from .wire import MARK, RawClient, frame, text_of

CONFIG = (
    jupyter.UNBOUNDED.format(backend="sqlite")
    + "c.EBus.value_bytes = 16 << 20\nc.EBus.batch_bytes = 32 << 20\nc.EBus.send_bytes = 32 << 20\n"
)


async def arrays(*, subscribers: int, megabytes: int, count: int) -> Row:
    """One writer sends ``count`` arrays to all subscribers. ``copies``: peak growth of the server's memory, in arrays."""
    peer = jupyter.EBus("sqlite", config=CONFIG, spec={"type": "ndarray", "retain": "latest"})
    with peer.serve() as server:
        async with fanout.audience(peer, server.port, subscribers) as (writer, clients):
            data = b"\0" * ((megabytes << 20) - len(MARK)) + MARK.encode()
            packed = msgspec.msgpack.encode(["<f8", [len(data) // 8], data])
            value = msgspec.msgpack.encode(msgspec.msgpack.Ext(1, packed))
            span = Span(server.pid)
            before = most = span.megabytes()
            began = time.perf_counter()
            for n in range(1, count + 1):
                peer.written += 1
                publish = frames.encode(frames.Publish(peer.bus, peer.written, msgspec.Raw(value)))
                writer.send(frame(frames.join([publish])))
                arrived = [client.when_received(n) for client in clients]
                while not all(future.done() for future in arrived):
                    most = max(most, span.megabytes())
                    await asyncio.sleep(0.002)
            seconds = (time.perf_counter() - began) / count
            span.stop()
    return {
        "array_ms": seconds * 1e3,
        "server_cpu_ms": span.cpu / count * 1e3,
        "copies": (most - before) / megabytes,
    }


async def slow_reader(*, subscribers: int, size: int, seconds: float, stalled: int) -> Row:
    """A fan-out in which ``stalled`` further subscribers never read."""
    peer = jupyter.EBus("sqlite")
    with peer.serve() as server:
        idle = [await RawClient.connect(server.port) for _ in range(stalled)]
        for client in idle:
            await peer.subscribe(client)
            client.pause_reading()
        async with fanout.audience(peer, server.port, subscribers) as (writer, clients):
            texts = [text_of(size)] * 50
            await fanout.flood(peer, writer, clients, texts, 1.0, 500)  # fill the sockets of the stalled subscribers
            span, before = Span(server.pid), clients[0].count
            memory = span.megabytes()
            await fanout.flood(peer, writer, clients, texts, seconds, 500)
            span.stop()
            deliveries = subscribers * (clients[0].count - before)
            grown = span.megabytes() - memory
        for client in idle:
            client.close()
    return {"deliveries_per_cpu_second": deliveries / span.cpu, "grown_megabytes": grown}
