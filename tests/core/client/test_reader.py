"""Readers: history, then live messages, with nothing twice and nothing left out."""

from __future__ import annotations

import pytest

from ebus_jupyter.core.client.reader import Reader
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.position import Position
from ebus_jupyter.errors import Closed
from tests.core.play import Play, Player, Raw


def bus_with(play: Play, *values: object, **given: object):
    """A bus to which alice has written ``values``."""
    alice = play.player("alice")
    bus = alice.opened(**given)
    for value in values:
        alice.written(bus, value)
    return alice, bus


@pytest.mark.parametrize(
    ("since", "read"),
    [
        (None, []),
        ("start", [0, 1, 2, 3, 4]),
        (0, [0, 1, 2, 3, 4]),
        (2, [2, 3, 4]),
        (5, []),
        (-2, [3, 4]),
        (-99, [0, 1, 2, 3, 4]),
    ],
)
def test_reader_begins_at_since(play, since, read):
    alice, bus = bus_with(play, *range(5))
    bob = play.player("bob")
    for who, its in ((alice, bus), (bob, bob.opened())):
        reader = who.reader(its, since)
        assert who.values(reader) == read
    alice.written(bus, "live")
    assert bob.values(reader) == ["live"]


@pytest.mark.parametrize("since", ["start", 0, 3, -17])
def test_history_is_paged_while_others_write(since):
    play = Play(limits=Limits(page_bytes=200))
    alice, bus = bus_with(play, *range(20))
    bob = play.player("bob")
    reader = bob.reader(bob.opened(), since)
    read = []
    for n in range(20, 30):
        alice.written(bus, n)
        bob.turn(reader)
        item = reader.read_nowait()
        read += [] if item is None else [item.offset - 1]
    read += bob.values(reader)
    assert read == list(range(0 if since in ("start", 0) else 3, 30))


def test_dropped_offset_lags(play):
    _, _ = bus_with(play, *range(6), size=3)
    bob = play.player("bob")
    bus = bob.opened()
    assert bob.values(bob.reader(bus, 1)) == [("lagged", 2), 3, 4, 5]
    assert bob.values(bob.reader(bus, "start")) == [3, 4, 5]


def test_offset_beyond_the_end_lags_and_rereads_everything(play):
    bus_with(play, 0, 1)
    bob = play.player("bob")
    assert bob.values(bob.reader(bob.opened(), 99)) == [("lagged", None), 0, 1]


def test_history_dropped_while_paging_lags():
    play = Play(limits=Limits(page_bytes=150))
    alice, bus = bus_with(play, *range(5), size=5)
    bob = play.player("bob")
    reader = bob.reader(bob.opened(), "start")
    bob.turn(reader)
    first = reader.read_nowait()
    assert first is not None
    for n in range(5, 10):
        alice.written(bus, n)
    read = bob.values(reader)
    assert any(value for value in read if isinstance(value, tuple))
    assert read[-5:] == [5, 6, 7, 8, 9]


def test_slow_program_lags_behind_the_channels_log(play):
    alice, bus = bus_with(play, size=3)
    slow, quick = alice.reader(bus), alice.reader(bus)
    for n in range(5):
        alice.written(bus, n)
        assert alice.values(quick) == [n]
    assert alice.values(slow) == [("lagged", 2), 2, 3, 4]


def test_clone_continues_independently(play):
    alice, bus = bus_with(play, size=9)
    reader = alice.reader(bus)
    for n in range(3):
        alice.written(bus, n)
    assert reader.read_nowait().offset == 1
    twin = reader.clone()
    assert alice.values(reader) == alice.values(twin) == [1, 2]


def test_clone_while_a_page_is_requested():
    play = Play(limits=Limits(page_bytes=200))
    alice, bus = bus_with(play, *range(9))
    reader = alice.reader(bus, "start")
    req = reader.request_page()
    twin = reader.clone()
    alice._readers[req] = reader
    play.settle()
    assert alice.values(reader) == alice.values(twin) == list(range(9))


def test_many_readers_begin_at_one_offset(play):
    alice, bus = bus_with(play, "before")
    readers = [alice.reader(bus, 1) for _ in range(6)]
    alice.written(bus, "after")
    assert [alice.values(reader) for reader in readers] == [["after"]] * 6


def test_reader_made_before_the_bus_is_open_misses_nothing(play):
    alice = play.player("alice")
    bus = alice.open("votes")
    reader = Reader(alice.session, bus)
    id_ = alice.write(bus, "first")
    play.settle()
    assert alice.answer(id_) == 1
    assert alice.values(reader) == ["first"]


def removing(play: Play) -> tuple[Player, object, Player, Reader, object]:
    alice, bus = bus_with(play, retain="keys", size=2)
    alice.written(bus, 1, key="stays")
    slow = play.player("bob")
    its = slow.opened()
    reader = slow.reader(its, "start")
    assert slow.values(reader) == [1]
    return alice, bus, slow, reader, its


