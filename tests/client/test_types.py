"""Values of every kind of type round-trip through a bus."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypedDict

import attrs
import msgspec
import numpy as np
import numpy.typing as npt
import pydantic
import pytest

import ebus_jupyter as ebus

from .conftest import Line


class Struct(msgspec.Struct):
    name: str
    at: datetime


@dataclasses.dataclass
class Data:
    raw: bytes
    tags: list[str]


@attrs.define
class Attrs:
    n: int


class Typed(TypedDict):
    x: float


class Named(NamedTuple):
    x: int
    y: int


class Model(pydantic.BaseModel):
    n: int
    note: str = ""


class WithArray(msgspec.Struct):
    data: npt.NDArray[np.float32]


NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Struct, Struct("tea", NOON)),
        (Data, Data(b"\x00\xff", ["a"])),
        (Attrs, Attrs(3)),
        (Typed, {"x": 1.5}),
        (Named, Named(1, 2)),
        (Model, Model(n=1, note="x")),
        (datetime, NOON),
        (bytes, b"\x01\x02"),
        (dict[str, list[int]], {"a": [1, 2]}),
        (int | None, None),
        (Any, {"deep": [1, "two", None, {"three": 3.0}]}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_value_round_trips_through_a_bus(line: Line, type_: Any, value: Any) -> None:
    bus = line.client().bus("typed", type_)
    stream = bus.stream()
    bus.write(value).result(5)
    assert stream.get(5) == value


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i8", "|u1", "|b1", "<c16", "<M8[s]"])
def test_array_keeps_dtype_and_shape(line: Line, dtype: str) -> None:
    array = np.arange(6).astype(dtype).reshape(2, 3)
    bus = line.client().bus("arrays", np.ndarray)
    stream = bus.stream()
    bus.write(array).result(5)
    heard = stream.get(5)
    assert (heard.dtype, heard.shape) == (array.dtype, array.shape)
    assert (heard == array).all()


def test_array_of_wrong_dtype_is_refused_on_both_sides(line: Line) -> None:
    bus = line.client().bus("floats", npt.NDArray[np.float32])
    with pytest.raises(ebus.TypeMismatch, match="expected array of <f4"):
        bus.write(np.zeros(2))
    with pytest.raises(ebus.TypeMismatch, match="expected array of <f4"):
        line.client("bob", "k2").bus("floats").write(np.zeros(2)).result(5)


def test_array_inside_a_struct_round_trips(line: Line) -> None:
    bus = line.client().bus("struct", WithArray)
    stream = bus.stream()
    bus.write(WithArray(np.ones(3, "f4"))).result(5)
    assert (stream.get(5).data == 1).all()


def test_value_that_cannot_travel_is_refused_with_its_type(line: Line) -> None:
    bus = line.client().bus("any")
    with pytest.raises(ebus.TypeMismatch, match="values of type object can't travel"):
        bus.write(object())
    with pytest.raises(ebus.SpecConflict, match="no schema can be made"):
        line.client().bus("odd", type(lambda: 0))


def test_bus_describes_its_type_in_typescript(line: Line) -> None:
    assert line.client().bus("typed", Data).typescript == "export type Data = { raw: Uint8Array; tags: Array<string> };"


def test_latest_retains_one_and_conflates_for_slow_readers(line: Line) -> None:
    speed = line.client().bus("speed", int, retain="latest")
    slow = speed.stream()
    for n in range(50):
        ack = speed.write(n)
    ack.result(5)
    assert speed.history() == [49]
    seen = [slow.get(5)]
    while seen[-1] != 49:
        seen.append(slow.get(5))
    assert seen == sorted(seen), "what it received is in order"


def test_keys_retains_the_last_message_of_each_key(line: Line) -> None:
    places = line.client().bus("places", str, retain="keys")
    for key, value in [("a", "1"), ("b", "1"), ("a", "2")]:
        places.write(value, key=key)
    places.remove("b").result(5)
    assert places.history() == ["2"]
    with pytest.raises(ebus.TypeMismatch, match="retains by key"):
        places.write("x").result(5)
