"""Rights: deleting, presence, capabilities, what is hidden, and rights that change while a connection lasts."""

from __future__ import annotations

import msgspec
import pytest

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.message import OWNER, Participant
from ebus_jupyter.errors import Closed, Forbidden, NoSuchBus, SpecConflict
from tests.core.play import Play, Raw


def delete(player, bus):
    player.reply(player.session.delete(bus))


# --- deleting ---------------------------------------------------------------------------------------------------------


def test_writer_who_may_not_read_a_bus_cannot_delete_it(play):
    box = play.player("alice").opened("box", readers=["alice"])
    bob = play.player("bob")
    with pytest.raises(Forbidden, match="bob may not delete box"):
        delete(bob, bob.opened("box"))
    assert box.is_open


def test_reader_who_may_not_write_to_a_bus_cannot_delete_it(play):
    play.player("alice").opened("news", writers=["alice"])
    bob = play.player("bob")
    with pytest.raises(Forbidden, match="bob may not delete news"):
        delete(bob, bob.opened("news"))


@pytest.mark.parametrize("given", [{"writers": ["alice", "bob"]}, {"readers": ["alice", "bob"]}, {"filter": OWNER}])
def test_restricted_bus_is_deleted_only_by_its_maker(play, given):
    maker = play.kernel("alice")
    bus = maker.opened("room", **given)
    bob = play.player("bob")
    with pytest.raises(Forbidden, match="only alice, who made it, may delete room"):
        delete(bob, bob.opened("room"))
    delete(maker, bus)


def test_open_bus_is_deleted_by_whoever_reads_and_writes_it(play):
    play.player("alice").opened("votes")
    bob = play.player("bob")
    delete(bob, bob.opened("votes"))


def test_maker_who_may_no_longer_write_cannot_delete(play):
    play.player("alice").opened("votes")
    guest = play.player("alice", may_write=False)
    with pytest.raises(Forbidden):
        delete(guest, guest.opened("votes"))


# --- presence ---------------------------------------------------------------------------------------------------------


def test_reader_is_seen_and_cannot_say_anything_of_itself(play):
    alice = play.player("alice")
    bus = alice.opened("news", writers=["alice"])
    alice.session.watch_presence(bus)
    bob = Raw(play, "bob").hello()
    (opened,) = bob.say(frames.Open(1, "server", "news"))
    (refused,) = bob.say(frames.SetPresence(opened.bus, msgspec.Raw(b"\xa4spam")))
    assert refused.code == "forbidden"
    play.settle()
    assert {seat.who.user: seat.state for seat in bus.participants.values()} == {"alice": None, "bob": None}


# --- capabilities -----------------------------------------------------------------------------------------------------


def test_capability_survives_a_restart_of_its_kernel_and_not_its_end(play):
    kernel = play.kernel("alice", "k1")
    cap = kernel.opened("shown", "kernel").cap
    kernel.lose()
    play.broker.registry.kernel_activity("k1", "restarting")
    assert play.player("bob", "page").opened("shown", "kernel", owner="k1", cap=cap).is_open
    play.do(play.broker.registry.end_kernel("k1"))
    for name in ("shown", "made afterwards"[:4]):
        with pytest.raises(NoSuchBus):
            play.player("bob", "page").opened(name, "kernel", owner="k1", cap=cap)
    again = play.kernel("alice", "k1").opened("shown", "kernel")
    assert again.cap != cap, "a kernel of the same id is another one"
    with pytest.raises(NoSuchBus):
        play.player("bob", "page").opened("shown", "kernel", owner="k1", cap=cap)


def test_unnamed_bus_of_a_kernel_ends_with_the_kernel(play):
    bus = play.kernel("alice", "k1").opened(None)
    page = play.player("bob", "page")
    shown = page.opened(bus.name, cap=bus.cap)
    play.do(play.broker.registry.end_kernel("k1"))
    play.settle()
    assert isinstance(page.refused[shown], Closed)
    with pytest.raises(NoSuchBus):
        play.player("bob", "page").opened(bus.name, cap=bus.cap)


# --- what is hidden ---------------------------------------------------------------------------------------------------


def hidden(play, name="members"):
    play.player("alice").opened(name, readers=["alice"], writers=["alice"])


