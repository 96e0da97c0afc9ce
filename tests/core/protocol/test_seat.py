"""Seats: the broker encodes them, clients decode them."""

from __future__ import annotations

import msgspec

from ebus_jupyter.core.protocol.frames import NIL
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.core.protocol.seat import AWAY, HERE, WireSeat, decode_seat, encode_seat

ALICE = Participant("a1", "kernel", "alice", kernel_id="k1")


def test_seat_round_trips_with_its_state_decoded():
    state = msgspec.Raw(msgspec.msgpack.encode({"typing": True}))
    assert decode_seat(encode_seat(ALICE, HERE, 2.5, state, "busy")) == WireSeat(
        ALICE, HERE, 2.5, {"typing": True}, "busy"
    )


def test_seat_without_a_state_has_none():
    assert decode_seat(encode_seat(ALICE, AWAY, 0.0, NIL, "")).state is None