def test_slow_program_that_missed_removals_rereads_the_whole_state(play):
    alice, bus, slow, reader, _ = removing(play)
    for n in range(5):
        alice.written(bus, n, key=f"k{n}")
        alice.written(bus, None, key=f"k{n}", deleted=True)
    read = slow.values(reader)
    assert read[0][0] == "lagged"
    assert read.count(1) == 1, "the key that stays is part of the state, though it was read long ago"
    assert reader.caught_up
    assert slow.values(reader) == []


def test_large_state_with_many_removed_keys_is_paged():
    play = Play(limits=Limits(page_bytes=200))
    alice, bus = bus_with(play, retain="keys", size=5)
    for key in "abcd":
        alice.written(bus, "x" * 150, key=key)
    for n in range(20):
        alice.written(bus, n, key=f"k{n}")
        alice.written(bus, None, key=f"k{n}", deleted=True)
    bob = play.player("bob")
    reader = bob.reader(bob.opened(), "start")
    read = bob.values(reader)
    assert read[:4] == ["x" * 150] * 4
    assert not [value for value in read if isinstance(value, tuple)]
    assert reader.caught_up


def test_offset_before_forgotten_removals_rereads_the_whole_state(play):
    alice, bus, _, _, _ = removing(play)
    for n in range(5):
        alice.written(bus, n, key=f"k{n}")
        alice.written(bus, None, key=f"k{n}", deleted=True)
    carol = play.player("carol")
    read = carol.values(carol.reader(carol.opened(), 1))
    assert read[0][0] == "lagged"
    assert read[1] == 1


def test_law_9_arrived_messages_are_read_before_the_close(play):
    alice, bus = bus_with(play)
    reader = alice.reader(bus)
    alice.written(bus, "last words")
    alice.session.leave(bus)
    item = reader.read_nowait()
    assert item is not None
    assert item.offset == 1
    for _ in range(2):
        with pytest.raises(Closed):
            reader.read_nowait()


def test_caught_up_is_false_until_missed_messages_arrive(play):
    alice, bus = bus_with(play)
    reader = alice.reader(bus)
    assert alice.values(reader) == []
    assert reader.caught_up
    bob = play.player("bob")
    his = bob.opened()
    alice.lose()
    bob.written(his, 1)
    alice.connect()
    alice.say(), alice.hear()  # welcome, opened
    alice.say(), alice.hear(1)  # subscribed
    assert not reader.caught_up
    play.settle()
    assert alice.values(reader) == [1]
    assert reader.caught_up


def test_last_n_are_the_last_that_the_reader_may_see(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    for n in range(6):
        alice.written(hers, n)
    for n in range(10):
        alice.written(hers, n, to=["alice"])
    assert bob.values(bob.reader(his, -3)) == [3, 4, 5]
    assert bob.values(bob.reader(his, -99)) == [0, 1, 2, 3, 4, 5]
    assert alice.values(alice.reader(hers, -3)) == [7, 8, 9]


# --- positions ------------------------------------------------------------------------------------------------------


def test_reader_continues_after_a_position(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    reader = alice.reader(hers)
    for n in range(3):
        bob.written(his, n)
    assert alice.values(reader) == [0, 1, 2]
    position = hers.position
    bob.written(his, "hidden", to=["bob"])
    bob.written(his, "next")
    assert hers.position == position._replace(offset=5, id=position.id[:-1] + "5")
    assert alice.values(alice.reader(hers, position)) == ["next"]
    late = play.player("alice")
    assert late.values(late.reader(late.opened(), position)) == ["next"]
    assert late.values(late.reader(late.opened("votes"), Position())) == []


@pytest.mark.parametrize("again", ["a", "longer than before"])
def test_law_4_position_of_another_history_is_lagged(play, again):
    alice = play.player()
    bus = alice.opened()
    reader = alice.reader(bus)
    alice.written(bus, "old")
    assert alice.values(reader) == ["old"]
    position = bus.position
    alice.reply(alice.session.delete(bus))
    bus = alice.opened()
    for letter in again:
        alice.written(bus, letter)
    assert alice.values(alice.reader(bus, position)) == [("lagged", None), *again]


@pytest.mark.parametrize("live", [True, False])
def test_law_4_position_in_a_restored_store_is_told_by_its_id(play, live):
    alice = play.player()
    bus = alice.opened()
    if live:
        alice.reader(bus)
    for letter in "abc":
        alice.written(bus, letter)
    other = Position(bus.epoch, 2, f"{'0' * 16}-2")
    assert alice.values(alice.reader(bus, other)) == [("lagged", None), "a", "b", "c"]


def test_law_4_hidden_messages_do_not_hide_another_history(play):
    """The subscriber's last message was for somebody else, so that the id of the one before must tell."""
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    reader = alice.reader(hers)
    bob.written(his, "old")
    bob.written(his, "secret", to=["bob"])
    assert alice.values(reader) == ["old"]
    asked = hers.subscription()
    assert (asked.after, asked.id_offset) == (2, 1)
    raw = Raw(play).hello()
    (opened,) = raw.say(frames.Open(1, "server", "votes"))
    for last_id, recovered in ((asked.last_id, True), ("ab-1", False)):
        answer = raw.say(frames.Subscribe(2, opened.bus, asked.epoch, 2, last_id, 1))[0]
        assert answer.recovered is recovered
