"""A bus in a program's hands: writing, reading, callbacks, lost lines."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import ebus_jupyter as ebus
from ebus_jupyter.backends.base import Kept
from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.client import discover
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.message import BusSpec

from .conftest import Line


@dataclass
class Vote:
    choice: str
    weight: float = 1.0


def test_everyone_hears_each_write_the_writer_included(line: Line) -> None:
    mine, theirs = line.client("alice").bus("votes", Vote), line.client("bob", "k2").bus("votes")
    my_ear, their_ear = mine.stream(), theirs.stream()
    assert mine.write(Vote("tea")).result(5) == 1
    assert my_ear.get(5) == Vote("tea")
    assert their_ear.get(5) == {"choice": "tea", "weight": 1.0}, "who gives no type gets plain values"


def test_a_late_reader_reads_what_is_kept_then_goes_on_live(line: Line) -> None:
    board = line.client().bus("board", int)
    for n in range(3):
        board.write(n)
    board.write(3).result(5)
    late = board.stream(since="start")
    assert late.take(4, 5) == [0, 1, 2, 3]
    board.write(4)
    assert late.get(5) == 4
    assert board.stream(since=-2).take(2, 5) == [3, 4]
    assert board.stream(since=3).get(5) == 3, "after offset 3"
    assert board.history(2) == [3, 4]


def test_a_clone_reads_on_from_where_it_was_made(line: Line) -> None:
    bus = line.client().bus("one")
    first = bus.stream()
    for n in range(4):
        bus.write(n)
    assert first.take(2, 5) == [0, 1]
    second = first.clone()
    assert first.take(2, 5) == second.take(2, 5) == [2, 3]


def test_a_slow_reader_is_told_and_goes_on(line: Line) -> None:
    bus = line.client().bus("board", int, size=10)
    slow = bus.stream()
    for n in range(15):
        ack = bus.write(n)
    ack.result(5)
    with pytest.raises(ebus.Lagged) as lag:
        slow.get(5)
    assert (lag.value.skipped, lag.value.resume_after) == (5, 5)
    assert slow.take(10, 5) == list(range(5, 15))


def test_two_names_of_one_bus_at_the_same_moment_are_one_bus(line: Line) -> None:
    client = line.client("alice")
    client.wait_live(5)

    async def open_both() -> list[ebus.Bus[Any, Any]]:
        return [client.bus("notes", scope="user"), client.bus("ebus:user/alice/notes")]

    buses = line.run(open_both())
    ears = [bus.stream() for bus in buses]
    assert [bus.write(n).result(5) for n, bus in enumerate(buses)] == [1, 2]
    assert [ear.take(2, 5) for ear in ears] == [[0, 1], [0, 1]]
    buses[0].close()
    assert buses[1].write(2).result(5) == 3
    assert ears[1].get(5) == 2


def test_what_was_written_while_the_line_was_cut_arrives_once_and_in_order(line: Line) -> None:
    writer, reader = line.client("alice"), line.client("bob", "k2")
    bus, ear = writer.bus("news", int), reader.bus("news").stream()
    bus.write(0).result(5)
    line.cut()
    acks = [bus.write(n) for n in range(1, 50)]
    assert not acks[0].done
    line.mend()
    assert [ack.result(10) for ack in acks] == list(range(2, 51))
    assert ear.take(50, 10) == list(range(50))


def test_a_bus_whose_log_is_busy_after_a_restart_comes_back_and_so_do_its_writes(
    make_line: Callable[..., Line],
) -> None:
    class Disk(MemoryBackend):
        busy = threading.Event()
        asked = threading.Event()

        async def open(self, bus: str, spec: BusSpec | None, epoch: str) -> Kept | None:
            if self.busy.is_set():
                self.asked.set()
                raise ebus.BackendError("the disk is busy.")
            return await super().open(bus, spec, epoch)

        async def aclose(self) -> None:
            """It outlives its broker."""

    line = make_line(Disk())
    bus = line.client().bus("news", int)
    ear = bus.stream()
    bus.write(1).result(5)
    Disk.busy.set()
    line.restart()
    assert Disk.asked.wait(10)
    ack = bus.write(2)
    Disk.busy.clear()
    assert ack.result(10) == 2
    assert ear.take(2, 10) == [1, 2]


def test_who_may_write_but_not_read_writes(line: Line) -> None:
    async def authorize(address: Address, action: str) -> bool:
        return action == "write"

    box = line.client("bob", "k2", authorize=authorize).bus("suggestions")
    with pytest.raises(ebus.Forbidden, match="bob may write to suggestions but not read it"):
        box.stream().get(5)
    assert box.status == "live"
    assert box.write("more tea").result(5) == 1
    assert line.client("alice").bus("suggestions").history() == ["more tea"]


def test_a_write_of_the_wrong_type_is_refused_at_once_with_the_path(line: Line) -> None:
    votes = line.client().bus("votes", Vote)
    with pytest.raises(ebus.TypeMismatch, match=r"votes: expected float, got str at \$\.weight") as wrong:
        votes.write(Vote("tea", "heavy"))  # type: ignore[arg-type]
    assert wrong.value.path == "$.weight"


def test_a_raw_writer_is_held_to_the_type_by_the_broker(line: Line) -> None:
    line.client().bus("votes", Vote)
    untyped = line.client("bob", "k2").bus("votes")
    with pytest.raises(ebus.TypeMismatch, match=r"\$\.choice"):
        untyped.write({"choice": 3}).result(5)


def test_a_second_opener_who_wants_another_bus_is_shown_both(line: Line) -> None:
    line.client().bus("votes", Vote, size=10)
    with pytest.raises(ebus.SpecConflict, match="size is 10, you asked for 20") as conflict:
        line.client("bob", "k2").bus("votes", size=20)
    assert (conflict.value.existing, conflict.value.given) == ({"size": 10}, {"size": 20})


def test_a_stream_misses_nothing_that_is_written_once_it_is_there(line: Line) -> None:
    writer, reader = line.client("alice").bus("news", int), line.client("bob", "k2").bus("news", int)
    for n in range(50):
        ear = reader.stream()
        writer.write(n).result(5)
        assert ear.get(5) == n
        ear.close()


def test_a_stream_that_is_made_while_the_line_is_cut_does_not_wait_for_it(line: Line) -> None:
    bus = line.client("alice").bus("news", int)
    line.cut()
    ear = bus.stream()
    line.mend()
    bus.write(1)
    assert ear.get(10) == 1


def test_not_for_me_and_only_for_you(line: Line) -> None:
    alice, bob, carol = (line.client(name, name).bus("talk") for name in ("alice", "bob", "carol"))
    ears = [bus.stream() for bus in (alice, bob, carol)]
    alice.write("to the others", echo=False).result(5)
    alice.write("to bob", to="bob").result(5)
    alice.write("to all").result(5)
    heard = []
    for ear in ears:
        said = []
        while not said or said[-1] != "to all":
            said.append(ear.get(5))
        heard.append(said)
    assert heard == [["to bob", "to all"], ["to the others", "to bob", "to all"], ["to the others", "to all"]]


def test_only_one_of_two_who_expect_the_same_offset_wins(line: Line) -> None:
    first, second = line.client("alice").bus("turn"), line.client("bob", "k2").bus("turn")
    assert first.write("mine", expect=0).result(5) == 1
    with pytest.raises(ebus.Conflict) as lost:
        second.write("mine too", expect=0).result(5)
    assert lost.value.actual == 1


def test_a_callback_hears_on_the_loop_it_was_made_on(line: Line) -> None:
    bus = line.client().bus("calls")

    async def notebook() -> list[tuple[int, int]]:
        heard = []
        done = asyncio.Event()

        @bus.on
        def one(value: int) -> None:
            heard.append((value, threading.get_ident()))
            if value == 2:
                raise ValueError("a callback's fault")
            if value == 3:
                done.set()

        for n in range(1, 4):
            bus.write(n)
        await asyncio.wait_for(done.wait(), 5)
        bus.off(one)
        await bus.write(4)
        return heard

    assert asyncio.run(notebook()) == [(n, threading.get_ident()) for n in (1, 2, 3)]


def test_an_async_callback_gets_one_value_after_the_other(line: Line) -> None:
    bus = line.client().bus("calls")

    async def notebook() -> list[str]:
        said: list[str] = []
        done = asyncio.Event()

        async def slowly(value: int) -> None:
            said.append(f"{value} begins")
            await asyncio.sleep(0)
            said.append(f"{value} ends")
            if value == 2:
                done.set()

        bus.on(slowly)
        bus.write(1)
        bus.write(2)
        await asyncio.wait_for(done.wait(), 5)
        return said

    assert asyncio.run(notebook()) == ["1 begins", "1 ends", "2 begins", "2 ends"]


def test_async_reading_goes_on_after_a_lag(line: Line) -> None:
    bus = line.client().bus("board", size=2)

    async def notebook() -> list[object]:
        stream, seen = bus.stream(), []
        for n in range(4):
            await bus.write(n)
        while len(seen) < 3:
            try:
                async for value in stream:
                    seen.append(value)
                    if value == 3:
                        break
            except ebus.Lagged as lag:
                seen.append(f"missed {lag.skipped}")
        return seen

    assert asyncio.run(notebook()) == ["missed 2", 2, 3]


def test_a_failed_ack_that_nobody_looked_at_is_logged(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    bus = line.client().bus("full", retain="keys", size=1)
    bus.write(1, key="a").result(5)
    with caplog.at_level(logging.WARNING, "ebus_jupyter"):
        bus.write(2, key="b")
        bus.write(3, key="a").result(5)
    assert "nobody looked at its ack" in caplog.text and "full" in caplog.text


def test_a_deleted_bus_ends_its_readers_with_the_reason(line: Line) -> None:
    bus, other = line.client("alice").bus("old"), line.client("bob", "k2").bus("old")
    ear = other.stream()
    bus.delete()
    with pytest.raises(ebus.Closed, match="alice has deleted old"):
        ear.get(5)
    assert ear.status == "closed"
    with pytest.raises(ebus.Closed):
        other.write(1)


def test_an_unnamed_bus_is_entered_with_its_uri_only_and_goes_with_its_maker(line: Line) -> None:
    maker, guest = line.client("alice"), line.client("bob", "k2")
    private = maker.bus(type=int)
    entered = guest.bus(private.uri)
    ear = entered.stream()
    private.write(7)
    assert ear.get(5) == 7
    with pytest.raises(ebus.NoSuchBus):
        guest.bus(private.uri.replace("#", "#0"))
    private.close()
    with pytest.raises(ebus.Closed, match="its maker has closed"):
        ear.get(5)


@pytest.mark.parametrize(
    ("name", "scope"), [("mine", "user"), ("mine", "kernel"), ("mine", "server"), (None, "server")]
)
def test_a_bus_that_is_opened_by_its_name_and_by_its_uri_is_one(line: Line, name: str | None, scope: str) -> None:
    client = line.client()
    bus = client.bus(name, int, scope=scope)
    before = bus.stream()
    again = client.bus(bus.uri)
    after = again.stream()
    bus.write(1).result(5)
    assert (before.get(5), after.get(5)) == (1, 1)
    again.close()
    bus.write(2).result(5)
    assert before.get(5) == 2


def test_the_uri_of_another_user_s_bus_is_not_one_s_own(line: Line) -> None:
    alice, bob = line.client("alice"), line.client("bob", "k2")
    uri = alice.bus("diary", str, scope="user").uri
    bob.bus("diary", str, scope="user")
    with pytest.raises(ebus.NoSuchBus):
        bob.bus(uri)


def test_a_bus_can_be_pickled_and_sent_on_another_bus(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    client = line.client()
    monkeypatch.setattr(discover, "default_client", lambda: client)
    bus = client.bus("votes", Vote)
    again = pickle.loads(pickle.dumps(bus))
    ear = again.stream()
    bus.write(Vote("tea"))
    assert ear.get(5) == Vote("tea")
    doors = client.bus("doors", str)
    knocks = doors.stream()
    doors.write(bus.uri)
    assert knocks.get(5) == "ebus:server/votes"


def test_presence_tells_who_is_here_and_what_they_say(line: Line) -> None:
    alice, bob = line.client("alice").bus("room"), line.client("bob", "k2").bus("room")
    changed = threading.Event()
    alice.presence.on_change(changed.set)
    bob.presence.set(typing=True)
    for _ in range(100):
        said = {seat.who.user: seat.state for seat in alice.presence}
        if said == {"alice": None, "bob": {"typing": True}}:
            break
        changed.wait(0.1)
        changed.clear()
    assert said == {"alice": None, "bob": {"typing": True}}


def test_writes_gather_until_there_are_enough_or_their_time_has_come(line: Line) -> None:
    client = line.client()
    many = client.bus("many", flush_size=3, flush_interval=60)
    first, second = many.write(1), many.write(2)
    client.bus("other").write("goes at once").result(5)
    assert not first.done and not second.done
    assert many.write(3).result(5) == 3
    held = many.write(4)
    many.flush()
    assert held.result(5) == 4
    timed = client.bus("timed", flush_size=1000, flush_interval=0.02)
    assert timed.write(1).result(5) == 1


def test_a_value_over_the_bound_is_refused_here(line: Line) -> None:
    bus = line.client().bus("big")
    with pytest.raises(ebus.TooLarge, match="value_bytes"):
        bus.write(b"x" * (2 << 20))


def test_a_closed_client_fails_what_waits(line: Line) -> None:
    client = line.client()
    bus, ear = client.bus("x"), client.bus("x").stream()
    line.cut()
    ack = bus.write(1)
    client.close()
    with pytest.raises(ebus.Closed):
        ack.result(5)
    with pytest.raises(ebus.Closed):
        ear.get(5)


def test_a_bus_that_was_just_closed_can_be_opened_again_at_once(line: Line) -> None:
    client = line.client()
    for n in range(20):
        bus = client.bus("door")
        assert bus.write(n).result(5) == n + 1
        bus.close()
