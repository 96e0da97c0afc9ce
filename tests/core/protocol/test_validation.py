"""The broker's check of encoded values against a JSON Schema."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.validation import Validator
from ebus_jupyter.errors import SpecConflict, TypeMismatch
from tests.core.play import pack


class Struct(msgspec.Struct):
    choice: str
    weight: float = 1.0


@pytest.mark.parametrize(
    ("type_", "raw"),
    [(Struct, {"choice": "x", "weight": "heavy"}), (Struct, {}), (int, "five"), (bytes, 5), (list[int], [1, "two"])],
)
def test_broker_refuses_mismatched_value_of_an_unchecked_writer(type_, raw):
    with pytest.raises(TypeMismatch, match="votes: "):
        Validator(Codec(type_).schema).check(pack(raw), "votes")


def extension(*parts: Any) -> bytes:
    return pack(msgspec.msgpack.Ext(1, pack(list(parts))))


@pytest.mark.parametrize(
    "data",
    [
        extension("<f8", [2], b"short"),
        extension("<f8", [-1], b""),
        extension("O", [1], b"\0" * 8),
        extension("<f8", [1 << 62, 1 << 62], b""),
        extension("V" * 9999, [1], b""),
        extension("<U" + "9" * 9999, [1], b""),
        extension("<f8"),
        pack(msgspec.msgpack.Ext(7, b"")),
    ],
)
def test_malformed_array_is_refused(data):
    with pytest.raises(TypeMismatch):
        Validator(None).check(data, "frames")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "http://x.example/"},
        {"pattern": "("},
        {"x": b"y", "type": 5},
        {"$schema": "http://x.example"},
    ],
)
def test_unusable_schema_raises_spec_conflict(schema):
    with pytest.raises(SpecConflict, match="can't be used"):
        Validator(schema)


def test_pattern_can_not_run_forever():
    try:
        validator = Validator({"type": "string", "pattern": "^(a+)+$"})
    except SpecConflict:
        return
    with pytest.raises(TypeMismatch):
        validator.check(pack("a" * 5000 + "!"), "votes")
