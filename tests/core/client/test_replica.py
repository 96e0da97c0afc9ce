"""Replicas: one copy of a shared state, and many that end equal."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebus_jupyter.core.client.replica import MISSING, Change, Replica


def test_own_write_is_shown_at_once():
    mine = Replica()
    assert mine.write("x", 1) == (Change("x", MISSING, 1, local=True), True)
    assert (mine.shown("x"), list(mine.keys()), mine.busy) == (1, ["x"], True)


def test_dragged_slider_never_jumps_back():
    mine = Replica()
    mine.write("x", 1)
    assert mine.apply("x", 1, "somebody's") == []
    assert mine.write("x", 2)[1] is False, "a write has no answer: this one waits"
    assert mine.write("x", 3)[1] is False, "and this one replaces it"
    assert mine.apply("x", 2, 1) == []
    assert mine.accepted("x", 2) == ([], True)
    assert mine.shown("x") == 3
    mine.apply("x", 3, 3)
    assert mine.accepted("x", 3) == ([], False)
    assert not mine.busy


def test_later_write_of_another_is_shown_after_our_ack():
    mine = Replica()
    mine.write("x", "mine")
    mine.apply("x", 1, "mine")
    assert mine.apply("x", 2, "theirs") == []
    assert mine.accepted("x", 1) == ([Change("x", "mine", "theirs", local=False)], False)


def test_refused_write_restores_the_brokers_value():
    mine = Replica()
    mine.apply("x", 1, "theirs")
    mine.write("x", "mine")
    assert mine.refused("x") == ([Change("x", "mine", "theirs", local=False)], False)


def test_ack_may_precede_its_message_or_follow_a_removal():
    mine = Replica()
    mine.write("x", 1)
    mine.apply("x", 2, MISSING)
    assert mine.accepted("x", 1)[0] == [Change("x", 1, MISSING, local=False)]
    mine.write("y", 1)
    mine.accepted("y", 5)
    assert mine.apply("y", 5, 1) == []
    assert list(mine.keys()) == ["y"]


def test_snapshot_replaces_the_state_without_flicker():
    mine = Replica()
    mine.apply("stays", 1, "a")
    mine.apply("goes", 2, "b")
    mine.begin_snapshot()
    assert (mine.shown("stays"), mine.shown("goes")) == ("a", "b")
    assert mine.apply("stays", 1, "a") == []
    assert mine.end_snapshot() == [Change("goes", "b", MISSING, local=False)]


def test_write_during_a_snapshot_is_kept():
    mine = Replica()
    mine.apply("x", 1, "old")
    mine.begin_snapshot()
    mine.write("x", "new")
    mine.accepted("x", 9)
    assert mine.end_snapshot() == []
    assert (mine.shown("x"), mine.offset("x")) == ("new", 9)


def test_write_refused_during_a_snapshot():
    mine = Replica()
    mine.apply("x", 1, "old")
    mine.write("x", MISSING)
    mine.apply("x", 2, MISSING)
    mine.begin_snapshot()
    mine.refused("x")
    assert mine.end_snapshot() == []
    assert list(mine.keys()) == []


def test_law_8_removed_keys_do_not_accumulate():
    mine = Replica()
    for n in range(1000):
        mine.apply(f"stroke{n}", 2 * n + 1, n)
        mine.apply(f"stroke{n}", 2 * n + 2, MISSING)
    assert len(mine._known) == 0


class World:
    """A broker with one order, and replicas on lines of any latency."""

    def __init__(self, number: int) -> None:
        self.replicas = [Replica() for _ in range(number)]
        self.up = [deque() for _ in range(number)]
        self.down = [deque() for _ in range(number)]
        self.order = 0

    def write(self, who: int, key: str, value: object) -> None:
        if self.replicas[who].write(key, value)[1]:
            self.up[who].append((key, value))

    def serve(self, who: int) -> None:
        if self.up[who]:
            key, value = self.up[who].popleft()
            self.order += 1
            for line in self.down:
                line.append(("message", key, self.order, value))
            self.down[who].append(("ack", key, self.order, value))

    def receive(self, who: int) -> None:
        if self.down[who]:
            kind, key, offset, value = self.down[who].popleft()
            mine = self.replicas[who]
            if kind == "message":
                mine.apply(key, offset, value)
            elif mine.accepted(key, offset)[1]:
                self.up[who].append((key, mine.shown(key)))


MOVES = st.tuples(
    st.integers(0, 2), st.sampled_from(["write", "serve", "receive"]), st.sampled_from("xy"), st.integers(0, 3)
)


@given(st.lists(MOVES, max_size=60))
def test_law_2_all_copies_end_equal_in_any_interleaving(moves):
    world = World(3)
    for n, (who, move, key, kind) in enumerate(moves):
        if move == "write":
            before = world.replicas[who].shown(key)
            world.write(who, key, MISSING if kind == 0 else n)
            assert world.replicas[who].shown(key) is MISSING or world.replicas[who].shown(key) == n, before
        else:
            getattr(world, move)(who)
    while any(world.up) or any(world.down):
        for who in range(3):
            world.serve(who)
            world.receive(who)
    states = [{key: mine.shown(key) for key in list(mine.keys())} for mine in world.replicas]
    assert states[0] == states[1] == states[2]
    assert not any(mine.busy for mine in world.replicas)


class Incomparable:
    def __init__(self, error):
        self.error = error

    def __eq__(self, other):
        raise self.error


@pytest.mark.parametrize("error", [ValueError(), SystemExit(), KeyboardInterrupt(), StopIteration()])
def test_value_that_cannot_be_compared_is_a_change(error):
    replica = Replica()
    first, second = Incomparable(error), Incomparable(error)
    replica.apply("k", 1, first)
    assert replica.apply("k", 2, second) == [Change("k", first, second, False)]
