"""Positions: where a client has got to, for it or another one to go on from."""

from __future__ import annotations

import pytest

import ebus_jupyter as ebus

from .conftest import Line


def test_stream_of_another_client_continues_at_a_position(line: Line) -> None:
    first = line.client("alice").bus("votes")
    with first.stream() as stream:
        for n in range(3):
            first.write(n).result(5)
        stream.take(3, 5)
    saved = str(first.position)
    first.write("later").result(5)

    position = ebus.Position.parse(saved)
    assert isinstance(position, ebus.Position)
    assert (position.epoch, position.offset) == (first.epoch, 3)
    assert position.id
    second = line.client("bob", "k2").bus("votes")
    assert second.stream(since=position).get(5) == "later"


def test_position_of_a_bus_made_anew_is_lagged_then_everything(line: Line) -> None:
    bus = line.client().bus("votes")
    with bus.stream() as stream:
        bus.write("old").result(5)
        stream.get(5)
    position = bus.position
    bus.delete()
    again = line.client().bus("votes")
    for n in range(3):
        again.write(n).result(5)
    late = again.stream(since=position)
    with pytest.raises(ebus.Lagged) as lagged:
        late.get(5)
    assert lagged.value.skipped is None
    assert late.take(3, 5) == [0, 1, 2]
    assert again.stream(since=1).get(5) == 1, "an offset does not tell"


def test_position_names_the_last_message_that_its_client_could_see(line: Line) -> None:
    alice = line.client("alice", "k1").bus("votes")
    bob = line.client("bob", "k2").bus("votes")
    stream = bob.stream()
    alice.write("for all").result(5)
    assert stream.get(5) == "for all"
    seen = bob.position
    alice.write("psst", to="alice").result(5)
    alice.write("for all again").result(5)
    assert stream.get(5) == "for all again"
    assert seen.offset == 1 and bob.position.offset == 3
    assert bob.position.id.rpartition("-")[0] == seen.id.rpartition("-")[0] != ""


def test_history_skips_messages_for_others(line: Line) -> None:
    alice = line.client("alice", "k1").bus("votes")
    bob = line.client("bob", "k2").bus("votes")
    for n in range(3):
        alice.write(n)
    for _ in range(10):
        alice.write("psst", to="alice").result(5)
    assert bob.history(10) == [0, 1, 2]
    assert bob.history(2) == [1, 2]
    assert bob.history(0) == []
