"""One copy of a shared state, and many that end the same."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from ebus_jupyter.core.client.replica import MISSING, Change, Replica


def test_what_is_written_here_shows_at_once():
    mine = Replica()
    assert mine.write("x", 1) == (Change("x", MISSING, 1, local=True), True)
    assert (mine.shown("x"), list(mine.keys()), mine.busy) == (1, ["x"], True)


def test_a_slider_being_dragged_never_jumps_back():
    mine = Replica()
    mine.write("x", 1)
    assert mine.apply("x", 1, "somebody's") == []
    assert mine.write("x", 2)[1] is False, "one is on its way: this one waits"
    assert mine.write("x", 3)[1] is False, "and this one takes its place"
    assert mine.apply("x", 2, 1) == []
    assert mine.acked("x", 2, accepted=True) == ([], True)
    assert mine.shown("x") == 3
    mine.apply("x", 3, 3)
    assert mine.acked("x", 3, accepted=True) == ([], False)
    assert not mine.busy


def test_a_later_write_of_somebody_else_shows_once_ours_has_its_place():
    mine = Replica()
    mine.write("x", "mine")
    mine.apply("x", 1, "mine")
    assert mine.apply("x", 2, "theirs") == []
    assert mine.acked("x", 1, accepted=True) == ([Change("x", "mine", "theirs", local=False)], False)


def test_a_refused_write_shows_what_is_there_again():
    mine = Replica()
    mine.apply("x", 1, "theirs")
    mine.write("x", "mine")
    assert mine.acked("x", 0, accepted=False) == ([Change("x", "mine", "theirs", local=False)], False)


def test_an_ack_may_come_before_its_message_and_after_a_removal():
    mine = Replica()
    mine.write("x", 1)
    mine.apply("x", 2, MISSING)
    assert mine.acked("x", 1, accepted=True)[0] == [Change("x", 1, MISSING, local=False)]
    mine.write("y", 1)
    mine.acked("y", 5, accepted=True)
    assert mine.apply("y", 5, 1) == []
    assert list(mine.keys()) == ["y"]


def test_a_snapshot_takes_the_place_of_everything_without_a_flicker():
    mine = Replica()
    mine.apply("stays", 1, "a")
    mine.apply("goes", 2, "b")
    mine.begin_snapshot()
    assert (mine.shown("stays"), mine.shown("goes")) == ("a", "b")
    assert mine.apply("stays", 1, "a") == []
    assert mine.end_snapshot() == [Change("goes", "b", MISSING, local=False)]


def test_what_is_written_while_a_snapshot_comes_is_not_taken_for_gone():
    mine = Replica()
    mine.apply("x", 1, "old")
    mine.begin_snapshot()
    mine.write("x", "new")
    mine.acked("x", 9, accepted=True)
    assert mine.end_snapshot() == []
    assert (mine.shown("x"), mine.offset("x")) == ("new", 9)


def test_a_write_that_is_refused_while_a_snapshot_comes():
    mine = Replica()
    mine.apply("x", 1, "old")
    mine.write("x", MISSING)
    mine.apply("x", 2, MISSING)
    mine.begin_snapshot()
    mine.acked("x", 0, accepted=False)
    assert mine.end_snapshot() == []
    assert list(mine.keys()) == []


def test_law_8_removed_keys_do_not_pile_up():
    mine = Replica()
    for n in range(1000):
        mine.apply(f"stroke{n}", 2 * n + 1, n)
        mine.apply(f"stroke{n}", 2 * n + 2, MISSING)
    assert len(mine._known) == 0


class World:
    """A server with one order, and replicas with lines of any slowness to it."""

    def __init__(self, people: int) -> None:
        self.replicas = [Replica() for _ in range(people)]
        self.up = [deque() for _ in range(people)]
        self.down = [deque() for _ in range(people)]
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

    def hear(self, who: int) -> None:
        if self.down[who]:
            kind, key, offset, value = self.down[who].popleft()
            mine = self.replicas[who]
            if kind == "message":
                mine.apply(key, offset, value)
            elif mine.acked(key, offset, accepted=True)[1]:
                self.up[who].append((key, mine.shown(key)))


MOVES = st.tuples(
    st.integers(0, 2), st.sampled_from(["write", "serve", "hear"]), st.sampled_from("xy"), st.integers(0, 3)
)


@given(st.lists(MOVES, max_size=60))
def test_law_2_whatever_comes_when_everyone_ends_with_the_same_state(moves):
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
            world.hear(who)
    states = [{key: mine.shown(key) for key in list(mine.keys())} for mine in world.replicas]
    assert states[0] == states[1] == states[2]
    assert not any(mine.busy for mine in world.replicas)
