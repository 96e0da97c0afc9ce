"""Values of one Python type as MessagePack, and back.

One type has three uses. `Codec`, here, belongs to a participant: it encodes and decodes values, refuses those that are
not of the type and names the path (``expected float, got str at $.weight``), and derives the bus's JSON Schema. The
broker holds every writer, whatever its language, to that schema (`core.protocol.validation`), and pages get TypeScript
declarations from it (`core.protocol.typescript`). All of them mean the same bytes:

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

from ebus_jupyter.errors import SpecConflict, TypeMismatch, shorten

from .ndarray import NDARRAY, array_schema, decode_array, encode_array

T = TypeVar("T")

_PATH = re.compile(r" - at `(\$.*)`$")
_EXPECTED = re.compile(r"[Ee]xpected `([^`]+)`")


class Codec(Generic[T]):
    """Encodes and decodes values of one Python type.

    Args:
        type_: Anything that msgspec takes, a pydantic model, ``numpy.ndarray`` or ``numpy.typing.NDArray[dtype]``.
            Default: `Any`, which takes every value that MessagePack can carry, and numpy arrays.

    Attributes:
        name: The type's name, for people; "" for `Any`.
        schema: The JSON Schema of the type; None for `Any`.

    Raises:
        SpecConflict: No schema can be made of the type.
    """

    def __init__(self, type_: Any = Any) -> None:
        self.type = type_
        self.name = "" if type_ is Any else getattr(type_, "__name__", str(type_))
        self.schema: dict[str, Any] | None = None
        self._encode = msgspec.msgpack.Encoder(enc_hook=_encode_hook).encode
        self._model: Any = None
        wire_type = type_
        if type_ is not Any:
            self._model = _pydantic_adapter(type_)
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
        self._decode = msgspec.msgpack.Decoder(wire_type, ext_hook=_ext_hook, dec_hook=_decode_hook).decode

    def encode(self, value: T, bus: str = "the bus") -> bytes:
        """The bytes of ``value``.

        Args:
            value: A value of the type.
            bus: The bus's name, for the error.

        Raises:
            TypeMismatch: The value is not of the type (``path``, ``expected``), or MessagePack can't carry it.
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
        """The value in ``data``.

        Raises:
            TypeMismatch: The bytes are no value of the type.
        """
        try:
            value: T = self._decode(data)
            return value if self._model is None else self._model.validate_python(value)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise _mismatch("the bus", error) from None


# --- hooks of msgspec -----------------------------------------------------------------------------------------------


def _encode_hook(value: Any) -> Any:
    """A substitute that msgspec can encode, for a ``value`` that it does not know."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return encode_array(value)
        if isinstance(value, numpy.generic):
            return value.item()
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(
        f"values of type {type(value).__name__} can't travel on a bus; use msgspec types, pydantic models or numpy arrays"
    )


def _ext_hook(code: int, body: memoryview) -> Any:
    """The value of a MessagePack extension."""
    return decode_array(body) if code == NDARRAY else msgspec.msgpack.Ext(code, bytes(body))


def _decode_hook(type_: Any, value: Any) -> Any:
    """Hold a decoded ``value`` to a type that msgspec does not know: an array type."""
    expected = array_schema(type_)
    if expected is None or type(value).__name__ != "ndarray":
        raise ValueError(f"Expected `{getattr(type_, '__name__', type_)}`, got `{type(value).__name__}`")
    dtype = expected["properties"]["dtype"].get("const")
    if dtype is not None and value.dtype.str != dtype:
        raise ValueError(f"Expected `array of {dtype}`, got `array of {value.dtype.str}`")
    return value


def _pydantic_adapter(type_: Any) -> Any:
    """The adapter of a pydantic model; None for every other type."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not (isinstance(type_, type) and issubclass(type_, pydantic.BaseModel)):
        return None
    return pydantic.TypeAdapter(type_)


# --- errors ---------------------------------------------------------------------------------------------------------


def _mismatch(bus: str, error: Exception) -> TypeMismatch:
    """The project's own error for one of msgspec or pydantic."""
    if hasattr(error, "errors"):  # pydantic lists what is wrong; the first item is enough to go on with
        first = error.errors()[0]
        path = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        return TypeMismatch(f"{bus}: {first['msg']} at {path}.", path=path, expected=first["type"])
    text = str(error)
    at = _PATH.search(text)
    path = at[1] if at else "$"
    what = _PATH.sub("", text).replace("`", "")
    expected = _EXPECTED.search(text)
    return TypeMismatch(
        f"{bus}: {shorten(what[:1].lower() + what[1:])} at {path}.", path=path, expected=expected[1] if expected else ""
    )
