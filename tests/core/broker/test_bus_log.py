"""The log in the broker: the newest messages in memory, the older ones read from the backend when they are asked for."""

from __future__ import annotations

import pytest

from ebus_jupyter.backends import sqlite_log
from ebus_jupyter.core.broker import bus_log
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.errors import BackendError, Lagged
from tests.core.logs import FileLogs, Logs
from tests.core.play import Play

RECENT = (5, 10_000)


@pytest.fixture(params=[Logs, FileLogs], ids=["memory", "file"])
def play(request, monkeypatch):
    monkeypatch.setattr(bus_log, "RECENT", RECENT)
    monkeypatch.setattr(sqlite_log, "RECENT", RECENT)
    made = Play(logs=request.param(), limits=Limits(page_bytes=300, send_bytes=300))
    yield made
    made.logs.close()


def filled(play, **spec):
    alice = play.player("alice")
    bus = alice.opened(size=100, **spec)
    for n in range(120):
        alice.written(bus, n)
    return alice, bus


@pytest.mark.parametrize("restart", [False, True])
def test_history_is_whole_and_memory_holds_its_end(play, restart):
    alice, bus = filled(play)
    if restart:
        play.restart()
        alice.connect()
        play.settle()
    assert len(play.broker.registry.buses[bus.uri].log) == RECENT[0]
    bob = play.player("bob")
    his = bob.opened()
    assert bob.values(bob.reader(his, "start")) == list(range(20, 120))
    assert bob.values(bob.reader(his, 50)) == list(range(50, 120))


@pytest.mark.parametrize("n", [1, 4, 5, 6, 60, 100, 500])
def test_last_messages_are_found_beyond_memory(play, n):
    alice, bus = filled(play)
    assert alice.values(alice.reader(bus, -n)) == list(range(120))[-min(n, 100) :]


def test_last_messages_do_not_count_those_for_others_in_memory(play):
    alice, eve = play.player("alice"), play.player("eve")
    bus, hers = alice.opened(), eve.opened()
    for n in range(8):
        alice.written(bus, n, to=["bob"] if n in (5, 7) else None)
    assert eve.values(eve.reader(hers, -2)) == [4, 6]


def test_counting_back_over_messages_for_others_is_bounded(play, monkeypatch):
    monkeypatch.setattr(bus_log, "RECENT", (5000, 1 << 20))
    monkeypatch.setattr(bus_log, "LOOK_BACK", 10)
    alice, eve = play.player("alice"), play.player("eve")
    bus, hers = alice.opened(), eve.opened()
    looked = []
    for n in range(50):
        alice.written(bus, n, to=["bob"])
    log = play.broker.registry.buses[bus.uri].log
    log.before_last(1, 50, lambda record: looked.append(record.offset) or False)
    assert len(looked) == 11
    assert eve.values(eve.reader(hers, -1)) == []


def test_subscriber_behind_memory_catches_up_from_the_backend(play):
    alice, slow = play.player("alice"), play.player("bob")
    bus = alice.opened(size=100)
    hears = slow.reader(slow.opened())
    slow.block()
    for n in range(80):
        alice.written(bus, n)
    slow.drain()
    play.settle()
    assert slow.values(hears) == list(range(80))
    alice.written(bus, "live")
    assert slow.values(hears) == ["live"]


def test_resume_behind_memory_is_whole_and_checks_the_history(play):
    alice, bob = play.player("alice"), play.player("bob")
    bus = alice.opened(size=100)
    hears = bob.reader(bob.opened())
    alice.written(bus, 0)
    assert bob.values(hears) == [0]
    bob.lose()
    for n in range(1, 60):
        alice.written(bus, n)
    bob.connect()
    play.settle()
    assert bob.values(hears) == list(range(1, 60))


def test_private_messages_behind_memory_stay_private(play):
    alice, eve = play.player("alice"), play.player("eve")
    bus, hers = alice.opened(), eve.opened()
    for n in range(40):
        alice.written(bus, n, to=["bob"] if n % 2 else None)
    assert eve.values(eve.reader(hers, "start")) == list(range(0, 40, 2))
    assert alice.values(alice.reader(bus, "start")) == list(range(40))


def test_reader_is_told_what_the_backend_has_dropped_meanwhile(play):
    alice, bus = filled(play)
    log = play.broker.registry.buses[bus.uri].log
    log.floor = 0  # as where the bytes of the log are bounded, which the backend counts
    alice.reader(bus, None)
    slow = play.player("bob")
    his = slow.opened()
    found = slow.read(slow.reader(his, 3))
    assert isinstance(found[0], Lagged)
    assert (found[0].skipped, found[0].resume_after) == (17, 20)
    assert len(found) == 101
    assert log.floor == 20


def test_failing_backend_makes_a_subscriber_lag_and_a_page_fail(play, monkeypatch):
    alice, bus = filled(play)
    slow = play.player("bob")
    his = slow.opened()
    hears = slow.reader(his)
    slow.block()
    for n in range(20):
        alice.written(bus, n)

    def fail(after, max_bytes):
        raise BackendError("the disk failed.")

    monkeypatch.setattr(play.broker.registry.buses[bus.uri].log, "_older", fail)
    slow.drain()
    play.settle()
    assert slow.values(hears) == [("lagged", 15), 15, 16, 17, 18, 19]
    req = slow.session.fetch(his, 30)
    with pytest.raises(BackendError):
        slow.reply(req)