@pytest.mark.parametrize("asleep", [False, True], ids=["loaded", "unloaded"])
@pytest.mark.parametrize(
    "asked",
    [
        {"create": False},
        {"create": False, "spec": {"size": 5}},
        {"create": False, "spec": {"size": 0}},
        {"spec": {"size": 0}},
        {"spec": {"colour": "red"}},
        {"spec": {"schema": {"type": "nonsense"}}},
        {"spec": {"filter": "unknown"}},
        {"spec": {"readers": ["x" * 10_000]}},
    ],
    ids=str,
)
def test_hidden_bus_answers_as_a_missing_one_in_words_and_order(play, asked, asleep):
    hidden(play)
    if asleep:
        play.restart()
    mallory = Raw(play).hello()

    def answers(name):
        said = mallory.say(frames.Open(1, "server", name, **asked), frames.Ping(2), frames.List(3))
        return [msgspec.json.encode(frame).replace(name.encode(), b"NAME") for frame in said]

    assert answers("members") == answers("nothing")


@pytest.mark.parametrize("may_write", [True, False])
def test_hidden_bus_answers_as_a_missing_one_to_a_reader_under_an_authorizer(may_write):
    play = Play(authorize=lambda who, address: (True, may_write))
    hidden_by = Raw(play, "alice")
    play.authorize = lambda who, address: (True, True)
    hidden_by.hello().say(frames.Open(1, "server", "members", {"readers": ["alice"], "writers": ["alice"]}))
    play.authorize = lambda who, address: (True, may_write)
    mallory = Raw(play).hello()

    def answers(name):
        said = mallory.say(frames.Open(1, "server", name, create=False), frames.Ping(2))
        return [msgspec.json.encode(frame).replace(name.encode(), b"NAME") for frame in said]

    assert answers("members") == answers("nothing")


def test_refused_opener_leaves_no_trace_on_a_hidden_bus(play):
    alice = play.player("alice")
    bus = alice.opened("members", readers=["alice"], writers=["alice"])
    alice.session.watch_presence(bus)
    with pytest.raises(NoSuchBus):
        play.player("mallory").opened("members")
    play.settle()
    assert {seat.who.user for seat in bus.participants.values()} == {"alice"}


# --- rights that change -----------------------------------------------------------------------------------------------


def reassess(play, player, may_write=True, groups=(), **permits):
    who = Participant("", player.who.kind, player.who.user, player.who.name, "", groups)
    found = {Address("server", "", name): permit for name, permit in permits.items()}
    play.do(play.broker.registry.reassess(player.conn, who, may_write, found, play.now))
    play.settle()


def test_reader_whose_right_was_taken_is_told_and_hears_nothing_more(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened("news"), bob.opened("news")
    alice.session.watch_presence(hers)
    ear = bob.reader(his, "start")
    reassess(play, bob, news=(False, True))
    alice.written(hers, "secret")
    assert isinstance(bob.refused[his], Closed)
    with pytest.raises(Closed, match="may no longer read"):
        ear.read_nowait()
    assert {seat.who.user for seat in hers.participants.values()} == {"alice"}


def test_writer_whose_right_was_taken_reads_on_and_is_silent(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened("news"), bob.opened("news")
    alice.session.watch_presence(hers)
    ear = bob.reader(his, "start")
    bob.session.set_presence(his, b"\xa6typing")
    bob.written(his, "spam")
    reassess(play, bob, may_write=False)
    with pytest.raises(Forbidden):
        bob.written(his, "more spam")
    assert {seat.who.user: seat.state for seat in hers.participants.values()} == {"alice": None, "bob": None}
    reassess(play, bob, may_write=True)
    assert bob.written(his, "sorry") == 2
    assert bob.values(ear) == ["spam", "sorry"]


def test_right_by_a_group_ends_with_the_group(play):
    alice = play.player("alice")
    alice.opened("staff", readers=["alice", "group:staff"], writers=["alice"])
    bob = play.player("bob", groups=("staff",))
    his = bob.opened("staff")
    reassess(play, bob, groups=("staff",))
    assert his.is_open
    reassess(play, bob, groups=())
    assert not his.is_open


def test_hub_group_s_bus_is_closed_for_who_left_the_group():
    play = Play(shared=True)
    bob = play.player("bob", groups=("staff",))
    his = bob.opened("room", "hub:staff")
    reassess(play, bob, groups=())
    assert not his.is_open


def test_right_that_was_taken_counts_for_a_new_opening(play):
    play = Play(authorize=lambda who, address: (True, True))
    bob = play.player("bob")
    bob.opened("news")
    play.authorize = lambda who, address: (False, False)
    reassess(play, bob, news=(False, False))
    with pytest.raises(NoSuchBus):
        bob.opened("news")


def test_maker_is_stamped_and_cannot_be_asked_for(play):
    assert play.player("alice").opened("votes").spec.maker == "alice"
    with pytest.raises(SpecConflict):
        play.player("bob").opened("other", maker="alice")
