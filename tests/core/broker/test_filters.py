"""Filters: in the kernel that owns the bus, and in the server."""

from __future__ import annotations

import msgspec
import pytest

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import OWNER
from ebus_jupyter.errors import Filtered, FilterUnavailable, Forbidden, Reject, SpecConflict, TypeMismatch
from tests.core.play import Play, Raw, pack, unpack

# --- in the owner's kernel --------------------------------------------------------------------------------------------


def test_law_2_filter_keeps_each_writers_order(play):
    owner, alice, bob = play.kernel("alice"), play.player("alice"), play.player("bob")
    owner.opened(filter=OWNER)
    hers, his = alice.opened(), bob.opened()
    for n in range(3):
        alice.write(hers, n)
    bob.write(his, "quick")
    play.settle()
    owner.filter = lambda value, sender: value
    while owner.asked:
        owner.judge(-1)
        play.settle()
    assert [unpack(entry.value) for entry in play.kept] == ["quick", 0, 1, 2]


def test_law_5_refused_write_is_not_accepted_by_a_retry(play):
    owner, alice = play.kernel("alice"), play.player("alice")
    owner.opened(filter=OWNER)
    bus = alice.opened()
    first, second = alice.write(bus, "first"), alice.write(bus, "second")
    play.settle()
    owner.filter = lambda value, sender: value
    owner.judge(1)
    owner.say()
    owner.lose()  # the first write is refused, so the second one stops waiting
    alice.lose()
    owner.connect()
    alice.connect()
    play.settle()
    with pytest.raises(FilterUnavailable):
        alice.answer(first)
    assert alice.answer(second) == 1


def test_law_5_refused_write_is_not_accepted_from_a_late_copy(play):
    owner, alice = play.kernel("alice"), play.player("alice")
    owner.opened(filter=OWNER)
    bus = alice.opened()
    owner.filter = lambda value, sender: value
    owner.lose()
    id_ = alice.write(bus, "tea")
    copy = frames.join([frames.encode(bus.unacked[id_])])
    play.settle()
    owner.connect()
    play.settle()
    alice.send(copy)
    play.settle()
    with pytest.raises(FilterUnavailable):
        alice.answer(id_)
    assert play.kept == []


def test_filter_rejects_with_its_reason(play):
    owner, alice = play.kernel("alice"), play.player("alice")
    owner.opened(filter=OWNER)

    def polite(value, sender):
        if value == "damn":
            raise Reject("language!")
        return value

    owner.filter = polite
    bus = alice.opened()
    with pytest.raises(Filtered, match="votes: language!") as refused:
        alice.written(bus, "damn")
    assert refused.value.reason == "language!"
    assert alice.written(bus, "oh dear") == 1


def test_late_filter_answer_is_ignored(play):
    owner, alice = play.kernel("alice"), play.player("alice")
    owner.opened(filter=OWNER)
    bus = alice.opened()
    id_ = alice.write(bus, "x")
    play.settle()
    play.pass_time(play.limits.filter_seconds)
    owner.filter = lambda value, sender: value
    owner.judge()
    play.settle()
    with pytest.raises(FilterUnavailable, match="did not answer within 5 s"):
        alice.answer(id_)
    assert play.kept == []


def test_pending_writes_are_refused_when_the_owner_leaves(play):
    owner, alice = play.kernel("alice"), play.player("alice")
    owner.opened(filter=OWNER)
    bus = alice.opened()
    id_ = alice.write(bus, "x")
    play.settle()
    owner.lose()
    play.settle()
    with pytest.raises(FilterUnavailable, match="lost its kernel"):
        alice.answer(id_)


def test_only_the_makers_user_can_filter(play):
    play.kernel("alice", "k1").opened("clean", filter=OWNER)
    with pytest.raises(Forbidden, match="filtered by alice"):
        play.kernel("mallory", "k2").opened("clean", filter=OWNER)
    bob = play.player("bob")
    bus = bob.opened("clean")
    id_ = bob.write(bus, "x")
    bob.say()
    mallory = Raw(play).hello()
    (opened,) = mallory.say(frames.Open(1, "server", "clean"))
    assert mallory.say(*(frames.FilterAnswer(opened.bus, ask, msgspec.Raw(pack("forged"))) for ask in range(5))) == []
    assert play.kept == []
    assert id_ not in bob.answers


