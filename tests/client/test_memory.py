"""Whatever a client does again and again, its memory stays flat.

Together a bit more than a million operations. Cheap ones are done hundreds of thousands of times; those that wait for the
broker's answer, one at a time, some thousand times: as often as a few seconds allow. What leaks in each of them shows long
before: the blocks that Python has allocated may grow by no more than one in fifty operations.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator

import pytest

from ebus_jupyter.client.client import Client
from ebus_jupyter.errors import SpecConflict, TypeMismatch

from .conftest import Line

BURST = 2_000
"""Writes that wait for their answers together."""

WARM_UP = 3_000
"""The least number of operations until logs, tables of ids, and caches are full."""


def writes(client: Client) -> Iterator[int]:
    bus = client.bus("news", int, size=100)
    while True:
        acks = [bus.write(1) for _ in range(BURST)]
        for ack in acks:
            ack.result(30)
        yield BURST


def writes_one_by_one(client: Client) -> Iterator[int]:
    bus = client.bus("news", int, size=100)
    stream = bus.stream()
    while True:
        bus.write(1).result(5)
        assert stream.get(5) == 1
        yield 2


def refused_writes(client: Client) -> Iterator[int]:
    bus = client.bus("news", int)
    while True:
        with pytest.raises(TypeMismatch):
            bus.write("one")  # type: ignore[arg-type]
        yield 1


def reads_that_time_out(client: Client) -> Iterator[int]:
    stream = client.bus("news", int).stream()
    while True:
        with contextlib.suppress(TimeoutError):
            stream.get(timeout=0)
        yield 1


def requests_that_time_out(client: Client) -> Iterator[int]:
    while True:
        with contextlib.suppress(TimeoutError):
            client.buses(timeout=0)
        yield 1


def callbacks(client: Client) -> Iterator[int]:
    bus = client.bus("news", int)
    while True:
        bus.on(nothing)
        bus.off(nothing)
        yield 2


def presence(client: Client) -> Iterator[int]:
    bus = client.bus("news", int)
    while True:
        bus.presence.on_change(nothing)
        bus.presence.set(1)
        bus.presence.off_change(nothing)
        yield 3


def streams(client: Client) -> Iterator[int]:
    bus = client.bus("news", int)
    while True:
        with bus.stream() as stream, stream.clone():
            yield 2


def dropped_streams(client: Client) -> Iterator[int]:
    bus = client.bus("news", int)
    while True:
        bus.stream()
        yield 1


def buses(client: Client) -> Iterator[int]:
    while True:
        with client.bus("news", int):
            yield 2


def clones(client: Client) -> Iterator[int]:
    bus = client.bus("news", int)
    while True:
        with bus.clone() as clone, clone.clone():
            yield 4


def conflicts(client: Client) -> Iterator[int]:
    bus = client.bus("news", int)  # kept open
    while bus.status == "live":
        with contextlib.suppress(SpecConflict):
            client.bus("news", str)
        yield 1


def state_sets(client: Client) -> Iterator[int]:
    state = client.state("dash", int, size=100)
    rounds = 0
    while True:
        for n in range(BURST):
            state[f"k{n % 10}"] = n
        state.flush()
        rounds += 1
        if rounds > 50:  # until the log is full: most of the writes replace one that waits, and never get there
            yield BURST


def state_removals(client: Client) -> Iterator[int]:
    state = client.state("dash", int, size=100)
    n = 0
    while True:
        state[f"key {n}"] = n
        state.flush()
        del state[f"key {n}"]
        state.flush()
        n += 1
        yield 2


def states(client: Client) -> Iterator[int]:
    state = client.state("dash", int, size=100)
    while True:
        with state.clone() as clone:
            clone.on_change(nothing)
            clone.off_change(nothing)
            clone.on_change(nothing)
            yield 4


def nothing(*_: object) -> None:
    """A callback."""


@pytest.mark.parametrize(
    ("use", "operations"),
    [
        (writes, 150_000),
        (writes_one_by_one, 10_000),
        (refused_writes, 200_000),
        (reads_that_time_out, 200_000),
        (requests_that_time_out, 10_000),
        (callbacks, 100_000),
        (presence, 30_000),
        (streams, 100_000),
        (dropped_streams, 50_000),
        (buses, 4_000),
        (clones, 50_000),
        (conflicts, 2_000),
        (state_sets, 150_000),
        (state_removals, 4_000),
        (states, 20_000),
    ],
    ids=lambda each: each.__name__ if callable(each) else None,
)
def test_memory_stays_flat(
    make_line: Callable[..., Line], use: Callable[[Client], Iterator[int]], operations: int
) -> None:
    # The broker of this process remembers the ids of writes up to a bound, and one message: then it is full soon.
    client = make_line(dedupe=1000).client()
    uses = use(client)

    def repeat(operations: int) -> None:
        done = 0
        while done < operations:
            done += next(uses)
        client.buses()  # the answers to what went before have arrived

    repeat(WARM_UP + operations // 10)
    before = blocks()
    repeat(operations)
    grown = blocks() - before
    assert grown < 500 + operations / 50, f"{grown} blocks more after {operations} operations"


def blocks() -> int:
    """How many blocks of memory Python has allocated."""
    gc.collect()
    return sys.getallocatedblocks()
