"""Frames round trip, and malformed data raises `ProtocolError`."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import ProtocolError, RateLimited, TypeMismatch

VALUE = msgspec.Raw(msgspec.msgpack.encode({"n": 1}))
ALICE = Participant("a1", "page", "alice")


@pytest.mark.parametrize(
    "frame",
    [
        frames.Hello(1, "0" * 32),
        frames.Open(1, "server", "votes", {"size": 3}),
        frames.Open(1, "server", None),
        frames.Publish(7, 1, VALUE, "key", True, False, ["bob"], 3),
        frames.SetPresence(7, VALUE, True),
        frames.FilterAnswer(7, 1, VALUE, "no", True),
    ],
)
def test_client_frames_round_trip(frame):
    assert frames.from_client(frames.join([frames.encode(frame)])) == [frame]


@pytest.mark.parametrize(
    "frame",
    [
        frames.Welcome(1, ALICE, "b", {"value_bytes": 3}),
        frames.Delivery(7, 3, 1, 2.5, ALICE, VALUE, "key", True),
        frames.Ok(7, 1, 3, 2),
        frames.Bye("closed", "so long"),
    ],
)
def test_broker_frames_round_trip(frame):
    assert frames.from_broker(frames.join([frames.encode(frame)])) == [frame]


@pytest.mark.parametrize("number", [0, 1, 15, 16, 65_535, 65_536])
def test_batch_is_a_header_and_the_joined_frames(number):
    ping = frames.encode(frames.Ping(1))
    assert len(frames.from_client(frames.head(number) + ping * number)) == number


def test_trailing_fields_may_be_missing_or_unknown():
    from_an_older_version = msgspec.msgpack.encode([[6, 7, 1, None]])
    from_a_newer_version = msgspec.msgpack.encode([[6, 7, 1, None, None, False, True, None, None, "what is this?"]])
    nil = frames.Publish(7, 1, frames.NIL)
    assert frames.from_client(from_an_older_version) == frames.from_client(from_a_newer_version) == [nil]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000,
        msgspec.msgpack.encode({"a": 1}),
        msgspec.msgpack.encode([[99, 1]]),
        msgspec.msgpack.encode([["hello"]]),
        msgspec.msgpack.encode([[6, 7, 0, None]]),
        msgspec.msgpack.encode([[6, 7, -1, None]]),
        msgspec.msgpack.encode([[6, 7, 1 << 60, None]]),
        msgspec.msgpack.encode([[2, 1, "server", 5]]),
        b"\x91\x94\x02\x01\xa6server\xa2\xff\xff",
    ],
)
def test_malformed_data_raises_protocol_error_with_advice(data):
    with pytest.raises(ProtocolError, match="same version"):
        frames.from_client(data)


@given(st.binary(max_size=60))
def test_decoding_raises_nothing_but_protocol_error(data):
    for read in (frames.from_client, frames.from_broker):
        with contextlib.suppress(ProtocolError):
            read(data)


def test_error_frame_keeps_code_text_and_details():
    sent = frames.Error("type_mismatch", "votes: expected float at $.w.", id=1, details={"path": "$.w"})
    (received,) = frames.from_broker(frames.join([frames.encode(sent)]))
    error = received.exception()
    assert isinstance(error, TypeMismatch)
    assert (str(error), error.path) == ("votes: expected float at $.w.", "$.w")


def test_unknown_error_code_becomes_ebus_error():
    error = frames.Error("out_of_coffee", "no coffee; buy some.").exception()
    assert type(error).__name__ == "EbusError"
    assert not isinstance(error, RateLimited)
