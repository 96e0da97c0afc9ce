"""Writes on their way into a bus: order, retries, checks, compare-and-set."""

from __future__ import annotations

import pytest

from ebus_jupyter.errors import BackendError, Conflict, Forbidden, Rejected, TypeMismatch
from tests.core.logs import SharedLogs
from tests.core.play import Play
from tests.core.player import unpack


def test_law_1_everyone_receives_a_write_its_writer_included(play):
    people = [play.player(user) for user in ("alice", "bob", "carol")]
    buses = [who.opened() for who in people]
    hears = [(who, who.reader(bus)) for who, bus in zip(people, buses, strict=True)]
    people[0].written(buses[0], "tea")
    assert [who.values(reader) for who, reader in hears] == [["tea"]] * 3


def test_law_3_nothing_is_delivered_before_it_is_committed(play):
    alice, bob = play.player("alice"), play.player("bob")
    bus = alice.opened()
    hears = bob.reader(bob.opened())
    play.logs_work = False
    id_ = alice.write(bus, "tea")
    play.settle()
    assert bob.values(hears) == []
    assert id_ not in alice.answers
    play.logs_work = True
    play.settle()
    assert bob.values(hears) == ["tea"]
    assert alice.answer(id_) == 1


def test_law_3_offsets_epoch_and_acked_writes_survive_a_kill(play):
    alice = play.player("alice")
    bus = alice.opened()
    hears = alice.reader(bus)
    epoch = bus.epoch
    assert alice.written(bus, "tea") == 1
    play.restart()
    alice.connect()
    assert alice.written(bus, "coffee") == 2
    assert (bus.epoch, alice.values(hears)) == (epoch, ["tea", "coffee"])


def test_law_2_write_that_the_log_refused_does_not_come_behind_later_ones(play):
    alice = play.player("alice")
    bus = alice.opened()
    play.failing = BackendError("the disk is full.")
    early = alice.write(bus, "early")
    alice.say()
    play.work()
    alice.inbox.clear()  # its refusal is lost with the line
    play.failing = None
    late = alice.write(bus, "late")
    alice.say()
    alice.lose()
    alice.connect()
    play.settle()
    assert [unpack(entry.value) for entry in play.kept] == ["late"]
    assert alice.answer(late) == 1
    with pytest.raises(Rejected, match="came before"):
        alice.answer(early)


def test_law_2_write_that_the_log_refused_does_not_come_behind_one_in_flight(play):
    alice = play.player("alice")
    bus = alice.opened()
    play.failing = BackendError("the disk is full.")
    early = alice.write(bus, "early")
    alice.say()
    play.work()
    alice.inbox.clear()  # its refusal is lost with the line
    play.failing, play.logs_work = None, False
    late = alice.write(bus, "late")
    alice.say()
    alice.lose()
    alice.connect()
    play.settle()
    play.logs_work = True
    play.settle()
    assert [unpack(entry.value) for entry in play.kept] == ["late"]
    assert alice.answer(late) == 1
    with pytest.raises(BackendError):
        alice.answer(early)


def test_law_5_copy_of_a_write_that_the_log_refused_is_refused_on_its_connection(play):
    alice = play.player("alice")
    bus = alice.opened()
    play.failing = BackendError("the disk is full.")
    id_ = alice.write(bus, "tea")
    sent = alice.session.data_to_send()
    alice.send(sent)
    play.settle()
    play.failing = None
    with pytest.raises(BackendError):
        alice.answer(id_)
    alice.send(sent)
    play.settle()
    assert play.kept == []


def test_write_that_the_log_refused_may_be_tried_again_over_another_connection(play):
    alice = play.player("alice")
    bus = alice.opened()
    play.failing = BackendError("the disk is full.")
    id_ = alice.write(bus, "tea")
    alice.say()
    play.work()
    alice.inbox.clear()  # its refusal is lost with the line
    play.failing = None
    alice.lose()
    alice.connect()
    play.settle()
    assert alice.answer(id_) == 1


# --- retries ----------------------------------------------------------------------------------------------------------


def test_law_5_retry_after_a_lost_ack_gets_the_first_offset(play):
    alice = play.player("alice")
    bus = alice.opened()
    hears = alice.reader(bus)
    id_ = alice.write(bus, "tea")
    alice.say()
    alice.lose()
    alice.connect()
    play.settle()
    assert alice.answer(id_) == 1
    assert alice.values(hears) == ["tea"]
    assert len(play.kept) == 1


def test_law_5_retry_after_a_restart_is_the_same_write(play):
    alice = play.player("alice")
    bus = alice.opened(size=2)
    id_ = alice.write(bus, "first")
    alice.say()
    play.restart()
    bob = play.player("bob")
    his = bob.opened()
    for n in range(3):
        bob.written(his, n)  # the first write is no longer in the log
    alice.connect()
    play.settle()
    assert alice.answer(id_) == 1


def test_law_5_retry_of_a_write_in_flight_is_the_same_write(play):
    alice = play.player("alice")
    bus = alice.opened()
    play.logs_work = False
    id_ = alice.write(bus, "tea")
    alice.say()
    alice.lose()
    alice.connect()
    for _ in range(3):
        alice.say(), alice.hear()
    play.logs_work = True
    play.settle()
    assert (alice.answer(id_), len(play.kept)) == (1, 1)


