"""Large values, and readers that don't read: what they cost the server, and the others."""

from __future__ import annotations

import asyncio
import time

import msgspec

from ebus_jupyter.core.protocol import frames

from . import fanout
from .measure import Row, Span
from .peers import jupyter
from .wire import MARK, Line, frame, text_of

CONFIG = (
    jupyter.UNBOUNDED.format(backend="sqlite")
    + "c.EBus.value_bytes = 16 << 20\nc.EBus.batch_bytes = 32 << 20\nc.EBus.send_bytes = 32 << 20\n"
)


async def arrays(*, subscribers: int, megabytes: int, count: int) -> Row:
    """One writer sends arrays of so many megabytes; all subscribers get each. ``copies``: by how many arrays' worth the
    server's memory grew at most."""
    peer = jupyter.EBus("sqlite", config=CONFIG, spec={"type": "ndarray", "retain": "latest"})
    with peer.serve() as server:
        async with fanout.audience(peer, server.port, subscribers) as (writer, lines):
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
                arrived = [line.has(n) for line in lines]
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
    """A fan-out in which ``stalled`` more have subscribed and read nothing at all."""
    peer = jupyter.EBus("sqlite")
    with peer.serve() as server:
        idle = [await Line.connect(server.port) for _ in range(stalled)]
        for line in idle:
            await peer.listen(line)
            line.stop_reading()
        async with fanout.audience(peer, server.port, subscribers) as (writer, lines):
            texts = [text_of(size)] * 50
            await fanout.flood(peer, writer, lines, texts, 1.0, 500)  # the sockets of those who don't read fill up
            span, before = Span(server.pid), lines[0].count
            memory = span.megabytes()
            await fanout.flood(peer, writer, lines, texts, seconds, 500)
            span.stop()
            deliveries = subscribers * (lines[0].count - before)
            grown = span.megabytes() - memory
        for line in idle:
            line.close()
    return {"deliveries_per_cpu_second": deliveries / span.cpu, "grown_megabytes": grown}
