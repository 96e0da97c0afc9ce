"""Shared mappings: what one participant sets, all see."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import ebus_jupyter as ebus
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
    heard = threading.Event()
    theirs.on_change(lambda change: (changes.append(change), heard.set()))
    mine["speed"] = 1
    assert heard.wait(5)
    theirs["speed"] = 2
    assert [(c.key, c.old, c.new, c.local) for c in changes] == [("speed", MISSING, 1, False), ("speed", 1, 2, True)]


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
