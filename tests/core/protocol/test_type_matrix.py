# ruff: noqa: UP045 (tables; both forms of an optional type)
"""One verdict on a value, whoever asks: type × value × way in.

The ways in are Python's `write`, a raw frame, and the JSON of REST. (A page makes no check of its own: what it writes is a raw
frame.) What is accepted can be decoded by a reader of the type, and what a reader decodes can be written again.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Optional, TypedDict
from uuid import UUID

import attrs
import msgspec
import numpy as np
import numpy.typing as npt
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.json_value import from_json, to_json
from ebus_jupyter.core.protocol.validation import Validator
from ebus_jupyter.errors import TypeMismatch
from tests.core.play import pack

Ext = msgspec.msgpack.Ext
NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)


class Color(enum.Enum):
    RED = "r"
    GREEN = "g"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str
    tricks: list[str] = []


class Point(msgspec.Struct, array_like=True):
    x: float
    y: float = 0.0


class Closed(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    first_name: str
    of_age: bool | None = None


class Tree(msgspec.Struct):
    n: int
    kids: list[Tree] = []


class Framed(msgspec.Struct):
    data: npt.NDArray[np.float32]
    at: dt.datetime | None = None


@dataclasses.dataclass
class Data:
    raw: bytes
    when: dt.date = dt.date(2026, 1, 1)


@attrs.define
class Attrs:
    n: int


class Typed(TypedDict):
    x: float
    y: NotRequired[int]


class Named(NamedTuple):
    x: int
    y: str = "y"


class Model(pydantic.BaseModel):
    n: int
    when: dt.datetime | None = None
    ratio: float = 1.0


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    when: dt.datetime
    pair: tuple[int, int] = (1, 2)
    id: UUID | None = None
    price: Decimal | None = None


class Aliased(pydantic.BaseModel):
    a: int = pydantic.Field(alias="theA")


class Computed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    a: int

    @pydantic.computed_field
    @property
    def double(self) -> int:
        return self.a * 2


class Blob(pydantic.BaseModel):
    data: bytes
    many: dict[int, set[str]] = {}


class Kitten(pydantic.BaseModel):
    kind: Literal["kitten"]
    lives: int


class Puppy(pydantic.BaseModel):
    kind: Literal["puppy"]
    name: Annotated[str, pydantic.Field(pattern=r"^[a-z]+$", max_length=5)]


class Litter(pydantic.BaseModel):
    pets: list[Annotated[Kitten | Puppy, pydantic.Field(discriminator="kind")]]
    limit: Annotated[Decimal, pydantic.Field(gt=0)] | None = None


OWN: list[tuple[Any, list[Any]]] = [
    (Any, [1, {"a": [None, b"x", NOON, 1.5, np.arange(3)]}, math.nan, {1: 2}]),
    (object, [1, "x"]),
    (None, [None]),
    (bool, [True]),
    (int, [0, -(2**63), 2**64 - 1]),
    (float, [1.5, 1, math.nan, math.inf, -math.inf]),
    (str, ["", "é"]),
    (bytes, [b"\xff", b""]),
    (dt.datetime, [NOON, NOON.replace(tzinfo=None)]),
    (Annotated[dt.datetime, msgspec.Meta(tz=True)], [NOON]),
    (Annotated[dt.datetime, msgspec.Meta(tz=False)], [NOON.replace(tzinfo=None)]),
    (dt.date, [NOON.date()]),
    (dt.time, [dt.time(1, 2), dt.time(1, 2, tzinfo=dt.UTC)]),
    (dt.timedelta, [dt.timedelta(days=-1, seconds=3.5)]),
    (UUID, [UUID(int=5)]),
    (Decimal, [Decimal("1.10"), Decimal("NaN")]),
    (Color, [Color.RED]),
    (Level, [Level.HIGH]),
    (Literal["a", 1, None], ["a", 1, None]),
    (Optional[int], [None, 1]),
    (int | str | None, [1, "x"]),
    (Optional[list[int | None]], [None, [1, None]]),
    (float | str, [1, 1.5, "x"]),
    (list[int], [[1, 2]]),
    (list, [[1, "x", None]]),
    (tuple[int, str], [(1, "a")]),
    (tuple[int, ...], [(1, 2, 3)]),
    (set[int], [{1, 2}]),
    (set, [{1, "x", None}, {b"x"}, {NOON}]),
    (frozenset[str], [frozenset("ab")]),
    (dict, [{"a": 1}, {1: 2}, {b"x": None}]),
    (dict[str, float], [{"a": 1.0, "b": 2}]),
    (dict[int, str], [{1: "a"}]),
    (dict[UUID, int], [{UUID(int=1): 1}]),
    (dict[Color, int], [{Color.RED: 1}]),
    (dict[Level, int], [{Level.LOW: 1}]),
    (dict[dt.datetime, int], [{NOON: 1}]),
    (dict[tuple[int, int], str], [{(1, 2): "a"}]),
    (Annotated[int, msgspec.Meta(ge=0, lt=100)], [0, 99]),
    (Annotated[float, msgspec.Meta(gt=0)], [0.5, math.inf]),
    (Annotated[int, msgspec.Meta(multiple_of=3)], [3]),
    (Annotated[str, msgspec.Meta(pattern="^a+$", max_length=4)], ["aa"]),
    (Annotated[bytes, msgspec.Meta(min_length=2, max_length=3)], [b"abc"]),
    (Annotated[list[int], msgspec.Meta(min_length=1)], [[1]]),
    (Annotated[dict[str, int], msgspec.Meta(max_length=1)], [{"a": 1}]),
    (Cat, [Cat(9)]),
    (Cat | Dog, [Cat(9), Dog("rex", ["sit"])]),
    (Cat | Dog | None | int, [Cat(9), None, 4]),
    (Point, [Point(1, 2)]),
    (Closed, [Closed("ann", True)]),
    (Tree, [Tree(1, [Tree(2, [Tree(3)])])]),
    (Data, [Data(b"\xff")]),
    (Attrs, [Attrs(1)]),
    (Typed, [{"x": 1.5}, {"x": 1, "y": 2}]),
    (Named, [Named(1), Named(1, "z")]),
    (dict[str, list[Closed]], [{"a": [Closed("x")]}]),
    (np.ndarray, [np.arange(3.0), np.zeros((0, 3)), np.array(1), np.array(["a", "bc"]), np.array(["2020"], "M8[ns]")]),
    (npt.NDArray[np.float32], [np.ones((2, 2), "f4")]),
    (np.ndarray[tuple[int, int], np.dtype[np.float32]], [np.ones((2, 2), "f4")]),
    (Framed, [Framed(np.ones(2, "f4"), NOON)]),
    (Model, [Model(n=1, when=NOON), Model(n=2, ratio=math.nan)]),
    (Strict, [Strict(when=NOON), Strict(when=NOON, id=UUID(int=1), price=Decimal("1.5"))]),
    (Aliased, [Aliased(theA=1)]),
    (Computed, [Computed(a=1)]),
    (Blob, [Blob(data=b"\xff", many={1: {"x"}})]),
    (Litter, [Litter(pets=[Kitten(kind="kitten", lives=9), Puppy(kind="puppy", name="rex")], limit=Decimal(3))]),
]
"""Each type, with values that are of it."""


def array(*parts: Any) -> bytes:
    return pack(Ext(1, pack(list(parts))))


def frames() -> list[bytes]:
    """Values as they may come in a raw frame."""
    texts = [
        "",
        "x",
        "a",
        "r",
        "aa",
        "b",
        "aGk=",
        "2026-01-02",
        "12:00:00",
        "12:00:00Z",
        "P1D",
        "-PT1.5S",
        "1.5",
        "NaN",
    ]
    texts += [
        "2026-01-02T12:00:00Z",
        "2026-01-02T12:00:00",
        "2026-13-02T12:00:00Z",
        str(UUID(int=5)),
        "Infinity",
        "aa\n",
        "1",
    ]
    numbers = [0, 1, 2, 3, -1, 99, 100, 1.0, 1.5, -0.0, math.nan, math.inf, 2**63, 2**64 - 1, -(2**63)]
    scalars = [None, True, False, *numbers, *texts, b"", b"x", b"abc", b"\xff" * 16, NOON]
    found = [pack(value) for value in scalars]
    found += [pack([value]) for value in scalars]
    found += [pack(value) for value in ([], {}, [1, "a"], [1, 1], [1, "a", 2], [[1, 2]], [{}], [1, None], [[1], [1]])]
    maps: list[Any] = [
        {key: value} for key in ("a", "x", "n", "", 1, b"x", True, None, 1.5, NOON, (1, 2)) for value in (1, "a")
    ]
    maps += [
        {"type": "Cat", "lives": 9},
        {"type": "Cow"},
        {"lives": 9},
        {"type": 1},
        {"type": "Dog", "name": "x", "tricks": [1]},
    ]
    maps += [{"firstName": "x"}, {"firstName": "x", "more": 1}, {"first_name": "x"}, {"firstName": "x", "ofAge": None}]
    maps += [
        {"n": 1, "kids": [{"n": 2}]},
        {"n": 1, "kids": [{"n": 2.0}]},
        {"n": 1, "when": "x"},
        {"n": 1, "when": NOON},
    ]
    maps += [
        {"raw": b"x"},
        {"raw": "x"},
        {"raw": b"x", "when": "2026-01-02"},
        {"raw": b"x", "when": NOON},
        {"x": 1, "y": "z"},
    ]
    maps += [
        {"when": NOON},
        {"when": "2026-01-02T12:00:00Z"},
        {"when": NOON, "pair": [1, 2]},
        {"when": NOON, "pair": [1]},
    ]
    maps += [{"when": NOON, "id": str(UUID(int=5))}, {"when": NOON, "id": "x"}, {"when": NOON, "price": "1.5"}]
    maps += [{"when": NOON, "price": "NaN"}, {"theA": 1}, {"a": 1, "double": 2}, {"data": b"x"}, {"data": "x"}]
    maps += [{"data": b"x", "many": {1: ["a"]}}, {"data": b"x", "many": {"1": ["a"]}}, {"dtype": "<f8", "shape": [1]}]
    maps += [
        {"pets": [{"kind": "kitten", "lives": 1}]},
        {"pets": [{"kind": "cow"}]},
        {"pets": [{"kind": "puppy", "name": "REX"}]},
    ]
    maps += [{"pets": [], "limit": "-1"}, {"pets": [], "limit": "1e3"}, {str(UUID(int=1)): 1}, {"r": 1}]
    found += [pack(value) for value in maps]
    arrays = [
        array("<f8", [1], b"\0" * 8),
        array("<f4", [2], b"\0" * 8),
        array("<f4", [1, 2], b"\0" * 8),
        array("<f4", [0], b""),
    ]
    arrays += [
        array("|V8", [1], b"\0" * 8),
        array("<f16", [1], b"\0" * 16),
        array("<f4", [3], b"\0" * 8),
        array("|O", [1], b"\0" * 8),
    ]
    found += arrays + [b"\x81\xa4data" + each for each in arrays]
    found += [pack(Ext(7, b"")), b"\xa1\xff", b"\xc1", b"\x91", b"", pack(1) + b"\x01"]
    found += [
        b"\x82\xa1n\xa1x\xa1n\x01",
        b"\x82\x01\xa1a\xc3\xa1a",
        b"\x82\xa1a\x01\xa1a\x01",
        b"\xd3" + b"\0" * 7 + b"\x01",
    ]
    return found


def accepts(check: Any, *args: Any) -> bool:
    try:
        check(*args)
    except TypeMismatch:
        return False
    return True


def name(type_: Any) -> str:
    return getattr(type_, "__name__", str(type_)) if isinstance(type_, type) else str(type_).replace("typing.", "")


@pytest.mark.parametrize(("type_", "values"), OWN, ids=[name(type_) for type_, _ in OWN])
def test_values_of_a_type_are_accepted_and_come_back(type_: Any, values: list[Any]) -> None:
    codec = Codec(type_)
    for value in values:
        data = codec.encode(value)
        Validator.of(codec.schema).check(data, "bus")
        Validator.of(codec.schema).check(from_json(to_json(data)), "bus")
        found = codec.decode(data)
        assert msgspec.msgpack.encode(repr(found)) == msgspec.msgpack.encode(repr(value)) or found == value
        codec.encode(found)


@pytest.mark.parametrize("type_", [type_ for type_, _ in OWN], ids=[name(type_) for type_, _ in OWN])
def test_verdict_on_a_value_is_the_same_by_every_way_in(type_: Any) -> None:
    codec = Codec(type_)
    validator = Validator.of(codec.schema)
    wrong = []
    for data in [*frames(), *(Codec(other).encode(value) for other, values in OWN for value in values)]:
        said = verdicts(codec, validator, data)
        if said:
            wrong.append(f"{name(type_)} × {shown(data)}: {said}")
    assert not wrong, "\n".join(wrong)


def verdicts(codec: Codec[Any], validator: Validator, data: bytes) -> str:
    """What is inconsistent about the verdicts on ``data``; "" where nothing is."""
    broker, reader = accepts(validator.check, data, "bus"), accepts(codec.decode, data)
    if broker and not reader:
        only_code = codec.type is Litter and b"-1" in data
        return "" if only_code else "accepted, and can't be decoded"
    if not broker:
        return ""
    value = codec.decode(data)
    if not accepts(codec.encode, value):
        return f"accepted and decoded, and {value!r} can't be written"
    if accepts(validator.check, from_json(to_json(data)), "bus") is not broker:
        return "another verdict by REST"
    return ""


def shown(data: bytes) -> str:
    try:
        return repr(msgspec.msgpack.decode(data))[:100]
    except (msgspec.MsgspecError, TypeError, ValueError):
        return repr(data)


@pytest.mark.parametrize("type_", [type_ for type_, _ in OWN if type_ not in (UUID, Decimal)], ids=name)
def test_what_a_reader_decodes_is_refused_only_for_its_form(type_: Any) -> None:
    """A value that decodes, and is encoded as the same bytes by a writer of the type, is accepted."""
    codec = Codec(type_)
    validator = Validator.of(codec.schema)
    wrong = []
    for data in frames():
        try:
            value = codec.decode(data)
            if codec._encode(value if codec._model is None else codec._model.to_builtins(value)) != data:
                continue
        except (TypeMismatch, TypeError, ValueError):
            continue
        is_line = data == pack("aa\n")  # `$` is the end of the text, not also what comes before the last newline
        if not accepts(validator.check, data, "bus") and not is_line:
            wrong.append(f"{name(type_)} × {shown(data)}")
    assert not wrong, "\n".join(wrong)


def test_refusal_says_the_same_at_the_writer_and_the_broker() -> None:
    codec = Codec(dict[str, list[Closed]])
    wrong = {"a": [{"firstName": 5}]}
    with pytest.raises(TypeMismatch) as at_writer:
        codec.encode(wrong, "bus")  # type: ignore[arg-type]
    with pytest.raises(TypeMismatch) as at_broker:
        Validator.of(codec.schema).check(pack(wrong), "bus")
    assert str(at_writer.value) == str(at_broker.value) == "bus: expected str, got int at $.a[0].firstName."
    assert at_writer.value.path == at_broker.value.path == "$.a[0].firstName"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, 1 << 70]}, "$.a[1]"),
        ({"a": object()}, "$.a"),
        ([np.zeros(1, [("x", "i4")])], "$[0]"),
        (["\ud800"], "$[0]"),
    ],
)
def test_value_that_cannot_be_encoded_is_refused_with_its_path(value: Any, path: str) -> None:
    with pytest.raises(TypeMismatch) as refused:
        Codec().encode(value)
    assert refused.value.path == path


@pytest.mark.parametrize(
    "array", [np.zeros(1, "V8"), np.zeros(1, [("x", "i4")]), np.zeros(1, np.longdouble), np.array([object()])]
)
def test_array_that_not_every_reader_has_is_refused_by_its_writer(array: Any) -> None:
    for type_ in (Any, np.ndarray):
        with pytest.raises(TypeMismatch, match="can't travel"):
            Codec(type_).encode(array)


# --- random types, random values --------------------------------------------------------------------------------------

SCALARS = [
    int,
    float,
    str,
    bytes,
    bool,
    None,
    dt.datetime,
    dt.date,
    dt.timedelta,
    UUID,
    Decimal,
    Color,
    Level,
    Cat,
    Closed,
    Any,
]
KEYS = [str, int, Color, UUID, dt.date]


def types() -> st.SearchStrategy[Any]:
    def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(
            inner.map(lambda item: list[item]),
            inner.map(lambda item: Optional[item]),
            st.tuples(inner, inner).map(lambda items: tuple[items]),
            st.tuples(st.sampled_from(KEYS), inner).map(lambda items: dict[items]),
        )

    return st.recursive(st.sampled_from(SCALARS), grown, max_leaves=4)


keys = st.one_of(
    st.text(max_size=3), st.integers(-2, 3), st.sampled_from(["type", "lives", "firstName", "r", "2026-01-02"])
)
scalars = st.one_of(
    st.sampled_from(
        [None, True, 1, 1.0, "r", "Cat", "2026-01-02", "2026-01-02T12:00:00Z", "P1D", str(UUID(int=1)), "1.5", NOON]
    ),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
)
wire = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(types(), wire)
def test_verdicts_agree_on_random_types_and_values(type_: Any, value: Any) -> None:
    try:
        codec = Codec(type_)
    except Exception as error:  # msgspec takes not every combination
        assert "no schema" in str(error)
        return
    assert verdicts(codec, Validator.of(codec.schema), pack(value)) == ""


texts = st.one_of(
    st.datetimes().map(str), st.datetimes().map(dt.datetime.isoformat), st.dates().map(str), st.times().map(str),
    st.decimals().map(str), st.uuids().map(str), st.timedeltas().map(lambda each: msgspec.to_builtins(each)),
    st.from_regex(r"\A\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:?\d\d)?\Z"),
    st.from_regex(r"\A-?P(\d+D)?(T\d+H\d+(\.\d+)?S)?\Z"),
)  # fmt: skip


class Times(pydantic.BaseModel):
    a: dt.datetime | None = None
    b: dt.date | None = None
    c: dt.time | None = None
    d: dt.timedelta | None = None
    e: UUID | None = None
    f: Decimal | None = None


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from("abcdef"), texts)
def test_text_accepted_for_a_model_can_be_decoded_by_it(field: str, text: str) -> None:
    codec = Codec(Times)
    assert verdicts(codec, Validator.of(codec.schema), pack({field: text})) == ""
