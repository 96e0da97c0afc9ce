"""One bus: what a write goes through, and how its readers are served."""

from __future__ import annotations

import pytest

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import OWNER
from ebus_jupyter.errors import Conflict, Filtered, FilterUnavailable, Reject, TypeMismatch
from tests.core.play import Play, pack, unpack


def test_law_1_everyone_hears_the_writer_included(play):
    people = [play.player(user) for user in ("alice", "bob", "carol")]
    buses = [who.opened() for who in people]
    hears = [(who, who.reader(bus)) for who, bus in zip(people, buses, strict=True)]
    people[0].written(buses[0], "tea")
    assert [who.values(reader) for who, reader in hears] == [["tea"]] * 3


def test_law_3_nothing_is_delivered_before_the_log_has_it(play):
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


def test_law_3_a_killed_server_keeps_offsets_epoch_and_acked_writes(play):
    alice = play.player("alice")
    bus = alice.opened()
    hears = alice.reader(bus)
    epoch = bus.epoch
    assert alice.written(bus, "tea") == 1
    play.restart()
    alice.connect()
    assert alice.written(bus, "coffee") == 2
    assert (bus.epoch, alice.values(hears)) == (epoch, ["tea", "coffee"])


def test_law_5_a_lost_ack_is_answered_with_the_first_offset(play):
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


def test_law_5_a_retry_over_a_restart_is_still_the_same_write(play):
    alice = play.player("alice")
    bus = alice.opened(size=2)
    id_ = alice.write(bus, "first")
    alice.say()
    play.restart()
    bob = play.player("bob")
    his = bob.opened()
    for n in range(3):
        bob.written(his, n)  # what was written first is kept no more
    alice.connect()
    play.settle()
    assert alice.answer(id_) == 1


def test_law_5_a_retry_while_the_first_attempt_is_on_its_way_is_one_write(play):
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


def test_law_5_kept_but_not_reported_yet_is_answered_all_the_same(play):
    """With an engine that several servers share, the report comes later than the answer to the append."""
    alice = play.player("alice")
    bus = alice.opened()
    play.durable.on_committed(lambda entries: None)
    id_ = alice.write(bus, "tea")
    alice.say()
    alice.lose()
    alice.connect()
    play.settle()
    assert alice.answer(id_) == 1


def test_a_value_of_the_wrong_type_names_bus_path_and_what_was_expected(play):
    alice = play.player()
    bus = alice.opened(schema={"type": "object", "properties": {"weight": {"type": "number"}}})
    with pytest.raises(TypeMismatch, match=r"votes: .* at \$\.weight") as refused:
        alice.written(bus, {"weight": "heavy"})
    assert (refused.value.path, refused.value.expected) == ("$.weight", "number")


@pytest.mark.parametrize(
    ("retain", "how", "says"),
    [
        ("keys", {}, "say which with key="),
        ("log", {"key": "a"}, "leave out key="),
        ("latest", {"deleted": True}, "no keys to remove"),
    ],
)
def test_keys_belong_to_a_bus_with_keys(play, retain, how, says):
    alice = play.player()
    with pytest.raises(TypeMismatch, match=says):
        alice.written(alice.opened(retain=retain), 1, **how)


