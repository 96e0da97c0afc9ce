"""Who is on a bus: here, away for a moment, gone."""

from __future__ import annotations

import msgspec

from ebus_jupyter.core.broker.presence import Presence
from ebus_jupyter.core.protocol.frames import read_seat
from ebus_jupyter.core.protocol.message import Participant
from tests.core.play import pack

ALICE, BOB = Participant("a", "page", "alice"), Participant("b", "kernel", "bob", kernel_id="k1")


def seats(raws):
    return {seat[0].user: seat[1:] for seat in map(read_seat, raws)}


def told(presence):
    diff = presence.diff()
    return None if diff is None else (seats(diff.here), diff.left)


def test_joins_and_leaves_are_told_once_as_what_changed():
    presence = Presence()
    presence.join(ALICE, 1.0)
    presence.join(BOB, 2.0)
    assert told(presence) == ({"alice": ("here", 1.0, None, ""), "bob": ("here", 2.0, None, "")}, [])
    presence.leave("a")
    assert told(presence) == ({}, ["a"])
    assert told(presence) is None


def test_who_comes_and_goes_within_one_diff_is_told_as_what_it_is_now():
    presence = Presence()
    presence.join(ALICE, 1.0)
    presence.leave("a")
    presence.join(ALICE, 2.0)
    here, left = told(presence)
    assert (list(here), left) == (["alice"], [])


def test_a_reload_is_away_and_back_with_what_was_said_before():
    presence = Presence()
    presence.join(ALICE, 1.0)
    presence.set("a", msgspec.Raw(pack({"typing": True})))
    presence.away("a", 5.0)
    assert seats(presence.snapshot())["alice"] == ("away", 1.0, {"typing": True}, "")
    presence.join(ALICE, 6.0)
    assert seats(presence.snapshot())["alice"] == ("here", 1.0, {"typing": True}, "")


def test_away_for_too_long_is_gone():
    presence = Presence()
    presence.join(ALICE, 1.0)
    presence.away("a", 5.0)
    presence.expire(before=5.0)
    assert "a" in presence
    presence.expire(before=5.1)
    assert (len(presence), told(presence)) == (0, ({}, ["a"]))


def test_a_kernels_activity_is_a_fact_that_only_the_server_tells():
    presence = Presence()
    presence.join(ALICE, 1.0)
    presence.join(BOB, 1.0)
    presence.diff()
    presence.kernel("k1", "busy")
    presence.kernel("k1", "busy")
    assert told(presence) == ({"bob": ("here", 1.0, None, "busy")}, [])
    presence.kernel("k1", "busy")
    assert told(presence) is None


def test_nobody_speaks_for_who_is_not_here():
    presence = Presence()
    presence.set("x", msgspec.Raw(b"\x01"))
    presence.away("x", 1.0)
    presence.leave("x")
    assert told(presence) is None


def test_everyone_who_watches_sees_people_come_go_and_speak(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers = alice.opened()
    alice.session.watch_presence(hers)
    play.settle()
    his = bob.opened()
    bob.session.set_presence(his, pack("hi"))
    play.settle()
    play.do(play.broker.presence())
    play.settle()

    def seen():
        return {seat[0].user: (seat[1], seat[3]) for seat in hers.participants.values()}

    assert seen() == {"alice": ("here", None), "bob": ("here", "hi")}
    bob.lose()
    play.do(play.broker.presence())
    play.settle()
    assert seen()["bob"] == ("away", "hi")
    play.pass_time(play.limits.gone_seconds + 1)
    play.settle()
    assert list(seen()) == ["alice"]
