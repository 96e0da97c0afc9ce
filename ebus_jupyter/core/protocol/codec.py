"""One Python type, three uses: the writer's check, the JSON Schema that the broker enforces, TypeScript for the page.

`Codec` belongs to a participant: it turns values of a Python type into MessagePack and back, and refuses values that are
not of the type, naming the path (``expected float, got str at $.weight``). `Validator` belongs to the broker: it holds
any writer, whatever language it is written in, to the published schema. Both speak of the same bytes:

| Python | MessagePack | JSON Schema | JavaScript |
| --- | --- | --- | --- |
| Struct, dataclass, attrs, TypedDict, pydantic | map | object | object |
| NamedTuple, tuple, list | array | array | Array |
| bytes | bin | string, contentEncoding base64 | Uint8Array |
| datetime with a time zone | timestamp extension | string, format date-time | Date |
| numpy array | extension 1: dtype, shape, data | object of dtype and shape | typed array with ``shape`` |
"""

from __future__ import annotations

import re
import sys
from typing import Any, Generic, TypeVar

import msgspec

from ebus_jupyter.errors import SpecConflict, TypeMismatch

from .ndarray import NDARRAY, array_parts, array_schema
from .validation import short

T = TypeVar("T")

_PATH = re.compile(r" - at `(\$.*)`$")
_EXPECTED = re.compile(r"[Ee]xpected `([^`]+)`")


class Codec(Generic[T]):
    """Values of one Python type, to bytes and back.

    Args:
        type_: Anything that msgspec takes, a pydantic model, ``numpy.ndarray`` or ``numpy.typing.NDArray[dtype]``.
            `Any` takes every value that MessagePack can carry, and numpy arrays.

    Raises:
        SpecConflict: No schema can be made of the type.
    """

    def __init__(self, type_: Any = Any) -> None:
        self.type = type_
        self.name = "" if type_ is Any else getattr(type_, "__name__", str(type_))
        self.schema: dict[str, Any] | None = None
        self._encode = msgspec.msgpack.Encoder(enc_hook=_to_wire).encode
        self._model: Any = None
        wire_type = type_
        if type_ is not Any:
            self._model = _pydantic(type_)
            if self._model is not None:
                self.schema, wire_type = self._model.json_schema(), Any
            elif (array := array_schema(type_)) is not None:
                self.schema = array
            else:
                try:
                    self.schema = msgspec.json.schema(type_, schema_hook=array_schema)
                except (TypeError, NotImplementedError) as error:
                    raise SpecConflict(
                        f"no schema can be made of {self.name or type_!r} ({error}). Use a msgspec.Struct, a dataclass, a "
                        "TypedDict, a pydantic model or builtin types."
                    ) from None
        self._decode = msgspec.msgpack.Decoder(wire_type, ext_hook=_from_wire, dec_hook=_array_as_is).decode

    def encode(self, value: T, bus: str = "the bus") -> bytes:
        """The bytes of ``value``.

        Raises:
            TypeMismatch: It is not of the type (``path``, ``expected``), or MessagePack can't carry it.
        """
        try:
            if self._model is not None:
                checked = self._model.validate_python(value)
                return self._encode(self._model.dump_python(checked, mode="json"))
            data = self._encode(value)
            if self.type is not Any:
                self._decode(data)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise _mismatch(bus, error) from None
        return data

    def decode(self, data: bytes | msgspec.Raw) -> T:
        """The value in ``data``. Raises `TypeMismatch` where the bytes are of another type."""
        try:
            value: T = self._decode(data)
            return value if self._model is None else self._model.validate_python(value)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise _mismatch("the bus", error) from None


# --- how values look on the wire ------------------------------------------------------------------------------------


def _to_wire(value: Any) -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            if value.dtype.hasobject:
                raise TypeError(
                    f"arrays of dtype {value.dtype} can't travel; use a numeric, boolean or fixed-width dtype"
                )
            data = numpy.ascontiguousarray(value)
            body = msgspec.msgpack.encode(
                [value.dtype.str, list(value.shape), data.reshape(-1).view("u1").data if data.size else b""]
            )
            return msgspec.msgpack.Ext(NDARRAY, body)
        if isinstance(value, numpy.generic):
            return value.item()
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(
        f"values of type {type(value).__name__} can't travel on a bus; use msgspec types, pydantic models or numpy arrays"
    )


def _from_wire(code: int, data: memoryview) -> Any:
    if code != NDARRAY:
        return msgspec.msgpack.Ext(code, bytes(data))
    dtype, shape, body = array_parts(data)
    import numpy

    return numpy.frombuffer(body, dtype=dtype).reshape(shape)


def _array_as_is(type_: Any, value: Any) -> Any:
    expected = array_schema(type_)
    if expected is None or type(value).__name__ != "ndarray":
        raise ValueError(f"Expected `{getattr(type_, '__name__', type_)}`, got `{type(value).__name__}`")
    dtype = expected["properties"]["dtype"].get("const")
    if dtype is not None and value.dtype.str != dtype:
        raise ValueError(f"Expected `array of {dtype}`, got `array of {value.dtype.str}`")
    return value


def _pydantic(type_: Any) -> Any:
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not (isinstance(type_, type) and issubclass(type_, pydantic.BaseModel)):
        return None
    return pydantic.TypeAdapter(type_)


# --- words ----------------------------------------------------------------------------------------------------------


def _mismatch(bus: str, error: Exception) -> TypeMismatch:
    if hasattr(error, "errors"):  # pydantic lists what is wrong; the first is enough to go on with
        first = error.errors()[0]
        path = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        return TypeMismatch(f"{bus}: {first['msg']} at {path}.", path=path, expected=first["type"])
    text = str(error)
    at = _PATH.search(text)
    path = at[1] if at else "$"
    said = _PATH.sub("", text).replace("`", "")
    expected = _EXPECTED.search(text)
    return TypeMismatch(
        f"{bus}: {short(said[:1].lower() + said[1:])} at {path}.", path=path, expected=expected[1] if expected else ""
    )