def test_echo_off_is_for_everyone_but_its_writer(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    she_hears, he_hears = alice.reader(hers), bob.reader(his)
    alice.written(hers, "boo", echo=False)
    alice.written(hers, "hello")
    assert (alice.values(she_hears), bob.values(he_hears)) == (["hello"], ["boo", "hello"])
    assert alice.values(alice.reader(hers, "start")) == ["hello"]


def test_a_private_write_is_for_those_it_names_and_its_writer(play):
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


# --- compare and set ------------------------------------------------------------------------------------------------


def test_compare_and_set_is_won_by_one_of_two(play):
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


def test_after_a_compare_and_set_writes_are_not_slowed_for_ever(play):
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
    assert play.broker._buses[bus.uri].admission.is_idle


# --- filters --------------------------------------------------------------------------------------------------------


def test_law_2_a_writers_writes_keep_their_order_through_a_slow_filter(play):
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


def test_law_5_what_was_refused_once_is_not_accepted_behind_later_writes(play):
    owner, alice = play.kernel("alice"), play.player("alice")
    owner.opened(filter=OWNER)
    bus = alice.opened()
    first, second = alice.write(bus, "first"), alice.write(bus, "second")
    play.settle()
    owner.filter = lambda value, sender: value
    owner.judge(1)
    owner.say()
    owner.lose()  # the first is refused, and so the second is not kept waiting
    alice.lose()
    owner.connect()
    alice.connect()
    play.settle()
    with pytest.raises(FilterUnavailable):
        alice.answer(first)
    assert alice.answer(second) == 1


def test_law_5_what_was_refused_at_once_is_not_accepted_from_a_copy_that_comes_later(play):
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


def test_a_filter_refuses_with_its_reason(play):
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


def test_a_filter_has_a_deadline_and_its_late_answer_counts_for_nothing(play):
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


def test_an_owner_that_leaves_answers_for_what_it_was_asked(play):
    owner, alice = play.kernel("alice"), play.player("alice")
    owner.opened(filter=OWNER)
    bus = alice.opened()
    id_ = alice.write(bus, "x")
    play.settle()
    owner.lose()
    play.settle()
    with pytest.raises(FilterUnavailable, match="lost its kernel"):
        alice.answer(id_)


# --- readers --------------------------------------------------------------------------------------------------------


def test_law_8_a_slow_reader_costs_nothing_and_is_told_what_it_missed(play):
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


def test_a_slow_reader_of_the_latest_sees_the_newest_and_missed_nothing(play):
    alice, slow = play.player("alice"), play.player("bob")
    bus = alice.opened(retain="latest")
    hears = slow.reader(slow.opened())
    slow.block()
    for n in range(10):
        alice.written(bus, n)
    slow.drain()
    play.settle()
    assert slow.values(hears) == [9]


def test_a_reader_that_is_behind_is_served_a_portion_at_a_time():
    play = Play(limits=Limits(send_bytes=500))
    alice, slow = play.player("alice"), play.player("bob")
    bus = alice.opened()
    hears = slow.reader(slow.opened())
    slow.block()
    for n in range(50):
        alice.written(bus, n)
    slow.writing_paused = False
    play.do(play.broker.resume_writing(slow.conn))
    assert 0 < sum(number for _, number in slow.inbox) < 50
    assert play.broker.is_catching_up(slow.conn)
    play.settle()
    assert slow.values(hears) == list(range(50))


def test_a_large_state_with_many_removed_keys_is_resumed_all_the_same():
    """A snapshot that takes many portions goes on below the floor, instead of beginning again for ever."""
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
def test_the_end_of_the_order_is_known_even_where_nothing_of_it_is_kept(play, retain):
    alice = play.player()
    bus = alice.opened(retain=retain)
    hears = alice.reader(bus)
    alice.written(bus, 1, **({"key": "a"} if retain == "keys" else {}))
    alice.lose()
    play.broker._buses[bus.uri].log.last = 9  # given to what was not kept
    alice.connect()
    play.settle()
    alice.values(hears)
    assert (bus.last, hears.caught_up) == (9, True)


# --- resuming -------------------------------------------------------------------------------------------------------


def test_law_4_a_resume_is_whole(play):
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


def test_law_4_or_it_says_what_is_lost(play):
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
def test_law_4_a_restored_older_store_with_the_same_epoch_is_noticed_by_the_last_id(play, retain, heard):
    alice = play.player("alice")
    bus = alice.opened(retain=retain)
    hears = alice.reader(bus)
    for n in range(3):
        alice.written(bus, n)
        assert alice.values(hears) == [n]
    play.restart()
    log = play.durable._buses[bus.uri]
    log.log.restart(0)
    log.recent.clear()
    bob = play.player("bob")
    his = bob.opened()
    for value in "abcd":
        bob.written(his, value)
    alice.connect()
    play.settle()
    assert alice.values(hears) == [("lagged", None), *heard]


def test_law_4_a_resume_is_whole_however_few_ids_are_remembered():
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


def test_frames_are_encoded_once_for_all(play):
    alice = play.player("alice")
    bus = alice.opened()
    others = [play.player(f"u{n}") for n in range(3)]
    for other in others:
        other.reader(other.opened())
    alice.write(bus, "tea")
    alice.say()
    assert len({id(other.inbox[0][0]) for other in others}) == 1
    assert pack("tea") in others[0].inbox[0][0]
