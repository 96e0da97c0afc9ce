"""Many connections and many buses: memory for each, and the time to open them."""

from __future__ import annotations

import asyncio
import secrets
import time

from ebus_jupyter.core.protocol import frames

from .measure import Row, Span
from .peers import jupyter
from .wire import RawClient, frame

# Python does not return freed memory to the system, so the benchmark measures the growth caused by each further one.
CONFIG = jupyter.UNBOUNDED.format(backend="sqlite") + "c.EBus.buses_per_participant = 100000\n"


async def measure(*, connections: int, buses: int) -> Row:
    """Open ``connections`` that subscribe to one bus; then open ``buses`` more buses on one of them."""
    peer = jupyter.EBus("sqlite", config=CONFIG)
    with peer.serve() as server:
        first = await RawClient.connect(server.port)
        await peer.subscribe(first)
        memory = Span(server.pid)
        before, began = memory.megabytes(), time.perf_counter()
        clients = []
        for _ in range(connections):
            client = await RawClient.connect(server.port)
            await peer.subscribe(client)
            clients.append(client)
        connected = time.perf_counter() - began
        connection = (memory.megabytes() - before) / connections * 1024

        before, began = memory.megabytes(), time.perf_counter()
        await _open(first, buses)
        opened = time.perf_counter() - began
        await asyncio.sleep(0.5)  # until temporary objects are freed
        bus = (memory.megabytes() - before) / buses * 1024
        for client in (first, *clients):
            client.close()
    return {
        "connection_kilobytes": connection,
        "bus_kilobytes": bus,
        "connect_seconds": connected,
        "subscribe_seconds": opened,
    }


async def _open(client: RawClient, buses: int) -> None:
    """Open ``buses`` buses and subscribe to them, a hundred at a time, like a page with very many widgets."""
    numbers: list[int] = []
    name, batch = secrets.token_hex(4), 100
    for start in range(0, buses, batch):
        count = min(batch, buses - start)
        opens = [frames.Open(10 + n, "server", f"{name}-{n}", {"size": 100}) for n in range(start, start + count)]
        client.send(frame(frames.join([frames.encode(each) for each in opens])))
        numbers += await _answers(client, frames.Opened, count)
    for start in range(0, buses, batch):
        some = numbers[start : start + batch]
        client.send(frame(frames.join([frames.encode(frames.Subscribe(100_000 + n, n_)) for n, n_ in enumerate(some)])))
        await _answers(client, frames.Subscribed, len(some))


async def _answers(client: RawClient, kind: type[frames.Opened] | type[frames.Subscribed], count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        for answer in frames.from_broker(await client.read_message()):
            assert not isinstance(answer, frames.Error | frames.Bye), answer
            if isinstance(answer, kind):
                found.append(answer.bus)
    return found
