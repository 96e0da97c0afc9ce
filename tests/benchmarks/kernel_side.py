"""Code that runs inside a real kernel, to measure the client there. Each function returns JSON-serialisable numbers."""

from __future__ import annotations

import time
from collections import deque

import msgspec

import ebus_jupyter as ebus

BUS = "writes"
PATIENCE_SECONDS = 60.0


class Note(msgspec.Struct):
    text: str
    n: int


def _open(size: int) -> ebus.Bus[Note, Note]:
    return ebus.bus(BUS, Note, size=size)


def write(text: str, writes: int, in_flight: int, size: int) -> dict[str, float]:
    """Write with at most ``in_flight`` acks outstanding; the bus keeps ``size`` messages."""
    bus = _open(size)
    bus.write(Note(text, 0)).result(PATIENCE_SECONDS)
    acks: deque[ebus.Ack] = deque()
    began, used = time.perf_counter(), time.process_time()
    for n in range(writes):
        if len(acks) == in_flight:
            acks.popleft().result(PATIENCE_SECONDS)
        acks.append(bus.write(Note(text, n)))
    for ack in acks:
        ack.result(PATIENCE_SECONDS)
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used}


def write_one_by_one(text: str, lone: int, size: int) -> list[float]:
    """Seconds that each of ``lone`` writes waits for its ack."""
    bus = _open(size)
    waits = []
    for n in range(lone):
        sent = time.perf_counter()
        bus.write(Note(text, n)).result(PATIENCE_SECONDS)
        waits.append(time.perf_counter() - sent)
    return waits


def join(messages: int) -> dict[str, float]:
    """Join late, and replay the log."""
    ebus.bus("hello").write(None).result(PATIENCE_SECONDS)  # connect first, like a kernel that has another bus open
    began = time.perf_counter()
    found = ebus.bus(BUS, Note).stream(since="start").take(messages, timeout=PATIENCE_SECONDS)
    spent = time.perf_counter() - began
    assert len(found) == messages
    return {"seconds": spent}


def fill_state(keys: int) -> None:
    """Fill a state with ``keys`` keys."""
    state = ebus.state("late", size=keys)
    acks = [state.bus.write({"n": n, "text": "x" * 50}, key=f"key-{n}") for n in range(keys)]
    acks[-1].result(PATIENCE_SECONDS)


def join_state(keys: int) -> dict[str, float]:
    """Join a state late."""
    ebus.bus("hello").write(None).result(PATIENCE_SECONDS)
    began = time.perf_counter()
    found = len(ebus.state("late"))
    spent = time.perf_counter() - began
    assert found == keys
    return {"seconds": spent}


def receive_lone(messages: int) -> list[float]:
    """Seconds from writing to receiving each message, by the clock that all processes of this machine share."""
    stream = ebus.bus("lone", float).stream()
    waits = []
    for _ in range(messages):
        written = stream.get(timeout=PATIENCE_SECONDS)
        waits.append(time.perf_counter() - written)
    return waits


def send_lone(messages: int) -> None:
    """Write the current time ``messages`` times, with pauses."""
    bus = ebus.bus("lone", float)
    time.sleep(1.0)
    for _ in range(messages):
        bus.write(time.perf_counter())
        time.sleep(0.005)
