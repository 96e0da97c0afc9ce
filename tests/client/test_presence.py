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
