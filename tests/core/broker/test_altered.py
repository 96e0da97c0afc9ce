"""A bus outlives its types: compatible changes become versions of it, and all who have it open are told."""

from __future__ import annotations

from typing import Any

import pytest

from ebus_jupyter.errors import SpecConflict, TooLarge, TypeMismatch
from tests.core.play import Play


def vote(**more: Any) -> dict[str, Any]:
    properties = {"choice": {"type": "string"}, **more}
    return {"type": "object", "properties": properties, "required": ["choice"]}


NOTE = {"note": {"type": "string"}}


def test_compatible_change_becomes_a_version_that_all_are_told_of(play: Play) -> None:
    alice, bob = play.player("alice"), play.player("bob")
    old = alice.opened(schema=vote())
    offset = alice.written(old, {"choice": "tea", "note": 5})
    new = bob.opened(schema=vote(**NOTE), size=2000)
    assert new.spec.version == 2
    assert new.spec.altered > 0
    assert (old.spec.version, old.spec.size, old.spec.schema) == (2, 2000, new.spec.schema)
    assert bob.written(new, {"choice": "tea", "note": "strong"}) > offset
    with pytest.raises(TypeMismatch, match=r"\$\.note"):
        alice.written(old, {"choice": "tea", "note": 5})


def test_older_program_opens_the_altered_bus_as_before(play: Play) -> None:
    alice, bob = play.player("alice"), play.player("bob")
    alice.opened(schema=vote(), size=10)
    bob.opened(schema=vote(**NOTE), size=20)
    again = play.player("carol").opened(schema=vote(), size=10)
    assert (again.spec.version, again.spec.size) == (2, 20)


def test_words_for_people_alter_nothing(play: Play) -> None:
    play.player("alice").opened(schema=vote(), type="Vote")
    joined = play.player("bob").opened(schema={**vote(), "description": "A vote.", "title": "V"}, type="V")
    assert (joined.spec.version, joined.spec.type) == (1, "Vote")


def test_incompatible_change_is_refused_and_changes_nothing(play: Play) -> None:
    alice, bob = play.player("alice"), play.player("bob")
    bus = alice.opened(schema=vote())
    with pytest.raises(SpecConflict, match="would be integer") as conflict:
        bob.opened(schema=vote(choice={"type": "integer"}), size=5000)
    assert conflict.value.path == "$.choice"
    assert (bus.spec.version, bus.spec.size) == (1, 1000)


def test_who_may_not_write_alters_nothing(play: Play) -> None:
    alice, bob = play.player("alice"), play.player("bob")
    bus = alice.opened(schema=vote(), writers=["alice"])
    with pytest.raises(SpecConflict, match="who may not write"):
        bob.opened(schema=vote(**NOTE))
    assert bus.spec.version == 1


def test_change_over_a_bound_is_refused(play: Play) -> None:
    alice, bob = play.player("alice"), play.player("bob")
    alice.opened(schema=vote())
    with pytest.raises(TooLarge):
        bob.opened(size=1 << 30)
    with pytest.raises(SpecConflict, match="can't be used"):
        bob.opened(schema=vote(note={"type": "string", "pattern": r"(a)\1"}))


def test_altered_bus_keeps_more_from_then_on(play: Play) -> None:
    alice, bob = play.player("alice"), play.player("bob")
    bus = alice.opened(size=2)
    for i in range(3):
        alice.written(bus, i)
    bob.opened(size=4)
    for i in range(3, 9):
        alice.written(bus, i)
    late = play.player("carol")
    joined = late.opened()
    assert joined.spec.size == 4
