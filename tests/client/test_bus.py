"""Writing to a bus: acks, checks, recipients, gathered writes."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest

import ebus_jupyter as ebus
from ebus_jupyter.client import background

from .conftest import Line


@dataclass
class Vote:
    choice: str
    weight: float = 1.0


def test_each_write_reaches_all_participants_and_its_writer(line: Line) -> None:
    mine, theirs = line.client("alice").bus("votes", Vote), line.client("bob", "k2").bus("votes")
    my_stream, their_stream = mine.stream(), theirs.stream()
    assert mine.write(Vote("tea")).result(5) == 1
    assert my_stream.get(5) == Vote("tea")
    assert their_stream.get(5) == {"choice": "tea", "weight": 1.0}, "an untyped reader gets plain values"


def test_write_of_wrong_type_raises_at_once_with_the_path(line: Line) -> None:
    votes = line.client().bus("votes", Vote)
    with pytest.raises(ebus.TypeMismatch, match=r"votes: expected float, got str at \$\.weight") as wrong:
        votes.write(Vote("tea", "heavy"))  # type: ignore[arg-type]
    assert wrong.value.path == "$.weight"


def test_broker_checks_the_type_of_untyped_writers(line: Line) -> None:
    line.client().bus("votes", Vote)
    untyped = line.client("bob", "k2").bus("votes")
    with pytest.raises(ebus.TypeMismatch, match=r"\$\.choice"):
        untyped.write({"choice": 3}).result(5)


def test_echo_false_skips_the_writer_and_to_limits_recipients(line: Line) -> None:
    alice, bob, carol = (line.client(name, name).bus("talk") for name in ("alice", "bob", "carol"))
    streams = [bus.stream() for bus in (alice, bob, carol)]
    alice.write("to the others", echo=False).result(5)
    alice.write("to bob", to="bob").result(5)
    alice.write("to all").result(5)
    heard = []
    for stream in streams:
        said = []
        while not said or said[-1] != "to all":
            said.append(stream.get(5))
        heard.append(said)
    assert heard == [["to bob", "to all"], ["to the others", "to bob", "to all"], ["to the others", "to all"]]


def test_only_one_of_two_writers_wins_an_expected_offset(line: Line) -> None:
    first, second = line.client("alice").bus("turn"), line.client("bob", "k2").bus("turn")
    assert first.write("mine", expect=0).result(5) == 1
    with pytest.raises(ebus.Conflict) as lost:
        second.write("mine too", expect=0).result(5)
    assert lost.value.actual == 1


def test_failed_ack_never_looked_at_is_logged(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    bus = line.client().bus("full", retain="keys", size=1)
    bus.write(1, key="a").result(5)
    with caplog.at_level(logging.WARNING, "ebus_jupyter"):
        bus.write(2, key="b")
        bus.write(3, key="a").result(5)
        background.finish(5)
    assert "its ack was never looked at" in caplog.text and "full" in caplog.text


def test_failed_acks_never_looked_at_are_logged_together(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    bus = line.client().bus("full", retain="keys", size=1)
    bus.write(1, key="a").result(5)
    with caplog.at_level(logging.WARNING, "ebus_jupyter"):
        bus.write(2, key="b")
        bus.write(3, key="a").result(5)
        background.finish(5)
        for _ in range(99):
            bus.write(2, key="b")
        bus.write(3, key="a").result(5)
        bus.topic.unseen._tell()  # what happens within a second
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2, "the first at once, and the others with their number"
    assert "98 more" in texts[1]


def test_bus_is_closed_at_the_end_of_with(line: Line) -> None:
    with line.client().bus("news") as bus:
        bus.write(1).result(5)
    assert bus.status == "closed"
    with pytest.raises(ebus.Closed):
        bus.write(2)


def test_flush_size_and_flush_interval_gather_writes(line: Line) -> None:
    client = line.client()
    many = client.bus("many", flush_size=3, flush_interval=60)
    first, second = many.write(1), many.write(2)
    client.bus("other").write("goes at once").result(5)
    assert not first.done and not second.done
    assert many.write(3).result(5) == 3
    held = many.write(4)
    many.flush()
    assert held.result(5) == 4
    timed = client.bus("timed", flush_size=1000, flush_interval=0.02)
    assert timed.write(1).result(5) == 1


def test_value_over_the_limit_is_refused_locally(line: Line) -> None:
    bus = line.client().bus("big")
    with pytest.raises(ebus.TooLarge, match="value_bytes"):
        bus.write(b"x" * (2 << 20))
