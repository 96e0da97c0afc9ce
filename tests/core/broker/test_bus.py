"""Subscribers of one bus: slow ones, resumed ones, and the bytes that they share."""

from __future__ import annotations

import pytest

from ebus_jupyter.core.broker.answers import Answers
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from tests.core.play import Play, pack


def test_frames_are_encoded_once_for_all_subscribers(play):
    alice = play.player("alice")
    bus = alice.opened()
    others = [play.player(f"u{n}") for n in range(3)]
    for other in others:
        other.reader(other.opened())
    alice.write(bus, "tea")
    alice.say()
    assert len({id(other.inbox[0][0]) for other in others}) == 1
    assert pack("tea") in others[0].inbox[0][0]


# --- slow subscribers -------------------------------------------------------------------------------------------------


def test_law_8_slow_subscriber_is_not_buffered_and_lags(play):
    alice, slow = play.player("alice"), play.player("bob")
    bus = alice.opened(size=3)
    quick_hears, slow_hears = alice.reader(bus), slow.reader(slow.opened())
    slow.block()
    for n in range(10):
        alice.written(bus, n)
    assert (len(slow.inbox), slow.forced) == (0, 0)
    assert [value for value in alice.values(quick_hears) if isinstance(value, int)][-1] == 9
    slow.drain()
    play.settle()
    assert slow.values(slow_hears) == [("lagged", 7), 7, 8, 9]
    alice.written(bus, 10)
    assert slow.values(slow_hears) == [10]


def test_slow_subscriber_of_latest_gets_the_newest_without_lag(play):
    alice, slow = play.player("alice"), play.player("bob")
    bus = alice.opened(retain="latest")
    hears = slow.reader(slow.opened())
    slow.block()
    for n in range(10):
        alice.written(bus, n)
    slow.drain()
    play.settle()
    assert slow.values(hears) == [9]


def test_subscriber_catches_up_in_portions():
    play = Play(limits=Limits(send_bytes=500))
    alice, slow = play.player("alice"), play.player("bob")
    bus = alice.opened()
    hears = slow.reader(slow.opened())
    slow.block()
    for n in range(50):
        alice.written(bus, n)
    slow.writing_paused = False
    play.broker.resume_writing(slow.conn)
    play.turn()
    assert 0 < sum(number for _, number in slow.inbox) < 50
    assert play.broker.is_catching_up(slow.conn)
    play.settle()
    assert slow.values(hears) == list(range(50))


def test_snapshot_in_portions_continues_below_the_floor():
    """A snapshot in many portions continues below the floor, and does not start again each time."""
    play = Play(limits=Limits(send_bytes=300))
    alice, slow = play.player("alice"), play.player("bob")
    bus = alice.opened(retain="keys", size=5)
    hers = slow.opened()
    hears = slow.reader(hers)
    alice.written(bus, 0, key="gone")
    play.settle()
    slow.lose()
    for key in "abc":
        alice.written(bus, "x" * 120, key=key)
    for n in range(20):
        alice.written(bus, n, key=f"k{n}")
        alice.written(bus, None, key=f"k{n}", deleted=True)
    slow.connect()
    for _ in range(30):
        slow.say(), slow.hear()
    assert not play.broker.is_catching_up(slow.conn)
    keys = {item.key for item in slow.read(hears) if isinstance(item, frames.Delivery) and not item.deleted}
    assert {"a", "b", "c"} <= keys


@pytest.mark.parametrize("retain", ["log", "latest", "keys"])
def test_last_offset_is_known_even_if_its_message_is_not_kept(play, retain):
    alice = play.player()
    bus = alice.opened(retain=retain)
    hears = alice.reader(bus)
    alice.written(bus, 1, **({"key": "a"} if retain == "keys" else {}))
    alice.lose()
    play.broker.registry.buses[bus.uri].log.last = 9  # assigned to messages that are not kept
    alice.connect()
    play.settle()
    alice.values(hears)
    assert (bus.last, hears.caught_up) == (9, True)


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_law_4_resume_is_complete(play):
    alice, bob = play.player("alice"), play.player("bob")
    bus = alice.opened(size=5)
    hears = bob.reader(bob.opened())
    alice.written(bus, 1)
    bob.lose()
    for n in (2, 3):
        alice.written(bus, n)
    bob.connect()
    play.settle()
    assert bob.values(hears) == [1, 2, 3]


def test_law_4_incomplete_resume_reports_what_was_missed(play):
    alice, bob = play.player("alice"), play.player("bob")
    bus = alice.opened(size=2)
    hears = bob.reader(bob.opened())
    alice.written(bus, 1)
    assert bob.values(hears) == [1]
    bob.lose()
    for n in range(2, 7):
        alice.written(bus, n)
    bob.connect()
    play.settle()
    assert bob.values(hears) == [("lagged", 3), 5, 6]


@pytest.mark.parametrize(("retain", "heard"), [("log", ["a", "b", "c", "d"]), ("latest", ["d"])])
def test_law_4_restored_store_is_detected_by_the_last_id(play, retain, heard):
    alice = play.player("alice")
    bus = alice.opened(retain=retain)
    hears = alice.reader(bus)
    for n in range(3):
        alice.written(bus, n)
        assert alice.values(hears) == [n]
    play.restart()
    log = play.durable._buses[bus.uri]
    log.log.restart(0)
    log.answers = Answers(1000, 1 << 20)
    bob = play.player("bob")
    his = bob.opened()
    for value in "abcd":
        bob.written(his, value)
    alice.connect()
    play.settle()
    assert alice.values(hears) == [("lagged", None), *heard]


def test_law_4_resume_does_not_depend_on_remembered_ids():
    play = Play(limits=Limits(dedupe=2))
    alice, bob = play.player("alice"), play.player("bob")
    bus = alice.opened()
    hears = bob.reader(bob.opened())
    alice.written(bus, 0)
    bob.lose()
    for n in range(1, 9):
        alice.written(bus, n)
    bob.connect()
    play.settle()
    assert bob.values(hears) == list(range(9))
