"""The notebook comes first: how long a cell takes on a server whose buses have as much to do as they can."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from multiprocessing.synchronize import Event

from . import fanout
from .measure import Row, percentile
from .peers import jupyter
from .wire import Line, text_of

FOR_EVER = 3600.0


def measure(*, cells: int, subscribers: int, size: int) -> Row:
    """Cells without the load, and with it: a writer that is never done, from a process of its own."""
    peer = jupyter.EBus("sqlite")
    with peer.serve() as running:
        assert peer.server is not None
        kernel = peer.server.start_kernel(jupyter.USER)
        _cells(kernel, 5)  # once for nothing
        idle = _cells(kernel, cells)
        context = multiprocessing.get_context("spawn")
        under_way = context.Event()
        load = context.Process(target=_flood, args=(peer, running.port, subscribers, size, under_way), daemon=True)
        load.start()
        assert under_way.wait(60)
        busy = _cells(kernel, cells)
        load.terminate()
        load.join()
        kernel.shutdown()
    return {
        "idle_p95_ms": percentile(idle, 0.95) * 1e3,
        "busy_p95_ms": percentile(busy, 0.95) * 1e3,
        "times_idle": percentile(busy, 0.95) / percentile(idle, 0.95),
    }


def _cells(kernel: jupyter.Kernel, count: int) -> list[float]:
    waits = []
    for _ in range(count):
        began = time.perf_counter()
        kernel.run("None")
        waits.append(time.perf_counter() - began)
        time.sleep(0.01)
    return waits


def _flood(peer: jupyter.EBus, port: int, subscribers: int, size: int, under_way: Event) -> None:
    async def run() -> None:
        lines = [await Line.connect(port) for _ in range(subscribers)]
        for line in lines:
            await peer.listen(line)
        writer = await Line.connect(port)
        await peer.enter(writer)
        for line in (*lines, writer):
            line.count_from_here()
        under_way.set()
        await fanout.flood(peer, writer, lines, [text_of(size)] * 50, FOR_EVER, ahead=500)

    asyncio.run(run())