def test_law_5_retry_is_answered_before_the_feed_reports_the_write():
    """The feed of an engine that several servers share may be later than its acknowledgement."""
    play = Play(logs=SharedLogs())
    alice = play.player("alice")
    bus = alice.opened()
    id_ = alice.write(bus, "tea")
    alice.say()
    alice.lose()
    alice.connect()
    play.settle()
    assert alice.answer(id_) == 1


# --- checks -----------------------------------------------------------------------------------------------------------


def test_type_error_names_bus_path_and_expected_type(play):
    alice = play.player()
    bus = alice.opened(schema={"type": "object", "properties": {"weight": {"type": "number"}}})
    with pytest.raises(TypeMismatch, match=r"votes: .* at \$\.weight") as refused:
        alice.written(bus, {"weight": "heavy"})
    assert (refused.value.path, refused.value.expected) == ("$.weight", "float")


@pytest.mark.parametrize(
    ("retain", "how", "says"),
    [
        ("keys", {}, "say which with key="),
        ("log", {"key": "a"}, "leave out key="),
        ("latest", {"deleted": True}, "no keys to remove"),
    ],
)
def test_key_must_match_the_retention(play, retain, how, says):
    alice = play.player()
    with pytest.raises(TypeMismatch, match=says):
        alice.written(alice.opened(retain=retain), 1, **how)


def test_write_without_echo_skips_its_writer(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    she_hears, he_hears = alice.reader(hers), bob.reader(his)
    alice.written(hers, "boo", echo=False)
    alice.written(hers, "hello")
    assert (alice.values(she_hears), bob.values(he_hears)) == (["hello"], ["boo", "hello"])
    assert alice.values(alice.reader(hers, "start")) == ["hello"]


def test_private_write_reaches_named_users_and_its_writer(play):
    alice, bob, eve = play.player("alice"), play.player("bob"), play.player("eve")
    hers, his, eves = alice.opened(), bob.opened(), eve.opened()
    heard = [(alice, alice.reader(hers)), (bob, bob.reader(his)), (eve, eve.reader(eves))]
    alice.written(hers, "psst", to=["bob"])
    assert [who.values(reader) for who, reader in heard] == [["psst"], ["psst"], []]
    assert eve.values(eve.reader(eves, "start")) == []
    eve.lose()
    alice.written(hers, "psst psst", to=["bob"])
    eve.connect()
    play.settle()
    assert eve.values(heard[2][1]) == []
    assert eves.last == 2, "the order went on, and eve knows that much"


@pytest.mark.parametrize("retain", ["keys", "latest"])
@pytest.mark.parametrize(("how", "says"), [({"to": ["bob"]}, "to="), ({"echo": False}, "echo=False")])
def test_write_for_some_is_refused_where_all_hold_one_state(play, retain, how, says):
    alice = play.player()
    key = {"key": "a"} if retain == "keys" else {}
    with pytest.raises(TypeMismatch, match=f"everyone holds the same state, so {says}"):
        alice.written(alice.opened(retain=retain), 1, **key, **how)


def test_private_write_reaches_the_members_of_a_group(play):
    alice, ta = play.player("alice"), play.player("tom", groups=("ta",))
    impostor = play.player("group:ta")
    people = [(who, who.opened()) for who in (alice, ta, impostor)]
    heard = [(who, who.reader(bus)) for who, bus in people]
    alice.written(people[0][1], "help", to=["group:ta"])
    assert [who.values(reader) for who, reader in heard] == [["help"], ["help"], []]
    assert [who.values(who.reader(bus, "start")) for who, bus in people] == [["help"], ["help"], []]


def test_write_to_a_group_is_refused_where_nobody_has_groups(play):
    alice = play.player("alice")
    with pytest.raises(Forbidden, match="put nobody in a group"):
        alice.written(alice.opened(), "help", to=["group:ta"])


# --- compare and set --------------------------------------------------------------------------------------------------


def test_compare_and_set_accepts_one_of_two(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    play.logs_work = False
    first, second = alice.write(hers, "white", expect=0), bob.write(his, "black", expect=0)
    play.settle()
    play.logs_work = True
    play.settle()
    assert alice.answer(first) == 1
    with pytest.raises(Conflict, match="at offset 1, not 0: someone wrote first") as refused:
        bob.answer(second)
    assert refused.value.actual == 1


def test_compare_and_set_of_one_key(play):
    alice = play.player()
    bus = alice.opened(retain="keys")
    alice.written(bus, 1, key="a")
    alice.written(bus, 1, key="b")
    assert alice.written(bus, 2, key="a", expect=1) == 3
    assert alice.written(bus, 1, key="new", expect=0) == 4
    with pytest.raises(Conflict, match=r"votes\['b'\]"):
        alice.written(bus, 2, key="b", expect=1)


def test_writes_behind_a_compare_and_set_are_released_together(play):
    alice = play.player()
    bus = alice.opened()
    play.logs_work = False
    for n in range(3):
        alice.write(bus, n)
    alice.write(bus, "compared", expect=3)
    for n in range(50):
        alice.write(bus, n)
    alice.say()
    play.logs_work = True
    play.work()
    assert len(play.kept) == 54
    assert play.broker.registry.buses[bus.uri].admission.is_idle
