"""Shared mappings: what one participant sets, all see."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ebus_jupyter as ebus
from ebus_jupyter.client.loop_thread import loop_thread
from ebus_jupyter.client.state import State
from ebus_jupyter.client.waiting import NOT_YET
from ebus_jupyter.core.client.replica import MISSING

from .conftest import Line


def eventually(state: State, check: Callable[[], bool]) -> None:
    moved = threading.Event()
    listener = state.on_change(lambda _: moved.set())
    for _ in range(100):
        if check():
            break
        moved.wait(0.1)
        moved.clear()
    state.off_change(listener)
    assert check()


def test_set_value_reaches_other_participants(line: Line) -> None:
    mine, theirs = line.client("alice").state("dash"), line.client("bob", "k2").state("dash")
    mine["speed"] = 3
    assert mine["speed"] == 3, "at once, here"
    eventually(theirs, lambda: theirs.get("speed") == 3)
    del theirs["speed"]
    eventually(mine, lambda: "speed" not in mine)


def test_late_joiner_receives_all_entries_at_once(line: Line) -> None:
    first = line.client().state("dash")
    first.update({f"key {n}": n for n in range(200)})
    first.flush()
    late = line.client("bob", "k2").state("dash")
    assert dict(late) == dict(first) and len(late) == 200


def test_only_one_of_two_concurrent_replaces_wins(line: Line) -> None:
    mine, theirs = line.client("alice").state("dash"), line.client("bob", "k2").state("dash")
    assert mine.replace("turn", MISSING, "alice")
    assert not theirs.replace("turn", MISSING, "bob")
    eventually(theirs, lambda: theirs.get("turn") == "alice")
    assert theirs.replace("turn", "alice", "bob")
    assert theirs["turn"] == "bob", "what was just replaced is what is read back"


def test_concurrent_writes_converge_everywhere(line: Line) -> None:
    states = [line.client(name, name).state("dash") for name in ("alice", "bob", "carol")]
    for n in range(30):
        for who, state in enumerate(states):
            state["x"] = (n, who)
    for state in states:
        state.flush()
    last = states[0].bus.client.state("dash")
    for state in states:
        eventually(state, lambda state=state: state["x"] == last["x"])  # type: ignore[misc]


def test_state_is_complete_after_a_reconnect(line: Line) -> None:
    mine, theirs = line.client("alice").state("dash"), line.client("bob", "k2").state("dash")
    mine.update(a=1, b=2)
    eventually(theirs, lambda: dict(theirs) == {"a": 1, "b": 2})
    line.cut()
    mine["a"] = 10
    del mine["b"]
    mine["c"] = 3
    assert dict(theirs) == {"a": 1, "b": 2}
    line.mend()
    eventually(theirs, lambda: dict(theirs) == {"a": 10, "c": 3})


def test_change_reports_old_new_and_local(line: Line) -> None:
    mine, theirs = line.client("alice").state("dash"), line.client("bob", "k2").state("dash")
    changes: list[Any] = []
    heard = threading.Semaphore(0)
    theirs.on_change(lambda change: (changes.append(change), heard.release()))
    mine["speed"] = 1
    assert heard.acquire(timeout=5)
    theirs["speed"] = 2
    assert heard.acquire(timeout=5)
    assert [(c.key, c.old, c.new, c.local) for c in changes] == [("speed", MISSING, 1, False), ("speed", 1, 2, True)]


def test_listeners_hear_changes_in_the_order_shown(line: Line) -> None:
    mine, theirs = line.client("alice").state("dash"), line.client("bob", "k2").state("dash")
    changes: list[Any] = []
    done = threading.Event()

    @mine.on_change
    def listen(change: Any) -> None:
        time.sleep(0)  # let other threads in
        changes.append(change)
        if change.new == "last":
            done.set()
        if len(changes) % 7 == 0:
            raise ValueError("a listener's fault")

    def write(state: State, who: str) -> None:
        for n in range(200):
            state["x"] = f"{who} {n}"

    threads = [threading.Thread(target=write, args=args) for args in [(mine, "a"), (mine, "b"), (theirs, "c")]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mine.flush()
    theirs.flush()
    mine["x"] = "last"
    assert done.wait(10)
    for before, after in itertools.pairwise(changes):
        assert after.old == before.new


def test_remote_changes_are_told_on_the_callback_thread(line: Line) -> None:
    mine, theirs = line.client("alice").state("dash"), line.client("bob", "k2").state("dash")
    heard: list[int] = []
    told = threading.Event()
    mine.on_change(lambda _: (heard.append(threading.get_ident()), told.set()))
    theirs["x"] = 1
    assert told.wait(5)
    assert heard == [loop_thread("ebus-callbacks").ident]


def test_waiting_write_is_sent_as_it_was_when_set(line: Line) -> None:
    client = line.client()
    state = client.state("dash")
    value: list[Any] = [1]
    with client.connection.lock:  # no ack can come in between
        state["x"] = value
        state["x"] = value
        value.append(object())  # which can't travel
    state.flush(5)
    assert line.client("bob", "k2").state("dash")["x"] == [1]
    assert client.status == "live"


def test_waiting_write_goes_out_when_other_writes_fill_the_client(line: Line) -> None:
    client = line.client()
    state, bus = client.state("dash"), client.bus("other")
    client.connection.session.max_pending = client.connection.session._writes.limit = 3
    line.cut()
    state["x"] = 1
    state["x"] = 2
    acks = [bus.write(n) for n in range(2)]
    with pytest.raises(ebus.RateLimited):
        bus.write(3, wait=False)
    publish, stolen = client.connection.publish_soon, threading.Event()

    def steal(*args: Any, **options: Any) -> None:
        """Another thread's write takes the room that the ack has made."""
        acks.append(bus.write("thief", wait=False))
        publish(*args, **options)
        stolen.set()

    client.connection.publish_soon = steal  # type: ignore[method-assign]
    line.mend()
    assert stolen.wait(10)
    state.flush(10)
    assert [ack.result(5) for ack in acks] == [1, 2, 3]
    assert line.client("bob", "k2").state("dash")["x"] == 2
    assert client.status == "live"


