"""A reader: history, then live, with nothing twice and nothing left out."""

from __future__ import annotations

import pytest

from ebus_jupyter.core.client.reader import Reader
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.errors import Closed
from tests.core.play import Play, Player


def spoken(play: Play, *values: object, **given: object):
    """Alice has written these."""
    alice = play.player("alice")
    bus = alice.opened(**given)
    for value in values:
        alice.written(bus, value)
    return alice, bus


@pytest.mark.parametrize(
    ("since", "heard"),
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
def test_it_begins_where_it_is_asked_to(play, since, heard):
    alice, bus = spoken(play, *range(5))
    bob = play.player("bob")
    for who, its in ((alice, bus), (bob, bob.opened())):
        reader = who.reader(its, since)
        assert who.values(reader) == heard
    alice.written(bus, "live")
    assert bob.values(reader) == ["live"]


@pytest.mark.parametrize("since", ["start", 0, 3, -17])
def test_history_comes_in_pages_while_others_write_on(since):
    play = Play(limits=Limits(page_bytes=200))
    alice, bus = spoken(play, *range(20))
    bob = play.player("bob")
    reader = bob.reader(bob.opened(), since)
    heard = []
    for n in range(20, 30):
        alice.written(bus, n)
        bob.turn(reader)
        item = reader.read_nowait()
        heard += [] if item is None else [item.offset - 1]
    heard += bob.values(reader)
    assert heard == list(range(0 if since in ("start", 0) else 3, 30))


def test_an_offset_that_is_kept_no_more_is_a_lag(play):
    _, _ = spoken(play, *range(6), size=3)
    bob = play.player("bob")
    bus = bob.opened()
    assert bob.values(bob.reader(bus, 1)) == [("lagged", 2), 3, 4, 5]
    assert bob.values(bob.reader(bus, "start")) == [3, 4, 5]


def test_an_offset_from_the_future_is_from_another_history(play):
    spoken(play, 0, 1)
    bob = play.player("bob")
    assert bob.values(bob.reader(bob.opened(), 99)) == [("lagged", None), 0, 1]


def test_history_that_is_dropped_while_it_is_read_is_a_lag():
    play = Play(limits=Limits(page_bytes=150))
    alice, bus = spoken(play, *range(5), size=5)
    bob = play.player("bob")
    reader = bob.reader(bob.opened(), "start")
    bob.turn(reader)
    first = reader.read_nowait()
    assert first is not None
    for n in range(5, 10):
        alice.written(bus, n)
    heard = bob.values(reader)
    assert any(value for value in heard if isinstance(value, tuple))
    assert heard[-5:] == [5, 6, 7, 8, 9]


def test_a_slow_program_lags_behind_its_own_log(play):
    alice, bus = spoken(play, size=3)
    slow, quick = alice.reader(bus), alice.reader(bus)
    for n in range(5):
        alice.written(bus, n)
        assert alice.values(quick) == [n]
    assert alice.values(slow) == [("lagged", 2), 2, 3, 4]


def test_readers_are_independent_and_a_clone_goes_on_by_itself(play):
    alice, bus = spoken(play, size=9)
    reader = alice.reader(bus)
    for n in range(3):
        alice.written(bus, n)
    assert reader.read_nowait().offset == 1
    twin = reader.clone()
    assert alice.values(reader) == alice.values(twin) == [1, 2]


def test_a_clone_in_the_middle_of_history():
    play = Play(limits=Limits(page_bytes=200))
    alice, bus = spoken(play, *range(9))
    reader = alice.reader(bus, "start")
    req = reader.request_page()
    twin = reader.clone()
    alice._readers[req] = reader
    play.settle()
    assert alice.values(reader) == alice.values(twin) == list(range(9))


def test_one_bus_with_six_listeners_from_one_starting_point(play):
    alice, bus = spoken(play, "before")
    readers = [alice.reader(bus, 1) for _ in range(6)]
    alice.written(bus, "after")
    assert [alice.values(reader) for reader in readers] == [["after"]] * 6


def test_a_stream_made_before_the_bus_is_open_hears_from_its_opening_on(play):
    alice = play.player("alice")
    bus = alice.open("votes")
    reader = Reader(alice.session, bus)
    id_ = alice.write(bus, "first")
    play.settle()
    assert alice.answer(id_) == 1
    assert alice.values(reader) == ["first"]


def removing(play: Play) -> tuple[Player, object, Player, Reader, object]:
    alice, bus = spoken(play, retain="keys", size=2)
    alice.written(bus, 1, key="stays")
    slow = play.player("bob")
    its = slow.opened()
    reader = slow.reader(its, "start")
    assert slow.values(reader) == [1]
    return alice, bus, slow, reader, its


def test_a_slow_program_that_missed_removals_reads_the_whole_state_again(play):
    alice, bus, slow, reader, _ = removing(play)
    for n in range(5):
        alice.written(bus, n, key=f"k{n}")
        alice.written(bus, None, key=f"k{n}", deleted=True)
    heard = slow.values(reader)
    assert heard[0][0] == "lagged"
    assert heard.count(1) == 1, "what stays is part of the state, though it was heard long ago"
    assert reader.caught_up
    assert slow.values(reader) == []


def test_a_large_state_with_many_removed_keys_is_read_in_pages_all_the_same():
    play = Play(limits=Limits(page_bytes=200))
    alice, bus = spoken(play, retain="keys", size=5)
    for key in "abcd":
        alice.written(bus, "x" * 150, key=key)
    for n in range(20):
        alice.written(bus, n, key=f"k{n}")
        alice.written(bus, None, key=f"k{n}", deleted=True)
    bob = play.player("bob")
    reader = bob.reader(bob.opened(), "start")
    heard = bob.values(reader)
    assert heard[:4] == ["x" * 150] * 4
    assert not [value for value in heard if isinstance(value, tuple)]
    assert reader.caught_up


def test_an_offset_below_the_removals_that_are_remembered_begins_with_the_whole_state(play):
    alice, bus, _, _, _ = removing(play)
    for n in range(5):
        alice.written(bus, n, key=f"k{n}")
        alice.written(bus, None, key=f"k{n}", deleted=True)
    carol = play.player("carol")
    heard = carol.values(carol.reader(carol.opened(), 1))
    assert heard[0][0] == "lagged"
    assert heard[1] == 1


def test_law_9_what_has_arrived_is_read_before_the_end_is_told(play):
    alice, bus = spoken(play)
    reader = alice.reader(bus)
    alice.written(bus, "last words")
    alice.session.leave(bus)
    item = reader.read_nowait()
    assert item is not None
    assert item.offset == 1
    for _ in range(2):
        with pytest.raises(Closed):
            reader.read_nowait()


def test_caught_up_is_false_until_what_was_missed_is_here(play):
    alice, bus = spoken(play)
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
