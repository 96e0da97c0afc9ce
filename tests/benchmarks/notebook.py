"""Fairness: how long a cell takes on a server whose buses are under full load."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
import uuid
from multiprocessing.synchronize import Event

from . import fanout
from .measure import Row, percentile
from .peers import jupyter
from .wire import RawClient, frame, text_of

FOR_EVER = 3600.0


async def measure(*, cells: int, subscribers: int, size: int) -> Row:
    """Run cells without load and under load, which comes from a writer in a process of its own.

    Jupyter's kernel sockets use Nagle's algorithm and wait for the page's TCP acknowledgement, which may be delayed by
    up to 40 ms. In an idle server that delay hides the waiting time that matters here. Each cell is therefore run by a
    page whose TCP delays acknowledgements and by one whose TCP does not; only the latter is judged.
    """
    peer = jupyter.EBus("sqlite")
    with peer.serve() as running:
        assert peer.server is not None
        kernel = peer.server.start_kernel(jupyter.USER)
        authorization = f"Authorization: {peer.server.headers(jupyter.USER)['Authorization']}\r\n"
        prompt, delayed = [await _page(running.port, kernel.id, authorization) for _ in range(2)]
        prompt.acknowledge_immediately()
        await _cells((prompt, delayed), 5)  # warm up
        idle = await _cells((prompt, delayed), cells)
        context = multiprocessing.get_context("spawn")
        started = context.Event()
        load = context.Process(target=_flood, args=(peer, running.port, subscribers, size, started), daemon=True)
        load.start()
        assert await asyncio.to_thread(started.wait, 60)
        busy = await _cells((prompt, delayed), cells)
        load.terminate()
        load.join()
        for page in (prompt, delayed):
            page.close()
        kernel.shutdown()
    row = {}
    for kind, before, after in zip(("", "delayed_"), idle, busy, strict=True):
        row[f"{kind}idle_p95_ms"] = percentile(before, 0.95) * 1e3
        row[f"{kind}busy_p95_ms"] = percentile(after, 0.95) * 1e3
        row[f"{kind}times_idle"] = percentile(after, 0.95) / percentile(before, 0.95)
    return row


async def _page(port: int, kernel: str, authorization: str) -> RawClient:
    page = await RawClient.connect(port)
    await page.upgrade(f"/api/kernels/{kernel}/channels?session_id={uuid.uuid4().hex}", authorization)
    return page


async def _cells(pages: tuple[RawClient, RawClient], count: int) -> tuple[list[float], list[float]]:
    """Seconds per cell, for each page. The pages alternate, so that both meet the same load."""
    waits: tuple[list[float], list[float]] = ([], [])
    for _ in range(count):
        for page, taken in zip(pages, waits, strict=True):
            began = time.perf_counter()
            await _run(page)
            taken.append(time.perf_counter() - began)
            await asyncio.sleep(0.01)
    return waits


async def _run(page: RawClient) -> None:
    """Run a cell until its reply has arrived and the kernel is idle; skip messages of the other page's cells."""
    content = {"code": "None", "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": False}
    request = jupyter.message("execute_request", content)
    page.send(frame(json.dumps(request).encode(), binary=False))
    awaited = {"execute_reply", "idle"}
    while awaited:
        message = await page.read_message()
        if not message.startswith(b"{"):  # a ping of the server
            continue
        received = json.loads(message)
        if received["parent_header"].get("msg_id") == request["header"]["msg_id"]:
            awaited -= {received["msg_type"], received["content"].get("execution_state")}


def _flood(peer: jupyter.EBus, port: int, subscribers: int, size: int, started: Event) -> None:
    async def run() -> None:
        async with fanout.audience(peer, port, subscribers) as (writer, clients):
            started.set()
            await fanout.flood(peer, writer, clients, [text_of(size)] * 50, FOR_EVER, ahead=500)

    asyncio.run(run())
