"""Whatever the bytes are, a decoder returns what they mean or raises its own error, and costs what they pay for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy
import numpy.typing
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebus_jupyter import recording
from ebus_jupyter.core.protocol import frames, json_value
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import BusSpec
from ebus_jupyter.core.protocol.position import Position
from ebus_jupyter.core.protocol.validation import Validator
from ebus_jupyter.errors import EbusError, InvalidName, ProtocolError, SpecConflict, TypeMismatch, UnknownScope

from .cost import pays
from .inputs import ENCODED, MESSAGES, NAMES, SPECS, damaged


@dataclass
class Vote:
    what: str
    weight: float = 1.0


TYPES = (
    Any, int, float, str, bytes, bool, list[int], dict[str, float], dict[int, str], tuple[int, str], Vote, datetime,
    UUID, Decimal, numpy.ndarray, numpy.typing.NDArray[numpy.float64], list[Vote] | None,
)  # fmt: skip


@given(damaged(st.one_of(MESSAGES, ENCODED)))
def test_frame_decoder(data: bytes) -> None:
    for decode in (frames.from_client, frames.from_broker):
        try:
            pays(len(data), lambda decode=decode: decode(data), steps=4, bytes_=256)
        except ProtocolError as error:
            assert len(str(error)) < 1000


@given(damaged(ENCODED))
def test_delivery_decoder(data: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError, RecursionError)):
        pays(len(data), lambda: frames.delivery(data), steps=4, bytes_=256)
        raise msgspec.DecodeError


@pytest.mark.parametrize("type_", TYPES, ids=str)
@given(data=damaged(ENCODED))
@settings(max_examples=settings.default.max_examples // 3)
def test_codec(type_: Any, data: bytes) -> None:
    codec = Codec(type_)
    try:
        value = pays(len(data), lambda: codec.decode(data), steps=8, bytes_=512, base=4)
    except TypeMismatch as error:
        assert len(str(error)) < 1000
    else:
        codec.decode(codec.encode(value))


@given(SPECS, damaged(ENCODED))
def test_validator(spec: dict[str, Any], data: bytes) -> None:
    try:
        made = BusSpec.create(spec, Limits())
        size = len(msgspec.msgpack.encode(made.schema))
        validator = pays(size, lambda: Validator.of(made.schema), steps=8, bytes_=512, base=4)
    except EbusError:
        return
    try:
        pays(len(data), lambda: validator.check(data, "votes"), steps=8, bytes_=512, base=4)
    except TypeMismatch as error:
        assert len(str(error)) < 1000


@given(damaged(ENCODED))
def test_value_that_anybody_can_read_has_a_form_in_json(data: bytes) -> None:
    try:
        Validator.of(None).check(data, "votes")
    except TypeMismatch:
        return
    form = pays(len(data), lambda: json_value.to_json(data), steps=16, bytes_=1024)
    text = msgspec.json.encode(form)
    again = pays(len(text), lambda: json_value.from_json(msgspec.json.decode(text)), steps=16, bytes_=1024)
    assert msgspec.json.encode(json_value.to_json(again)) == text


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda items: st.lists(items, max_size=4)
    | st.dictionaries(
        st.text(max_size=5)
        | st.sampled_from(["$bytes", "$time", "$array", "$float", "$pairs", "$map", "$msgpack", "dtype", "shape", "data"]),
        items, max_size=3,
    ),
    max_leaves=15,
))  # fmt: skip
def test_json_of_anybody(form: Any) -> None:
    size = len(repr(form))
    try:
        pays(size, lambda: json_value.from_json(form), steps=16, bytes_=1024)
    except TypeMismatch as error:
        assert error.path.startswith("$")


@given(
    st.one_of(
        st.text(),
        st.builds("ebus:{}/{}".format, st.text(max_size=8), NAMES),
        st.text(max_size=5).map(lambda t: t * 5000),
    )
)
def test_addresses(text: str) -> None:
    try:
        address = pays(len(text), lambda: Address.parse(text), steps=8, bytes_=64)
    except (InvalidName, UnknownScope) as error:
        assert len(str(error)) < 1000
    else:
        assert Address.parse(str(address)) == address


@given(st.one_of(st.text(), st.text(max_size=5).map(lambda t: t * 5000)))
def test_positions(text: str) -> None:
    try:
        position = pays(len(text), lambda: Position.parse(text), steps=8, bytes_=64)
    except (ValueError, EbusError) as error:
        assert len(str(error)) < 1000
    else:
        assert Position.parse(str(position)) == position


@given(SPECS)
def test_specs(spec: dict[str, Any]) -> None:
    size = len(repr(spec))
    try:
        made = pays(size, lambda: BusSpec.create(spec, Limits()), steps=8, bytes_=256)
        pays(size, lambda: made.join(spec, "votes"), steps=8, bytes_=256)
    except EbusError as error:
        assert error.code in ("spec_conflict", "too_large", "type_mismatch"), repr(error)
        assert len(str(error)) < 3000


FIELDS = ["ebus", "at", "value", "key", "deleted", "spec", "name", "scope"]
LINES = st.one_of(
    st.binary(max_size=60),
    st.builds(lambda form: json.dumps(form).encode(), st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.just(1),
        lambda items: st.lists(items, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS), items, max_size=5),
        max_leaves=8,
    )),
)  # fmt: skip


@given(st.lists(LINES, max_size=6), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_recordings(tmp_path: Path, lines: list[bytes], has_header: bool) -> None:
    header = [b'{"ebus":1,"name":"votes","scope":"server","spec":{}}'] if has_header else []
    path = tmp_path / "votes.jsonl"
    path.write_bytes(b"\n".join([*header, *lines]))
    bus = Bus()
    try:
        pays(path.stat().st_size, lambda: recording.replay(bus, path), steps=64, bytes_=1024, base=64)  # type: ignore[arg-type]
    except (recording.RecordingError, TypeMismatch, SpecConflict) as error:
        assert len(str(error)) < 1000


class Bus:
    """A bus that takes everything."""

    codec: Codec[Any] = Codec()
    name = "votes"

    class Ack:
        def result(self, timeout: float | None = None) -> int:
            return 1

    def write(self, value: Any, *, key: str | None = None, **_: Any) -> Ack:
        self.codec.encode(value)
        return self.Ack()

    def remove(self, key: str) -> Ack:
        return self.Ack()

    def flush(self) -> None:
        pass
