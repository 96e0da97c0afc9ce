"""Whatever a client does again and again, its memory stays flat."""

from __future__ import annotations

import gc

import pytest

from .conftest import Line

ROUNDS = 12_500
"""Each has eight operations."""


@pytest.mark.parametrize("kind", ["bus", "state"])
def test_number_of_objects_does_not_grow(line: Line, kind: str) -> None:
    client = line.client()
    bus, state = client.bus("news", int), client.state("dash")
    stream = bus.stream()

    def use_bus() -> None:
        ack = bus.write(1)
        bus.on(print_nothing)
        bus.off(print_nothing)
        clone = bus.clone()
        clone.stream().close()
        clone.close()
        ack.result(5)
        assert stream.get(5) == 1

    def use_state() -> None:
        state["x"] = 1
        clone = state.clone()
        clone.on_change(print_nothing)
        clone["x"] = 2
        clone.flush()
        clone.off_change(print_nothing)
        clone.on_change(print_nothing)
        clone.close()

    use, rounds = (use_bus, ROUNDS) if kind == "bus" else (use_state, ROUNDS // 10)
    for _ in range(1200):  # until logs, tables of ids and caches are full
        use()
    before = count()
    for _ in range(rounds):
        use()
    assert count() < before + 500


def print_nothing(_: object) -> None:
    """A callback."""


def count() -> int:
    gc.collect()
    return len(gc.get_objects())
