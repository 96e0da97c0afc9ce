"""The notebook comes first: how long a cell takes on a server whose buses have as much to do as they can."""

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
from .wire import Line, frame, text_of

FOR_EVER = 3600.0


async def measure(*, cells: int, subscribers: int, size: int) -> Row:
    """Cells without the load, and with it: a writer that is never done, from a process of its own.

    Jupyter's kernel sockets wait for the page's TCP, and that waits up to 40 ms: idle cells take that long for nothing,
    and a loop that keeps them waiting hides in it. So each cell is run by a page whose TCP waits, and by one whose
    doesn't; the latter is judged.
    """
    peer = jupyter.EBus("sqlite")
    with peer.serve() as running:
        assert peer.server is not None
        kernel = peer.server.start_kernel(jupyter.USER)
        authorization = f"Authorization: {peer.server.headers(jupyter.USER)['Authorization']}\r\n"
        prompt, delayed = [await _page(running.port, kernel.id, authorization) for _ in range(2)]
        prompt.acknowledge_at_once()
        await _cells((prompt, delayed), 5)  # once for nothing
        idle = await _cells((prompt, delayed), cells)
        context = multiprocessing.get_context("spawn")
        under_way = context.Event()
        load = context.Process(target=_flood, args=(peer, running.port, subscribers, size, under_way), daemon=True)
        load.start()
        assert await asyncio.to_thread(under_way.wait, 60)
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


async def _page(port: int, kernel: str, authorization: str) -> Line:
    page = await Line.connect(port)
    await page.upgrade(f"/api/kernels/{kernel}/channels?session_id={uuid.uuid4().hex}", authorization)
    return page


async def _cells(pages: tuple[Line, Line], count: int) -> tuple[list[float], list[float]]:
    """How long each took, page by page; the pages take turns, so that both meet the same machine."""
    waits: tuple[list[float], list[float]] = ([], [])
    for _ in range(count):
        for page, taken in zip(pages, waits, strict=True):
            began = time.perf_counter()
            await _run(page)
            taken.append(time.perf_counter() - began)
            await asyncio.sleep(0.01)
    return waits


async def _run(page: Line) -> None:
    """Run a cell to its end: the reply, and the kernel idle again. (What the other page's cells say is passed over.)"""
    content = {"code": "None", "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": False}
    request = jupyter.message("execute_request", content)
    page.send(frame(json.dumps(request).encode(), binary=False))
    awaited = {"execute_reply", "idle"}
    while awaited:
        message = await page.message()
        if not message.startswith(b"{"):  # the server pings
            continue
        said = json.loads(message)
        if said["parent_header"].get("msg_id") == request["header"]["msg_id"]:
            awaited -= {said["msg_type"], said["content"].get("execution_state")}


def _flood(peer: jupyter.EBus, port: int, subscribers: int, size: int, under_way: Event) -> None:
    async def run() -> None:
        async with fanout.audience(peer, port, subscribers) as (writer, lines):
            under_way.set()
            await fanout.flood(peer, writer, lines, [text_of(size)] * 50, FOR_EVER, ahead=500)

    asyncio.run(run())
