"""Positions: a place in one history of a bus, as text."""

from __future__ import annotations

import pytest

from ebus_jupyter.core.protocol.position import Position


@pytest.mark.parametrize("position", [Position("a1", 17, "b2-5"), Position("a1", 0)])
def test_position_round_trips_as_text(position):
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    "text", ["", "17", "a1", "a1:17", "a1:-1:", "a1:17:b2", "A1:17:", "a1:17:b2-5 ", str(Position())]
)
def test_other_text_is_no_position(text):
    assert Position.parse(text) is None
