"""A kernel's acknowledged writes, and the replay for a late joiner."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from .measure import Row, Span, percentile
from .peers import echo, jupyter, nats
from .wire import text_of

SUBJECT, STREAM = "bench.writes", "BENCH"

KEYS = 1_000


def row(writes: int, seconds: float, client: float, server: float, waits: list[float]) -> Row:
    return {
        "writes_per_second": writes / seconds,
        "client_microseconds": client / writes * 1e6,
        "server_microseconds": server / writes * 1e6,
        "wait_p50_us": percentile(waits, 0.5) * 1e6,
        "wait_p99_us": percentile(waits, 0.99) * 1e6,
    }


def ebus(backend: str, *, writes: int, in_flight: int, lone: int, size: int, replay: int) -> Row:
    """A real kernel writes to the server that started it; another kernel joins late."""
    text = text_of(size)
    with jupyter.server(jupyter.UNBOUNDED.format(backend=backend)) as server:
        writer = server.start_kernel(jupyter.USER)
        _call(writer, f"write({text!r}, {in_flight}, {in_flight}, {replay})")  # warm up: import and connect
        span = Span(server.pid)
        written = _call(writer, f"write({text!r}, {writes}, {in_flight}, {replay})")
        span.stop()
        waits = _call(writer, f"write_one_by_one({text!r}, {lone}, {replay})")
        joiner = server.start_kernel(jupyter.USER)
        joined = _call(joiner, f"join({replay})")
        _call(writer, f"fill_state({KEYS})")
        state = _call(joiner, f"join_state({KEYS})")
        for kernel in (writer, joiner):
            kernel.shutdown()
    return {
        **row(writes, written["seconds"], written["cpu"], span.cpu, waits),
        "replay_ms": joined["seconds"] * 1e3,
        "state_ms": state["seconds"] * 1e3,
    }


def kernel_to_kernel(*, lone: int, warm_up: int) -> Row:
    """Two real kernels on one server: one writes lone messages, the other reads them from a stream."""
    messages = warm_up + lone
    with jupyter.server(jupyter.UNBOUNDED.format(backend="sqlite")) as server:
        writer, reader = server.start_kernel(jupyter.USER), server.start_kernel(jupyter.USER)
        received = reader.submit(_code(f"receive_lone({messages})"))
        _call(writer, f"send_lone({messages})")
        waits = json.loads(received.result(60).stdout)[warm_up:]
        for kernel in (writer, reader):
            kernel.shutdown()
    return {"wait_p50_ms": percentile(waits, 0.5) * 1e3, "wait_p99_ms": percentile(waits, 0.99) * 1e3}


def _code(call: str) -> str:
    return f"import json; from tests.benchmarks import kernel_side\nprint(json.dumps(kernel_side.{call}))"


def _call(kernel: jupyter.Kernel, call: str) -> Any:
    return json.loads(kernel.run(_code(call), 300).stdout)


async def bare(*, writes: int, in_flight: int, lone: int, size: int) -> Row:
    """A bare WebSocket echo server: no checks, no order, no log."""
    from websockets.asyncio.client import connect

    value = text_of(size).encode()
    with echo.serve() as server:
        async with connect(f"ws://127.0.0.1:{server.port}/", compression=None, proxy=None) as socket:
            span, used, began = Span(server.pid), time.process_time(), time.perf_counter()
            sent = got = 0
            while got < writes:
                while sent < writes and sent - got < in_flight:
                    await socket.send(value)
                    sent += 1
                await socket.recv()
                got += 1
            spent, used = time.perf_counter() - began, time.process_time() - used
            span.stop()
            waits = []
            for _ in range(lone):
                at = time.perf_counter()
                await socket.send(value)
                await socket.recv()
                waits.append(time.perf_counter() - at)
    return row(writes, spent, used, span.cpu, waits)


async def jetstream(*, writes: int, in_flight: int, lone: int, size: int, replay: int) -> Row:
    """nats-py on JetStream with one replica and default settings: an ack does not wait for the disk, as ours by default."""
    with nats.serve() as server:
        import nats as client

        connection = await client.connect(f"nats://127.0.0.1:{server.port}")
        try:
            stream = connection.jetstream()
            await stream.add_stream(name=STREAM, subjects=[SUBJECT], max_msgs_per_subject=replay)
            value = text_of(size).encode()

            async def lane(count: int) -> None:
                for _ in range(count):
                    await stream.publish(SUBJECT, value)

            span, used, began = Span(server.pid), time.process_time(), time.perf_counter()
            await asyncio.gather(*(lane(writes // in_flight) for _ in range(in_flight)))
            spent, used = time.perf_counter() - began, time.process_time() - used
            span.stop()
            waits = []
            for _ in range(lone):
                at = time.perf_counter()
                await stream.publish(SUBJECT, value)
                waits.append(time.perf_counter() - at)
            began = time.perf_counter()
            late = await stream.subscribe(SUBJECT, ordered_consumer=True)
            for _ in range(replay):
                await late.next_msg(10)
            replayed = time.perf_counter() - began
        finally:
            await connection.close()
    return {**row(writes // in_flight * in_flight, spent, used, span.cpu, waits), "replay_ms": replayed * 1e3}
