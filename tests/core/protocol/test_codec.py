"""Codecs: values of a Python type to bytes and back, and the schema of the type."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any, Literal, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest

from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.validation import Validator
from ebus_jupyter.errors import SpecConflict, TypeMismatch


class Struct(msgspec.Struct):
    choice: str
    weight: float = 1.0


@dataclasses.dataclass
class Data:
    choice: str
    weight: float = 1.0


class Typed(TypedDict):
    choice: str


class Named(NamedTuple):
    choice: str
    weight: float


class Model(pydantic.BaseModel):
    choice: str
    weight: float = 1.0


NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)

VALUES = [
    (Struct, Struct("tea")),
    (Data, Data("tea", 2.5)),
    (Typed, {"choice": "tea"}),
    (Named, Named("tea", 1.0)),
    (Model, Model(choice="tea")),
    (int, 5),
    (str, "é"),
    (bytes, b"\0\xff"),
    (datetime.datetime, NOW),
    (list[int], [1, 2]),
    (dict[str, list[Struct]], {"a": [Struct("x")]}),
    (int | None, None),
    (Literal["a", "b"], "b"),
    (Any, {"any": [1, None, "x", 2.5, b"x", NOW]}),
]


@pytest.mark.parametrize(("type_", "value"), VALUES, ids=lambda item: getattr(item, "__name__", None))
def test_value_round_trips_and_matches_its_own_schema(type_, value):
    codec = Codec(type_)
    data = codec.encode(value)
    assert codec.decode(data) == value
    Validator(codec.schema).check(data, "votes")


@pytest.mark.parametrize(
    ("type_", "value", "path"),
    [
        (Struct, Struct("x", "heavy"), "$.weight"),  # type: ignore[arg-type]
        (Data, Data("x", "heavy"), "$.weight"),  # type: ignore[arg-type]
        (Typed, {"choice": 5}, "$.choice"),
        (Model, {"choice": "x", "weight": "heavy"}, "$.weight"),
        (list[int], [1, "two"], "$[1]"),
        (int, "five", "$"),
    ],
)
def test_mismatched_value_is_refused_with_its_path(type_, value, path):
    with pytest.raises(TypeMismatch) as refused:
        Codec(type_).encode(value, "votes")
    assert refused.value.path.startswith(path)
    assert str(refused.value).startswith("votes: ")
    assert path in str(refused.value)


@pytest.mark.parametrize("value", [object(), {"a": object()}, lambda: None, 1 << 70, {1, 2}.__iter__()])
def test_unencodable_value_raises_type_mismatch(value):
    with pytest.raises(TypeMismatch):
        Codec().encode(value)


def test_type_without_a_schema_names_alternatives():
    class Mystery:
        pass

    with pytest.raises(SpecConflict, match="Use a msgspec"):
        Codec(Mystery)
