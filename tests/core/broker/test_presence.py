"""The participants of a bus: here, away for a moment, gone."""

from __future__ import annotations

import msgspec

from ebus_jupyter.core.broker.presence import Presence
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.core.protocol.seat import decode_seat
from tests.core.play import Play, pack

ALICE, BOB = Participant("a", "page", "alice"), Participant("b", "kernel", "bob", kernel_id="k1")


def seats(raws):
    return {seat[0].user: seat[1:] for seat in map(decode_seat, raws)}


def reported(presence):
    diff = presence.diff()
    return None if diff is None else (seats(diff.here), diff.left)


def test_diff_reports_joins_and_leaves_once():
    presence = Presence()
    presence.join(ALICE, 1.0)
    presence.join(BOB, 2.0)
    assert reported(presence) == ({"alice": ("here", 1.0, None, ""), "bob": ("here", 2.0, None, "")}, [])
    presence.leave("a")
    assert reported(presence) == ({}, ["a"])
    assert reported(presence) is None


def test_diff_reports_only_the_latest_of_several_changes():
    presence = Presence()
    presence.join(ALICE, 1.0)
    presence.leave("a")
    presence.join(ALICE, 2.0)
    here, left = reported(presence)
    assert (list(here), left) == (["alice"], [])


def test_participant_keeps_its_state_while_away():
    presence = Presence()
    presence.join(ALICE, 1.0)
    presence.set("a", msgspec.Raw(pack({"typing": True})))
    presence.away("a", 5.0)
    assert seats(presence.snapshot())["alice"] == ("away", 1.0, {"typing": True}, "")
    presence.join(ALICE, 6.0)
    assert seats(presence.snapshot())["alice"] == ("here", 1.0, {"typing": True}, "")


def test_participant_away_for_too_long_has_left():
    presence = Presence()
    presence.join(ALICE, 1.0)
    presence.away("a", 5.0)
    presence.expire(before=5.0)
    assert "a" in presence
    presence.expire(before=5.1)
    assert (len(presence), reported(presence)) == (0, ({}, ["a"]))


def test_kernel_activity_is_reported_when_it_changes():
    presence = Presence()
    presence.join(ALICE, 1.0)
    presence.join(BOB, 1.0)
    presence.diff()
    presence.kernel("k1", "busy")
    presence.kernel("k1", "busy")
    assert reported(presence) == ({"bob": ("here", 1.0, None, "busy")}, [])
    presence.kernel("k1", "busy")
    assert reported(presence) is None


def test_changes_of_absent_participants_are_ignored():
    presence = Presence()
    presence.set("x", msgspec.Raw(b"\x01"))
    presence.away("x", 1.0)
    presence.leave("x")
    assert reported(presence) is None


def test_watchers_see_joins_states_and_leaves(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers = alice.opened()
    alice.session.watch_presence(hers)
    play.settle()
    his = bob.opened()
    bob.session.set_presence(his, pack("hi"))
    play.settle()
    play.do(play.broker.presence(play.now))
    play.settle()

    def seen():
        return {seat[0].user: (seat[1], seat[3]) for seat in hers.participants.values()}

    assert seen() == {"alice": ("here", None), "bob": ("here", "hi")}
    bob.lose()
    play.do(play.broker.presence(play.now))
    play.settle()
    assert seen()["bob"] == ("away", "hi")
    play.pass_time(play.limits.gone_seconds + 1)
    play.settle()
    assert list(seen()) == ["alice"]


def test_bus_closed_while_offline_is_left_once_the_client_is_back(play):
    """The server has not noticed that the old connection is dead when the new one replaces it."""
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    bob.session.watch_presence(his)
    play.settle()
    old = alice.conn
    alice.conn = 0
    alice.session.connection_lost()
    alice.session.leave(hers)
    alice.connect()
    play.settle()
    assert old not in play.broker._connections
    play.pass_time(play.limits.gone_seconds + 1)
    play.settle()
    assert [seat.who.user for seat in his.participants.values()] == ["bob"]


def test_bus_left_before_it_is_opened_is_left(play):
    alice, bob = play.player("alice"), play.player("bob")
    his = bob.opened()
    bob.session.watch_presence(his)
    play.settle()
    hers = alice.open()
    alice.say()
    alice.session.leave(hers)
    play.settle()
    assert [seat.who.user for seat in his.participants.values()] == ["bob"]


# --- many people ------------------------------------------------------------------------------------------------------


def test_diff_has_a_size_and_the_rest_waits_with_its_newest_state():
    presence = Presence()
    for n in range(20):
        presence.join(Participant(f"p{n}", "page", f"u{n}"), 1.0)
    presence.diff()
    for n in range(20):
        presence.set(f"p{n}", msgspec.Raw(pack("old")))
    first = seats(presence.diff(300).here)
    assert 0 < len(first) < 20
    presence.set("p19", msgspec.Raw(pack("new")))
    presence.leave("p18")
    diff = presence.diff(1)
    assert diff.left == ["p18"]  # who left goes before any state
    rest = {}
    while presence.has_changed:
        rest |= seats(presence.diff(300).here)
    assert len(first) + len(rest) == 19
    assert rest["u19"][2] == "new"


def test_fast_states_of_a_crowd_cost_what_the_rate_allows(play):
    play = Play(limits=msgspec.structs.replace(play.limits, presence_rate=20_000.0))
    people = [play.player(f"u{n}") for n in range(20)]
    buses = [who.opened() for who in people]
    for who, bus in zip(people, buses, strict=True):
        who.session.watch_presence(bus)
    play.settle()
    play.now += 10
    play.settle()
    sent = 0
    for step in range(100):  # ten seconds, ten times a second
        play.now += 0.1
        for who, bus in zip(people, buses, strict=True):
            who.session.set_presence(bus, pack({"x": step}))
            who.say()
        play.do(play.broker.presence(play.now))
        sent += sum(len(frame) for who in people for frame, _ in who.inbox)
        for who in people:
            who.hear()
    assert sent <= 20_000 * (10 + 2) * 1.2
    play.now += 10
    for _ in range(20):
        play.now += 1
        play.do(play.broker.presence(play.now))
        for who in people:
            who.hear()
    assert not play.broker.presence_dirty
    for bus in buses:  # in the end, everyone sees the last state of everyone
        assert [seat.state for seat in bus.participants.values()] == [{"x": 99}] * 20


def test_full_socket_is_sent_no_presence_and_all_of_it_later(play):
    alice, slow = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), slow.opened()
    slow.session.watch_presence(his)
    play.settle()
    slow.block()
    carol = play.player("carol")
    carol.opened()
    alice.session.set_presence(hers, pack(1))
    play.settle()
    assert not slow.inbox
    alice.session.set_presence(hers, pack(2))
    play.settle()
    slow.drain()
    play.settle()
    assert {seat.who.user: seat.state for seat in his.participants.values()} == {"alice": 2, "bob": None, "carol": None}
