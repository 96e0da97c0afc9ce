"""Values of one Python type as MessagePack, and back.

One type has three uses. `Codec`, here, belongs to a participant: it encodes and decodes values, refuses those that are
not of the type and names the path (``expected float, got str at $.weight``), and derives the bus's JSON Schema. The
broker holds every writer, whatever its language, to that schema, by the very check that a codec makes
(`core.protocol.validation`), and pages get TypeScript declarations from it (`core.protocol.typescript`). All of them mean
the same bytes:

| Python | MessagePack | JSON Schema | JavaScript |
| --- | --- | --- | --- |
| Struct, dataclass, attrs, TypedDict, pydantic | map | object | object |
| NamedTuple, tuple, list | array | array | Array |
| bytes | bin | string, contentEncoding base64 | Uint8Array |
| datetime with a time zone | timestamp extension | string, format date-time | Date |
| date, time, timedelta, UUID, Decimal | str | string, with its format | string |
| dict with other keys than str | map | object, ``x-ebus`` with ``keys`` | Map |
| numpy array | extension 1: dtype, shape, data | object, ``x-ebus`` with ``ndarray`` | typed array with ``shape`` |

What is written is accepted by the broker, and what the broker accepts can be decoded; only code of the type itself (a
pydantic validator, a ``__post_init__``) can refuse a value that somebody without that code has written.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Generic, TypeVar

import msgspec

from ebus_jupyter.errors import SpecConflict, TypeMismatch, shorten

from .ndarray import NDARRAY, array_name, array_schema, decode_array, encode_array
from .pydantic_model import Model, dumped
from .type_schema import type_schema
from .validation import Validator

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
        self._model: Model | None = None
        if type_ is not Any:
            try:
                self._model = Model.of(type_)
                self.schema = type_schema(type_) if self._model is None else self._model.schema
            except (TypeError, ValueError, NotImplementedError, AttributeError) as error:
                raise SpecConflict(
                    f"no schema can be made of {self.name or type_!r} ({shorten(str(error))}). Use a msgspec.Struct, a "
                    "dataclass, a TypedDict, a pydantic model or builtin types."
                ) from None
        wire_type = type_ if self._model is None else Any
        hook = _encode_hook if self._model is None else self._model.plain
        self._encode = msgspec.msgpack.Encoder(enc_hook=hook).encode
        self._decode = msgspec.msgpack.Decoder(wire_type, ext_hook=_ext_hook, dec_hook=_decode_hook).decode
        self._check = Validator.of(self.schema).check

    def encode(self, value: T, bus: str = "the bus") -> bytes:
        """The bytes of ``value``.

        Args:
            value: A value of the type.
            bus: The bus's name, for the error.

        Raises:
            TypeMismatch: The value is not of the type (``path``, ``expected``), or MessagePack can't carry it.
        """
        try:
            data = self._encode(value if self._model is None else self._model.to_builtins(value))
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise _mismatch(bus, error, _place(value, self._encode)) from None
        self._check(data, bus)
        if self.type is not Any:
            try:
                self._read(data)
            except _UNDECODABLE as error:
                raise _mismatch(bus, error) from None
        return data

    def decode(self, data: bytes | msgspec.Raw) -> T:
        """The value in ``data``.

        Raises:
            TypeMismatch: The bytes are no value of the type.
        """
        try:
            return self._read(data)
        except _UNDECODABLE as error:
            raise _mismatch("the bus", error) from None

    def _read(self, data: bytes | msgspec.Raw) -> T:
        value: T = self._decode(data)
        return value if self._model is None else self._model.from_builtins(value)


# --- hooks of msgspec -----------------------------------------------------------------------------------------------


def _encode_hook(value: Any) -> Any:
    """A substitute that msgspec can encode, for a ``value`` that it does not know."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return encode_array(value)
        if isinstance(value, numpy.generic):
            return value.item()
    found = dumped(value)
    if found is not None:
        return found
    raise TypeError(
        f"values of type {type(value).__name__} can't travel on a bus; use msgspec types, pydantic models or numpy arrays"
    )


def _ext_hook(code: int, body: memoryview) -> Any:
    """The value of a MessagePack extension."""
    if code != NDARRAY:
        raise ValueError(f"extension {code} is not one that a bus carries")
    return decode_array(body)


def _decode_hook(type_: Any, value: Any) -> Any:
    """Hold a decoded ``value`` to a type that msgspec does not know: an array type."""
    if type_ is object:
        return value
    expected = array_schema(type_)
    if expected is None or type(value).__name__ != "ndarray":
        raise ValueError(f"Expected `{getattr(type_, '__name__', type_)}`, got `{type(value).__name__}`")
    asked = expected["x-ebus"]["ndarray"]
    if value.dtype.str != asked.get("dtype", value.dtype.str) or value.ndim != asked.get("ndim", value.ndim):
        found = array_name({"dtype": value.dtype.str, "ndim": asked.get("ndim") and value.ndim})
        raise ValueError(f"Expected `{array_name(asked)}`, got `{found}`")
    return value


# --- errors ---------------------------------------------------------------------------------------------------------


_UNDECODABLE = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError, AttributeError)
"""What decoders raise, and the code of types that they call."""


def _place(value: Any, encode: Any, depth: int = 20) -> str:
    """The path of the first part of ``value`` that can't be encoded: msgspec does not say."""
    parts: Any
    if isinstance(value, dict):
        parts = ((f".{key}" if isinstance(key, str) else f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        parts = ((f"[{i}]", item) for i, item in enumerate(value))
    else:
        names: Any = getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", ())
        parts = ((f".{name}", getattr(value, name, None)) for name in names)
    if depth:
        for step, item in parts:
            try:
                encode(item)
            except Exception:
                return str(step)[:80] + _place(item, encode, depth - 1)
    return ""


def _mismatch(bus: str, error: Exception, place: str = "") -> TypeMismatch:
    """The project's own error for one of msgspec or pydantic."""
    if hasattr(error, "errors"):  # pydantic lists what is wrong; the first item is enough to go on with
        first = error.errors()[0]
        path = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        return TypeMismatch(f"{bus}: {first['msg']} at {path}.", path=path, expected=first["type"])
    text = str(error)
    at = _PATH.search(text)
    path = at[1] if at else f"${place}"
    what = _PATH.sub("", text).replace("`", "")
    expected = _EXPECTED.search(text)
    return TypeMismatch(
        f"{bus}: {shorten(what[:1].lower() + what[1:])} at {path}.", path=path, expected=expected[1] if expected else ""
    )
