"""Malformed frames, values and specs: whatever a client sends, the broker answers it and goes on."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.errors import Forbidden, InvalidName, NoSuchBus, SpecConflict, UnknownScope
from tests.core.play import Play, Raw, pack

HUGE = [0, -1, -(1 << 63), (1 << 63) - 1, (1 << 64) - 1]


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [frames.Ping(1), frames.Open(1, "server", "votes"), frames.List(1)])
def test_frames_before_hello_end_the_connection(play, frame):
    mallory = Raw(play)
    (bye,) = mallory.say(frame)
    assert (bye.code, bye.reconnect, mallory.hung_up) == ("protocol", False, True)
    assert "say hello first" in bye.text
    assert not play.durable._buses


@pytest.mark.parametrize("instance", ["", "0" * 31, "0" * 33, "g" * 32, "A" * 32, "٣" * 32, "0" * 100_000])
def test_hello_requires_a_valid_instance(play, instance):
    mallory = Raw(play)
    (bye,) = mallory.say(frames.Hello(frames.VERSION, instance))
    assert (bye.code, mallory.hung_up) == ("protocol", True)
    assert len(bye.text) < 200


def test_second_hello_ends_the_connection(play):
    mallory = Raw(play).hello()
    (bye,) = mallory.say(frames.Hello(frames.VERSION, "0" * 32))
    assert "once" in bye.text


@pytest.mark.parametrize(
    ("version", "who"), [(0, "client"), (2, "server"), (-(1 << 63), "client"), ((1 << 64) - 1, "server")]
)
def test_version_mismatch_names_the_side_to_update(play, version, who):
    (bye,) = Raw(play).say(frames.Hello(version, "0" * 32))
    assert (bye.code, bye.reconnect) == ("protocol", False)
    assert f"update ebus_jupyter on the {who}'s side" in bye.text


@pytest.mark.parametrize("said", [b"", b"hello", b"\xc1", b"\x91\x91\x63", b"\xdd\xff\xff\xff\xff"])
def test_malformed_frame_ends_only_its_own_connection(play, said):
    alice = play.player("alice")
    bus = alice.opened()
    mallory = Raw(play).hello()
    (bye,) = mallory.shout(said)
    assert (bye.code, bye.reconnect, mallory.hung_up) == ("protocol", False, True)
    assert mallory.shout(said) == []
    assert alice.written(bus, "tea") == 1


@pytest.mark.parametrize("after", HUGE)
@pytest.mark.parametrize("until", HUGE)
def test_out_of_range_offsets_are_answered(play, after, until):
    alice = play.player("alice")
    alice.written(alice.opened(size=2), "tea")
    mallory = Raw(play).hello()
    (opened,) = mallory.say(frames.Open(1, "server", "votes"))
    answers = mallory.say(
        frames.Fetch(2, opened.bus, after, until),
        frames.Subscribe(3, opened.bus, opened.epoch, after, "x-" + "9" * 9999),
        frames.Subscribe(until, opened.bus, "another epoch", after, "\0"),
        frames.Publish(opened.bus, 1, frames.NIL, expect=after),
        frames.Ping(after),
    )
    assert [type(answer).__name__ for answer in answers if not isinstance(answer, frames.Delivery)] == [
        "Page", "Subscribed", "Subscribed", "Error", "Pong",
    ]  # fmt: skip


ADVERSARY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.sampled_from(["server", "user", "kernel", "votes", "size", "schema", "filter", "@owner"]),
)

ANY = st.recursive(
    ADVERSARY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.tuples(st.integers(1, 13), st.lists(ANY, max_size=8)), min_size=1, max_size=6))
def test_broker_survives_arbitrary_frames(said):
    play = Play()
    alice = play.player("alice")
    bus = alice.opened()
    mallory = Raw(play).hello()
    for tag, fields in said:
        if mallory.hung_up:
            mallory = Raw(play).hello()
        mallory.shout(pack([[tag, *fields]]))
        mallory.say(frames.Ping(1))
    play.pass_time(100)
    assert alice.written(bus, "tea") == play.kept[-1].offset


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        b"\xa2\xff\xff",  # text that is not UTF-8
        b"\x81\xa1a\xa1\xff",
        b"\x81\x80\x01",  # an invalid map key
        b"\xc7\x0c\xff" + b"\xff" * 12,  # an invalid time
        b"\xd4\x05\x00",  # an unknown extension
        b"\xc7\x03\x01abc",  # an invalid array
        b"\x91" * 3000 + b"\x01",  # nested too deeply to decode
    ],
)
def test_undecodable_values_are_refused(play, value):
    mallory = Raw(play).hello()
    (opened,) = mallory.say(frames.Open(1, "server", "votes"))
    answers = mallory.say(
        frames.Publish(opened.bus, 1, msgspec.Raw(value)), frames.SetPresence(opened.bus, msgspec.Raw(value))
    )
    assert {answer.code for answer in answers} <= {"type_mismatch", "protocol"}
    assert answers
    assert play.kept == []


def test_removal_carries_no_value(play):
    mallory = Raw(play).hello()
    (opened,) = mallory.say(frames.Open(1, "server", "votes", {"retain": "keys"}))
    mallory.say(frames.Publish(opened.bus, 1, msgspec.Raw(b"\xa2\xff\xff"), key="a", deleted=True))
    assert [entry.value for entry in play.kept] == [b"\xc0"]


# --- specs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"schema": {"type": "nonsense"}},
        {"schema": {"$ref": "http://elsewhere.example/schema"}},
        {"schema": {"$ref": "file:///etc/passwd"}},
        {"schema": {"pattern": "(a"}},
        {"emits": {"type": 5}},
        {"filter": "of my own"},
        {"retain": "everything"},
        {"maker": "alice"},
        {"colour": "red"},
    ],
)
def test_invalid_spec_creates_no_bus(play, given):
    with pytest.raises(SpecConflict):
        play.player().opened("broken", **given)
    assert not play.durable._buses
    assert play.player().opened("broken").is_open


def test_recursive_schema_is_accepted(play):
    alice = play.player()
    bus = alice.opened(schema={"additionalProperties": {"$ref": "#"}, "type": "object"})
    assert alice.written(bus, {"a": {"a": {}}}) == 1


@pytest.mark.parametrize(
    ("scope", "name", "error", "says"),
    [
        ("galaxy", "votes", UnknownScope, "choose one of kernel, user, server, hub"),
        ("hub", "votes", UnknownScope, "jupyter ebus serve"),
        ("server", "no spaces", InvalidName, "use 1 to 128 letters"),
        ("server", "~votes", NoSuchBus, "within your reach"),
        ("server", "x" * 129, InvalidName, "use 1 to 128 letters"),
        ("kernel", "votes", Forbidden, "open the bus in the kernel"),
    ],
)
def test_invalid_address_error_names_the_remedy(play, scope, name, error, says):
    with pytest.raises(error, match=says):
        play.player().opened(name, scope)
