"""One Python type: the writer's check, the broker's, and TypeScript."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import numpy
import numpy.typing
import pydantic
import pytest

from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.typescript import typescript
from ebus_jupyter.core.protocol.validation import Validator
from ebus_jupyter.errors import SpecConflict, TypeMismatch
from tests.core.play import pack


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
def test_a_value_goes_there_and_back_and_its_own_schema_takes_it(type_, value):
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
def test_a_wrong_value_is_refused_at_the_writer_with_its_path(type_, value, path):
    with pytest.raises(TypeMismatch) as refused:
        Codec(type_).encode(value, "votes")
    assert refused.value.path.startswith(path)
    assert str(refused.value).startswith("votes: ")
    assert path in str(refused.value)


@pytest.mark.parametrize(
    ("type_", "raw"),
    [(Struct, {"choice": "x", "weight": "heavy"}), (Struct, {}), (int, "five"), (bytes, 5), (list[int], [1, "two"])],
)
def test_and_by_the_broker_for_writers_that_do_not_check(type_, raw):
    with pytest.raises(TypeMismatch, match="votes: "):
        Validator(Codec(type_).schema).check(pack(raw), "votes")


@pytest.mark.parametrize("value", [object(), {"a": object()}, lambda: None, 1 << 70, {1, 2}.__iter__()])
def test_what_cannot_travel_says_so(value):
    with pytest.raises(TypeMismatch):
        Codec().encode(value)


def test_a_type_without_a_schema_says_what_to_use_instead():
    class Mystery:
        pass

    with pytest.raises(SpecConflict, match="Use a msgspec"):
        Codec(Mystery)


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(6, dtype="i2").reshape(2, 3),
        numpy.zeros((0, 3)),
        numpy.array(5.0),
        numpy.array([True, False]),
        numpy.array(["a", "bcd"]),
        numpy.array(["2026-01-02"], dtype="datetime64[D]"),
        numpy.arange(6).reshape(2, 3).T,
    ],
)
def test_an_array_keeps_its_dtype_and_shape(array):
    codec = Codec(numpy.ndarray)
    data = codec.encode(array)
    back = codec.decode(data)
    assert (back.dtype, back.shape, back.tolist()) == (array.dtype, array.shape, array.tolist())
    Validator(codec.schema).check(data, "frames")
    Validator(None).check(data, "frames")


def test_an_array_of_another_dtype_is_refused():
    codec = Codec(numpy.typing.NDArray[numpy.float32])
    with pytest.raises(TypeMismatch, match="array of <f4"):
        codec.encode(numpy.zeros(3))


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
def test_an_array_that_is_none_gets_past_nobody(data):
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
def test_a_schema_that_cannot_be_held_to_is_a_conflict(schema):
    with pytest.raises(SpecConflict, match="can't be used"):
        Validator(schema)


def test_a_pattern_cannot_be_made_to_run_for_ever():
    try:
        validator = Validator({"type": "string", "pattern": "^(a+)+$"})
    except SpecConflict:
        return
    with pytest.raises(TypeMismatch):
        validator.check(pack("a" * 5000 + "!"), "votes")


@pytest.mark.parametrize(
    ("type_", "said"),
    [
        (int, "export type Value = number;"),
        (list[str], "export type Value = Array<string>;"),
        (dict[str, int], "export type Value = Record<string, number>;"),
        (bytes, "export type Value = Uint8Array;"),
        (Annotated[datetime.datetime, msgspec.Meta(tz=True)], "export type Value = Date | string;"),
        (int | None, "export type Value = number | null;"),
        (Literal["a", 1], 'export type Value = 1 | "a";'),
        (Any, "export type Value = unknown;"),
        (numpy.ndarray, "export type Value = NDArray;"),
    ],
)
def test_typescript(type_, said):
    assert typescript(Codec(type_).schema) == said


def test_typescript_of_a_struct_names_its_fields():
    assert typescript(Codec(Struct).schema, "Struct") == "export type Struct = { choice: string; weight?: number };"
