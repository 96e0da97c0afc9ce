"""Streams: where they begin, how they lag, how they end."""

from __future__ import annotations

import asyncio

import pytest

import ebus_jupyter as ebus
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