def test_nothing_is_accepted_while_the_owner_is_away(play):
    owner, bob = play.kernel("alice", "k1"), play.player("bob")
    owner.opened("clean", filter=OWNER)
    bus = bob.opened("clean")
    owner.lose()
    with pytest.raises(FilterUnavailable, match="nothing is accepted unfiltered"):
        bob.written(bus, "x")
    owner.connect()
    owner.filter = lambda value, sender: value.upper()
    play.settle()
    assert bob.written(bus, "x") == 1
    assert unpack(play.kept[0].value) == "X"


def test_nothing_overtakes_a_compare_and_set_in_the_filter(play):
    owner, alice, bob = play.kernel("alice"), play.player("alice"), play.player("bob")
    owner.opened(filter=OWNER)
    hers, his = alice.opened(), bob.opened()
    compared = alice.write(hers, "compared", expect=0)
    play.settle()
    overtaking = bob.write(his, "overtaking")
    play.settle()
    owner.filter = lambda value, sender: value
    while owner.asked:
        owner.judge(-1)
        play.settle()
    assert (alice.answer(compared), bob.answer(overtaking)) == (1, 2)


# --- in the server ----------------------------------------------------------------------------------------------------


def test_server_filter_sees_the_sender_and_changes_the_value():
    play = Play(filters={"stamp": lambda value, sender: f"{sender.user}: {value}"})
    alice, bob = play.player("alice"), play.player("bob")
    bus = alice.opened(filter="stamp", emits={"type": "string"}, schema={"type": "string"})
    hears = bob.reader(bob.opened())
    alice.written(bus, "hi")
    assert bob.values(hears) == ["alice: hi"]


def test_server_filter_answer_must_match_the_emitted_type():
    play = Play(filters={"stamp": lambda value, sender: 5})
    alice = play.player("alice")
    bus = alice.opened(filter="stamp", emits={"type": "string"})
    with pytest.raises(TypeMismatch, match="its filter's answer"):
        alice.written(bus, "hi")
    assert play.kept == []


# --- whose filter it is -----------------------------------------------------------------------------------------------


def test_opener_is_told_whose_filter_a_bus_has():
    play = Play(filters={"stamp": lambda value, sender: value})
    play.kernel("mallory").opened("owned", filter=OWNER)
    play.player("mallory").opened("stamped", filter="stamp")
    alice = play.player("alice")
    told = {name: alice.opened(name).spec.filtered_by for name in ("owned", "stamped", "plain")}
    assert told == {"owned": "user:mallory", "stamped": "server:stamp", "plain": ""}


@pytest.mark.parametrize("filter_", [OWNER, "stamp"])
def test_opener_who_insists_on_no_filter_is_told_whose_there_is(filter_):
    play = Play(filters={"stamp": lambda value, sender: value})
    play.kernel("mallory").opened("lobby", filter=filter_)
    with pytest.raises(SpecConflict, match=r"It is filtered by (user:mallory|server:stamp)"):
        play.player("alice").opened("lobby", filter=None)


@pytest.mark.parametrize("kept", [True, False], ids=["line cut", "server restarted"])
def test_insistence_on_no_filter_is_repeated_at_each_reopening(play, kept):
    alice, mallory = play.player("alice"), play.kernel("mallory")
    bus = alice.opened("lobby", filter=None, retain="log", size=500)
    alice.lose()
    mallory.reply(mallory.session.delete(mallory.opened("lobby")))
    mallory.opened("lobby", filter=OWNER, size=500)
    if not kept:
        play.restart()
        mallory.connect()
    alice.connect()
    play.settle()
    assert isinstance(alice.refused[bus], SpecConflict)


def test_insistence_of_a_second_opening_holds_for_the_bus(play):
    alice, mallory = play.player("alice"), play.kernel("mallory")
    bus = alice.opened("lobby")
    alice.reply(alice.session.reopen(bus, {"filter": None}))
    alice.lose()
    mallory.reply(mallory.session.delete(mallory.opened("lobby")))
    mallory.opened("lobby", filter=OWNER)
    alice.connect()
    play.settle()
    assert isinstance(alice.refused[bus], SpecConflict)
