"""Time: durations are monotonic, stamps never go back, and silent buses cost nothing as it passes."""

from __future__ import annotations

from ebus_jupyter.core.protocol.limits import Limits
from tests.core.play import Play


def test_rate_does_not_depend_on_the_time_of_day():
    play = Play(limits=Limits(publish_rate=2, publish_burst=1))
    alice = play.player()
    bus = alice.opened()
    for n in range(2):
        alice.written(bus, n)
    play.broker.clock.offset -= 3600  # an hour back
    play.now += 1
    assert alice.written(bus, "still") == 3


def test_stamps_of_messages_never_go_back(play):
    alice = play.player()
    bus = alice.opened()
    alice.written(bus, 1)
    play.broker.clock.offset -= 3600
    play.now += 1
    alice.written(bus, 2)
    play.restart()
    alice.connect()
    play.settle()
    play.broker.clock.offset = -3600
    alice.written(bus, 3)
    play.broker.clock.offset = 5
    alice.written(bus, 4)
    assert [entry.time for entry in play.kept] == [1000.0, 1000.0, 1000.0, 1006.0]


def test_presence_shows_the_time_of_day(play):
    play.broker.clock.offset = 500.0
    alice = play.player()
    bus = alice.opened()
    alice.session.watch_presence(bus)
    play.settle()
    assert [seat.since for seat in bus.participants.values()] == [1500.0]


def test_tick_looks_only_at_buses_that_are_due(play, monkeypatch):
    alice = play.player()
    for n in range(20):
        alice.opened(f"silent{n}")
    left = [alice.opened(f"left{n}") for n in range(10)]
    for bus in left:
        alice.session.leave(bus)
    play.settle()
    for _ in range(3):
        play.pass_time(0.25)
    ticked = []
    original = play.broker.registry._tick_bus
    monkeypatch.setattr(
        type(play.broker.registry), "_tick_bus", lambda self, bus, now: [ticked.append(bus), *original(bus, now)][1:]
    )
    for _ in range(20):
        play.pass_time(0.25)
    assert ticked == []
    play.pass_time(play.limits.creator_seconds)
    assert len(ticked) == 10
    assert play.broker.counts()["buses"] == 20


def test_many_overdue_buses_end_over_several_ticks(play, monkeypatch):
    monkeypatch.setattr("ebus_jupyter.core.broker.registry.BUSES_PER_TICK", 4)
    alice = play.player()
    for n in range(10):
        alice.session.leave(alice.opened(f"b{n}"))
    play.settle()
    for _ in range(5):
        play.pass_time(0.25)
    play.pass_time(play.limits.creator_seconds + 1)
    counts = [play.broker.counts()["buses"]]
    for _ in range(2):
        play.pass_time(0.25)
        counts.append(play.broker.counts()["buses"])
    assert counts == [6, 2, 0]
