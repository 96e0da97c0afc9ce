"""Values as JSON, and back without loss."""

from __future__ import annotations

import datetime as dt
import inspect
import json
import math
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.json_value import from_json, to_json
from ebus_jupyter.errors import TypeMismatch

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.just(dt.UTC))
)
words = st.text() | st.sampled_from(["$bytes", "$map", "$pairs", "$float", "$time", "$array", "$msgpack", "$other"])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner) | st.dictionaries(words, inner) | st.dictionaries(st.integers(0, 9) | st.binary(), inner)
    ),
    max_leaves=12,
)


@given(values)
def test_every_value_round_trips_through_json(value: Any) -> None:
    data = msgspec.msgpack.encode(value)
    form = json.loads(json.dumps(to_json(data), allow_nan=False))
    assert from_json(form) == data


@pytest.mark.parametrize("bits", ["7ff8000000000000", "fff8000000000000", "7ff8000000000001"])
def test_nan_keeps_its_bits(bits: str) -> None:
    data = b"\xcb" + bytes.fromhex(bits)
    assert from_json(json.loads(json.dumps(to_json(data), allow_nan=False))) == data


def test_array_round_trips_through_json() -> None:
    codec: Codec[Any] = Codec()
    for array in (np.arange(6, dtype="<i2").reshape(2, 3), np.array(1.5), np.zeros((0, 3))):
        data = codec.encode(array)
        assert from_json(json.loads(json.dumps(to_json(data)))) == data


def test_plain_json_is_unchanged() -> None:
    value = {"a": [1, 2.5, None, True, "x"], "$set": {"b": 1}}
    assert to_json(msgspec.msgpack.encode(value)) == value
    assert msgspec.msgpack.decode(from_json(value)) == value


def test_deeply_nested_value_round_trips() -> None:
    # Deeper than Python may recurse here, and no deeper than MessagePack's own decoder goes.
    depth = 700
    value: Any = 1
    for _ in range(depth):
        value = [value]
    data = msgspec.msgpack.encode(value)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + depth)
    try:
        form = to_json(data)
    finally:
        sys.setrecursionlimit(limit)
    assert list(form) == ["$msgpack"]
    assert from_json(form) == data


@pytest.mark.parametrize(
    ("form", "path"),
    [
        ({"$bytes": 1}, "$"),
        ({"a": [{"$bytes": "%"}]}, "$.a[0]"),
        ({"$time": "yesterday"}, "$"),
        ({"$time": "2026-01-31"}, "$"),
        ({"$array": {"dtype": "<f8"}}, "$"),
        ({"$float": "1"}, "$"),
        ({"$pairs": [1]}, "$"),
        ({"$map": 1}, "$"),
        ({"$msgpack": "aGk="}, "$"),
        (1 << 70, "$"),
    ],
)
def test_malformed_form_is_refused_with_its_path(form: Any, path: str) -> None:
    with pytest.raises(TypeMismatch) as refused:
        from_json(form)
    assert refused.value.path == path


def test_nan_and_infinity_have_json_forms() -> None:
    for number in (math.nan, math.inf, -math.inf):
        assert to_json(msgspec.msgpack.encode(number)) == {"$float": str(number)}


def test_key_that_holds_arrays_of_arrays_has_a_form_in_json():
    data = msgspec.msgpack.encode({(((), 1), 2): "x"})
    assert from_json(to_json(data)) == data
