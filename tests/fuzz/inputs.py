"""Inputs: values and frames, valid and not, large and deep, and their bytes, damaged."""

from __future__ import annotations

import datetime
import math
from typing import Any

import msgspec
from hypothesis import strategies as st

from ebus_jupyter.core.protocol import frames

EXTENSIONS = st.builds(
    msgspec.msgpack.Ext,
    st.sampled_from([-1, 0, 1, 1, 1, 2, 127]),
    st.one_of(
        st.binary(max_size=40),
        st.builds(
            lambda dtype, shape, data: msgspec.msgpack.encode([dtype, shape, data]),
            st.sampled_from(
                ["<f8", "|u1", "<i4", "|b1", "<U3", "<M8[s]", "|S0", "|V8", "O", "<f99999", "\0", "<f8[x]"]
            ),
            st.lists(st.sampled_from([0, 1, 2, 3, 1 << 31, (1 << 64) - 1, -1]), max_size=40),
            st.binary(max_size=64),
        ),
    ),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.sampled_from([0.0, -0.0, 1.0, 1e308, 5e-324, math.nan, math.inf, -math.inf]),
    st.text(max_size=20),
    st.sampled_from(["$bytes", "$array", "$map", "\ud7ff", "\0", "x" * 500]),
    st.binary(max_size=40),
    st.builds(lambda s: datetime.datetime.fromtimestamp(s, datetime.UTC), st.integers(-(1 << 33), 1 << 37)),
    EXTENSIONS,
)
KEYS = st.one_of(st.text(max_size=8), st.sampled_from(["$bytes", "$pairs", "$msgpack"]), st.integers(-5, 5))
VALUES = st.recursive(
    SCALARS, lambda items: st.lists(items, max_size=5) | st.dictionaries(KEYS, items, max_size=4), max_leaves=12
)


def deep(value: Any, depth: int, kind: str) -> bytes:
    """The bytes of a value inside ``depth`` arrays or maps."""
    head = b"\x91" if kind == "array" else b"\x81\xa1a"
    return head * depth + msgspec.msgpack.encode(value)


def wide(value: Any, count: int, kind: str) -> bytes:
    """The bytes of an array or a map that holds ``value`` ``count`` times."""
    item = msgspec.msgpack.encode(value)
    if kind == "array":
        return b"\xdd" + count.to_bytes(4, "big") + item * count
    keys = [msgspec.msgpack.encode(f"{n}") for n in range(count)]
    return b"\xdf" + count.to_bytes(4, "big") + b"".join(key + item for key in keys)


KINDS = st.sampled_from(["array", "map"])
ENCODED = st.one_of(
    st.builds(msgspec.msgpack.encode, VALUES),
    st.builds(wide, SCALARS, st.sampled_from([10, 100, 1000]), KINDS),
    st.builds(wide, st.sampled_from([[], {}, [[]], {"a": {}}, b"", ""]), st.sampled_from([1000, 4000]), KINDS),
    st.builds(deep, SCALARS, st.sampled_from([5, 100, 900, 1100, 20_000]), KINDS),
)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes, and the same with a few of them changed, cut off or put in."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 3))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["change", "cut", "insert", "repeat"])):
            case "change":
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at:]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=5))
            case "repeat":
                data[at:at] = data[max(0, at - 20) : at] * 50
    return bytes(data)


# --- frames -----------------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.integers(0, 4), st.sampled_from([-1, -(1 << 63), (1 << 63) - 1, (1 << 64) - 1]))
NAMES = st.one_of(
    st.sampled_from(["votes", "votes", "chat:lobby", "", "a" * 200, "../x", "a/b", "~", "é"]), st.text(max_size=5)
)
SCHEMAS = st.one_of(
    st.none(),
    st.sampled_from(
        [
            {"type": "integer"},
            {"type": "array", "items": {"type": "string"}, "maxItems": 3},
            {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}},
            {"$ref": "http://example.org/"},
            {"pattern": "(a+)+$"},
            {"type": "nonsense"},
            {"anyOf": [{"const": n} for n in range(50)]},
        ]
    ),
    st.dictionaries(st.sampled_from(["type", "items", "anyOf", "$ref", "pattern", "enum"]), VALUES, max_size=3),
)
LISTS = st.one_of(st.none(), st.lists(st.sampled_from(["alice", "bob", "group:ta", "", "x" * 300]), max_size=4))
SPECS = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.text(max_size=8),
            "schema": SCHEMAS,
            "retain": st.sampled_from(["log", "latest", "keys", "nothing"]),
            "size": st.sampled_from([0, 1, 3, 10, -1, 1 << 40]),
            "filter": st.sampled_from([None, "@owner", "unknown", ""]),
            "readers": LISTS,
            "writers": LISTS,
            "maker": st.just("mallory"),
        },
    ),
    st.dictionaries(st.text(max_size=5), VALUES, max_size=2),
)
RAW = st.builds(lambda data: msgspec.Raw(data), st.builds(msgspec.msgpack.encode, VALUES))
SCOPES = st.sampled_from(["server", "server", "user", "kernel", "hub", "hub:ta", "nowhere", ""])

CLIENT_FRAMES = st.one_of(
    st.builds(frames.Open, NUMBERS, SCOPES, st.one_of(st.none(), NAMES), SPECS, st.sampled_from(["", "", "bob", "k1"]),
              st.sampled_from(["", "c0ffee"]), st.booleans()),
    st.builds(frames.Subscribe, NUMBERS, NUMBERS, st.sampled_from(["", "0", "epoch"]), NUMBERS, st.text(max_size=4), NUMBERS),
    st.builds(frames.Unsubscribe, NUMBERS),
    st.builds(frames.Fetch, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(frames.Publish, NUMBERS, st.one_of(st.integers(1, 30), st.just((1 << 53) - 1)), RAW,
              st.one_of(st.none(), NAMES), st.booleans(), st.booleans(), LISTS, st.one_of(st.none(), NUMBERS)),
    st.builds(frames.SetPresence, NUMBERS, RAW, st.one_of(st.none(), st.booleans())),
    st.builds(frames.FilterAnswer, NUMBERS, NUMBERS, RAW, st.one_of(st.none(), st.text(max_size=5)), st.booleans()),
    st.builds(frames.Delete, NUMBERS, NUMBERS),
    st.builds(frames.List, NUMBERS),
    st.builds(frames.Ping, NUMBERS),
    st.builds(frames.Leave, NUMBERS),
)  # fmt: skip


def message(sent: list[frames.ClientFrame]) -> bytes:
    """A message with frames that may be no frames: one whose fields can't be encoded is left out."""
    parts = []
    for frame in sent:
        try:
            parts.append(frames.encode(frame))
        except (OverflowError, UnicodeEncodeError, TypeError, RecursionError, ValueError):
            continue
    return frames.join(parts)


MESSAGES = st.builds(message, st.lists(CLIENT_FRAMES, min_size=1, max_size=12))
