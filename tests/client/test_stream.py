"""Streams: where they begin, how they lag, how they end."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

import ebus_jupyter as ebus
from ebus_jupyter.client.waiting import NOT_YET
from ebus_jupyter.core.protocol.address import Address

from .conftest import Line


def test_late_reader_gets_kept_messages_then_live_ones(line: Line) -> None:
    board = line.client().bus("board", int)
    for n in range(3):
        board.write(n)
    board.write(3).result(5)
    late = board.stream(since="start")
    assert late.take(4, 5) == [0, 1, 2, 3]
    board.write(4)
    assert late.get(5) == 4
    assert board.stream(since=-2).take(2, 5) == [3, 4]
    assert board.stream(since=3).get(5) == 3, "after offset 3"
    assert board.history(2) == [3, 4]


def test_cloned_stream_continues_at_the_same_position(line: Line) -> None:
    bus = line.client().bus("one")
    first = bus.stream()
    for n in range(4):
        bus.write(n)
    assert first.take(2, 5) == [0, 1]
    second = first.clone()
    assert first.take(2, 5) == second.take(2, 5) == [2, 3]


def test_slow_reader_gets_lagged_then_continues(line: Line) -> None:
    bus = line.client().bus("board", int, size=10)
    slow = bus.stream()
    for n in range(15):
        ack = bus.write(n)
    ack.result(5)
    with pytest.raises(ebus.Lagged) as lag:
        slow.get(5)
    assert (lag.value.skipped, lag.value.resume_after) == (5, 5)
    assert slow.take(10, 5) == list(range(5, 15))


def test_write_only_participant_can_write_but_not_read(line: Line) -> None:
    async def authorize(address: Address, action: str) -> bool:
        return action == "write"

    box = line.client("bob", "k2", authorize=authorize).bus("suggestions")
    with pytest.raises(ebus.Forbidden, match="bob may write to suggestions but not read it"):
        box.stream().get(5)
    assert box.status == "live"
    assert box.write("more tea").result(5) == 1
    assert line.client("alice").bus("suggestions").history() == ["more tea"]


def test_new_stream_receives_every_later_write(line: Line) -> None:
    writer, reader = line.client("alice").bus("news", int), line.client("bob", "k2").bus("news", int)
    for n in range(50):
        stream = reader.stream()
        writer.write(n).result(5)
        assert stream.get(5) == n
        stream.close()


def test_async_iteration_continues_after_lagged(line: Line) -> None:
    bus = line.client().bus("board", size=2)

    async def notebook() -> list[object]:
        stream, seen = bus.stream(), []
        for n in range(4):
            await bus.write(n)
        while len(seen) < 3:
            try:
                async for value in stream:
                    seen.append(value)
                    if value == 3:
                        break
            except ebus.Lagged as lag:
                seen.append(f"missed {lag.skipped}")
        return seen

    assert asyncio.run(notebook()) == ["missed 2", 2, 3]


def test_deleted_bus_closes_its_readers_with_the_reason(line: Line) -> None:
    bus, other = line.client("alice").bus("old"), line.client("bob", "k2").bus("old")
    stream = other.stream()
    bus.delete()
    with pytest.raises(ebus.Closed, match="alice has deleted old"):
        stream.get(5)
    assert stream.status == "closed"
    with pytest.raises(ebus.Closed):
        other.write(1)


def test_take_that_times_out_loses_nothing(line: Line) -> None:
    bus = line.client().bus("news", int)
    stream = bus.stream()
    bus.write(1)
    bus.write(2).result(5)
    with pytest.raises(TimeoutError) as late:
        stream.take(3, 0.05)
    assert late.value.items == [1, 2]  # type: ignore[attr-defined]
    assert not stream.caught_up
    twin = stream.clone()
    bus.write(3)
    assert stream.take(3, 5) == twin.take(3, 5) == [1, 2, 3]


def test_take_that_lags_keeps_what_came_before(line: Line) -> None:
    bus = line.client().bus("board", int, size=2)
    stream = bus.stream()
    bus.write(0).result(5)
    with pytest.raises(TimeoutError):
        stream.take(2, 0.01)
    for n in range(1, 5):
        bus.write(n).result(5)
    with pytest.raises(ebus.Lagged) as lag:
        stream.take(2, 5)
    assert lag.value.items == [0]
    assert stream.take(3, 5) == [0, 3, 4]


def test_timed_out_and_cancelled_waits_leave_nothing(line: Line) -> None:
    bus = line.client().bus("news")
    stream = bus.stream()
    for _ in range(100):
        with pytest.raises(TimeoutError):
            stream.get(0)

    async def wait() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.01)

    asyncio.run(wait())
    assert not bus.arrivals._callbacks


def test_with_closes_a_stream(line: Line) -> None:
    bus = line.client().bus("news")
    with bus.stream() as stream:
        bus.write(1)
        assert stream.get(5) == 1
    assert stream.status == "closed"
    assert list(stream) == []


def test_dropped_bus_is_left(line: Line) -> None:
    client, other = line.client("alice"), line.client("bob", "k2").bus("news")
    bus = client.bus("news")
    stream = bus.stream()

    def others() -> int:
        return len(other.participants)

    def eventually(n: int) -> None:
        other.topic.presence_changed.wait(lambda: True if others() == n else NOT_YET, 5, "nobody left")

    eventually(2)
    del bus
    gc.collect()
    other.write(1).result(5)
    assert stream.get(5) == 1, "a stream keeps the bus open"
    del stream
    eventually(1)
    client.bus("news").on(print)
    eventually(2)
    gc.collect()
    other.write(1).result(5)
    assert others() == 2, "and so does a callback"


def test_dropped_bus_still_answers_its_last_write(line: Line) -> None:
    client = line.client()
    for n in range(1, 50):
        assert client.bus("news").write(n).result(5) == n


def test_dropped_state_is_left_unless_it_has_listeners(line: Line) -> None:
    client = line.client()
    state = client.state("dash")
    gone = weakref.ref(state)
    listener = state.on_change(print)
    del state
    gc.collect()
    kept = gone()
    assert kept is not None
    kept.off_change(listener)
    del kept
    gc.collect()
    assert gone() is None
