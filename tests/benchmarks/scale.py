"""Many connections, many buses: what each costs the server, and how long it takes to have them."""

from __future__ import annotations

import asyncio
import secrets
import time

from ebus_jupyter.core.protocol import frames

from .measure import Row, Span
from .peers import jupyter
from .wire import Line, frame

# Memory that Python keeps for later is not given back: what is measured is what more of the same costs.
CONFIG = jupyter.UNBOUNDED.format(backend="sqlite") + "c.EBus.buses_per_participant = 100000\n"


async def measure(*, connections: int, buses: int) -> Row:
    """One server: ``connections`` that say hello and subscribe to one bus; then one of them opens ``buses`` more."""
    peer = jupyter.EBus("sqlite", config=CONFIG)
    with peer.serve() as server:
        first = await Line.connect(server.port)
        await peer.listen(first)
        memory = Span(server.pid)
        before, began = memory.megabytes(), time.perf_counter()
        lines = []
        for _ in range(connections):
            line = await Line.connect(server.port)
            await peer.listen(line)
            lines.append(line)
        connected = time.perf_counter() - began
        connection = (memory.megabytes() - before) / connections * 1024

        before, began = memory.megabytes(), time.perf_counter()
        await _open(first, buses)
        opened = time.perf_counter() - began
        await asyncio.sleep(0.5)  # what came up with the opening is let go
        bus = (memory.megabytes() - before) / buses * 1024
        for line in (first, *lines):
            line.close()
    return {
        "connection_kilobytes": connection,
        "bus_kilobytes": bus,
        "connect_seconds": connected,
        "subscribe_seconds": opened,
    }


async def _open(line: Line, buses: int) -> None:
    """Open and subscribe to so many buses, a hundred at a time, as a page with very many widgets would."""
    numbers: list[int] = []
    name, batch = secrets.token_hex(4), 100
    for start in range(0, buses, batch):
        count = min(batch, buses - start)
        opens = [frames.Open(10 + n, "server", f"{name}-{n}", {"size": 100}) for n in range(start, start + count)]
        line.send(frame(frames.join([frames.encode(each) for each in opens])))
        numbers += await _heard(line, frames.Opened, count)
    for start in range(0, buses, batch):
        some = numbers[start : start + batch]
        line.send(frame(frames.join([frames.encode(frames.Subscribe(100_000 + n, n_)) for n, n_ in enumerate(some)])))
        await _heard(line, frames.Subscribed, len(some))


async def _heard(line: Line, kind: type[frames.Opened] | type[frames.Subscribed], count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        for heard in frames.from_broker(await line.message()):
            assert not isinstance(heard, frames.Error | frames.Bye), heard
            if isinstance(heard, kind):
                found.append(heard.bus)
    return found
