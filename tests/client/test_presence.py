"""Presence: participants, and what they say of themselves."""

from __future__ import annotations

import threading

from .conftest import Line


def test_presence_lists_participants_and_their_state(line: Line) -> None:
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


def test_presence_callback_that_raises_hurts_nothing(line: Line) -> None:
    client = line.client("alice")
    bus, told = client.bus("room"), threading.Event()

    @bus.presence.on_change
    def wrong() -> None:
        raise ValueError("a callback's fault")

    bus.presence.on_change(told.set)
    line.client("bob", "k2").bus("room").presence.set(typing=True)
    assert told.wait(5)
    assert bus.write(1).result(5) == 1
    assert client.status == "live"


def test_presence_callbacks_end_with_off_change_and_close(line: Line) -> None:
    bus = line.client("alice").bus("room")
    for _ in range(3):
        bus.presence.on_change(print)
        bus.presence.off_change(print)
    bus.presence.on_change(print)
    bus.close()
    assert not bus.topic.presence_changed._listeners


def test_refused_presence_is_reported_and_not_repeated(line: Line) -> None:
    line.client("alice").bus("news", writers=["alice"])
    client = line.client("bob", "k2")
    errors: list[Exception] = []
    told = threading.Event()
    client.on_error(lambda error: (errors.append(error), told.set()))
    bus = client.bus("news")
    bus.presence.set(typing=True)
    assert told.wait(5)
    assert [type(error).__name__ for error in errors] == ["Forbidden"]
    assert bus.channel.state is None