def test_replace_waits_for_an_own_write_under_way(line: Line) -> None:
    state = line.client().state("dash")
    for n in range(20):
        state["x"] = n
        assert state.replace("x", n, n + 1)
        assert state["x"] == n + 1


def test_replace_compares_arrays_by_value(line: Line) -> None:
    state = line.client().state("dash")
    state["x"] = np.zeros(3)
    assert not state.replace("x", np.ones(3), 1)
    assert state.replace("x", np.zeros(3), np.ones(3))
    assert state["x"].tolist() == [1, 1, 1]
    assert not state.replace("x", 1, 2)


def test_write_to_a_closed_state_raises_closed(line: Line) -> None:
    with line.client().state("dash") as state:
        state["x"] = 1
        state.flush()
    with pytest.raises(ebus.Closed):
        state["x"] = 2


def test_typed_state_refuses_other_types(line: Line) -> None:
    state = line.client().state("sizes", type=int)
    with pytest.raises(ebus.TypeMismatch, match="expected int, got str"):
        state["a"] = "tall"
    assert "a" not in state


def test_ended_bus_and_state_keep_no_stack_of_a_caller(line: Line) -> None:
    client = line.client()
    state = client.state("dash")
    messages = state.bus.stream()
    client.close()
    with pytest.raises(ebus.errors.Closed):
        messages.get(timeout=10)
    with pytest.raises(ebus.errors.Closed):
        client.bus("other")
    state.bus.arrivals.wait(lambda: state.error or NOT_YET, 10, "the state has not ended")
    kept = (state.error, state.bus.channel.error, client.connection.session.closed)
    assert [error.__traceback__ for error in kept if error] == [None] * 3
