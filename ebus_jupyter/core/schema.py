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

import math
import re
import sys
from typing import Any, Generic, TypeVar

import jsonschema_rs
import msgspec

from ebus_jupyter.errors import SpecConflict, TypeMismatch

T = TypeVar("T")

NDARRAY = 1
"""The MessagePack extension of a numpy array: an array of dtype (numpy's ``dtype.str``), shape and C-ordered bytes."""

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
            elif (array := _array_schema(type_)) is not None:
                self.schema = array
            else:
                try:
                    self.schema = msgspec.json.schema(type_, schema_hook=_array_schema)
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


class Validator:
    """Holds encoded values to a JSON Schema. With ``schema`` None it only sees to it that every reader can decode them.

    Schemas come from clients, so nothing in one may reach out or run long: references stay inside the document, and
    patterns run on an engine without backtracking.

    Raises:
        SpecConflict: ``schema`` is no JSON Schema, or refers to something outside itself.
    """

    __slots__ = ("_schema",)

    def __init__(self, schema: dict[str, Any] | None) -> None:
        self._schema = None
        if schema is not None:
            try:
                self._schema = jsonschema_rs.validator_for(
                    schema, offline=True, pattern_options=jsonschema_rs.RegexOptions(size_limit=1 << 20)
                )
            except (ValueError, jsonschema_rs.ReferencingError) as error:
                raise SpecConflict(f"the type's JSON Schema can't be used: {str(error)[:200]}") from None

    @classmethod
    def of(cls, schema: dict[str, Any] | None) -> Validator:
        """A validator for ``schema``; all that take any value are one."""
        return _ANYTHING if schema is None else cls(schema)

    def check(self, data: bytes | msgspec.Raw, bus: str) -> None:
        """Raises `TypeMismatch` where ``data`` is no MessagePack, or not of the schema (``path``, ``expected``)."""
        try:
            value = _plain(data)
            if self._schema is None or self._valid(value):
                return
            value = msgspec.to_builtins(value)  # bytes and times as the strings that JSON Schema knows
            error = next(iter(self._schema.iter_errors(value)), None)
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as malformed:
            raise TypeMismatch(
                f"{bus}: the value can't be read by others: {str(malformed)[:200]}", path="$", expected=""
            ) from None
        if error is not None:
            path = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
            kinds = getattr(error.kind, "types", None)
            expected = "" if kinds is None else " or ".join(map(str, kinds))
            raise TypeMismatch(f"{bus}: {_short(error.message)} at {path}.", path=path, expected=expected)

    def _valid(self, value: Any) -> bool:
        assert self._schema is not None
        try:
            return self._schema.is_valid(value)
        except ValueError:  # it holds bytes or times; most values don't, so they need not pay for a second look
            return False


_ANYTHING = Validator(None)


def typescript(schema: dict[str, Any] | None, name: str = "Value") -> str:
    """TypeScript declarations for a JSON Schema: ``export type NAME = …;`` and one for each of its definitions.

    >>> print(typescript({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, "Vote"))
    export type Vote = { n: number };
    """
    schema = schema or {}
    lines = [
        f"export type {_identifier(key)} = {_ts(sub)};" for key, sub in schema.get("$defs", {}).items() if key != name
    ]
    own = schema.get("$defs", {}).get(name) if schema.get("$ref") == f"#/$defs/{name}" else schema
    return "\n".join([*lines, f"export type {_identifier(name)} = {_ts(own if own is not None else schema)};"])


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


def _array_parts(data: memoryview) -> tuple[str, list[int], memoryview]:
    dtype, shape, body = msgspec.msgpack.decode(data, type=tuple[str, list[int], memoryview])
    if not re.fullmatch(r"[<>|=][biufcSUmM?]\d*(\[\w+\])?", dtype) or any(n < 0 for n in shape):
        raise ValueError(f"no array has dtype {dtype[:20]!r} and shape {shape[:8]}")
    return dtype, shape, body


def _from_wire(code: int, data: memoryview) -> Any:
    if code != NDARRAY:
        return msgspec.msgpack.Ext(code, bytes(data))
    dtype, shape, body = _array_parts(data)
    import numpy

    return numpy.frombuffer(body, dtype=dtype).reshape(shape)


def _array_as_is(type_: Any, value: Any) -> Any:
    expected = _array_schema(type_)
    if expected is None or type(value).__name__ != "ndarray":
        raise ValueError(f"Expected `{getattr(type_, '__name__', type_)}`, got `{type(value).__name__}`")
    dtype = expected["properties"]["dtype"].get("const")
    if dtype is not None and value.dtype.str != dtype:
        raise ValueError(f"Expected `array of {dtype}`, got `array of {value.dtype.str}`")
    return value


def _array_schema(type_: Any) -> Any:
    """JSON Schema of a numpy array type; None for every other type."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    origin = getattr(type_, "__origin__", None)
    if type_ is not numpy.ndarray and origin is not numpy.ndarray:
        return None
    dtype: dict[str, Any] = {"type": "string"}
    if origin is not None:
        scalar = getattr(type_.__args__[1], "__args__", (None,))[0]
        if isinstance(scalar, type) and issubclass(scalar, numpy.generic):
            dtype["const"] = numpy.dtype(scalar).str
    return {
        "type": "object",
        "title": "ndarray",
        "properties": {"dtype": dtype, "shape": {"type": "array", "items": {"type": "integer"}}},
        "required": ["dtype", "shape"],
    }


def _pydantic(type_: Any) -> Any:
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not (isinstance(type_, type) and issubclass(type_, pydantic.BaseModel)):
        return None
    return pydantic.TypeAdapter(type_)


# --- how the broker looks at them -----------------------------------------------------------------------------------


def _describe(code: int, data: memoryview) -> Any:
    if code != NDARRAY:
        raise ValueError(f"extension {code} is not one that a bus carries")
    dtype, shape, body = _array_parts(data)
    width = re.search(r"\d+", dtype)
    each = int(width[0]) * (4 if dtype[1] == "U" else 1) if width else 1
    if math.prod(shape) * each != len(body):
        raise ValueError(f"an array of dtype {dtype} and shape {shape[:8]} does not have {len(body)} bytes")
    return {"dtype": dtype, "shape": shape}


_plain = msgspec.msgpack.Decoder(ext_hook=_describe).decode


# --- words ----------------------------------------------------------------------------------------------------------


def _short(text: str, longest: int = 200) -> str:
    return text if len(text) <= longest else text[:longest] + "…"


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
        f"{bus}: {_short(said[:1].lower() + said[1:])} at {path}.", path=path, expected=expected[1] if expected else ""
    )


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name) or "Value"


def _ts(schema: Any) -> str:
    if schema is True or not schema:
        return "unknown"
    if schema is False:
        return "never"
    if "$ref" in schema:
        return _identifier(str(schema["$ref"]).rsplit("/", 1)[-1])
    if "const" in schema or "enum" in schema:
        return " | ".join(msgspec.json.encode(value).decode() for value in schema.get("enum", [schema.get("const")]))
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " | ".join(dict.fromkeys(_ts(sub) for sub in schema[union]))
    if schema.get("title") == "ndarray":
        return "NDArray"
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(_ts({**schema, "type": each}) for each in kind)
    if kind == "object" or "properties" in schema:
        required = set(schema.get("required", ()))
        fields = [
            f"{key if key.isidentifier() else msgspec.json.encode(key).decode()}{'' if key in required else '?'}: {_ts(sub)}"
            for key, sub in schema.get("properties", {}).items()
        ]
        rest = schema.get("additionalProperties")
        if isinstance(rest, dict) or not fields:
            return f"Record<string, {_ts(rest)}>"
        return "{ " + "; ".join(fields) + " }"
    if kind == "array":
        prefix = schema.get("prefixItems")
        if prefix:
            return "[" + ", ".join(_ts(sub) for sub in prefix) + "]"
        return f"Array<{_ts(schema.get('items'))}>"
    if kind == "string":
        if schema.get("contentEncoding") == "base64":
            return "Uint8Array"
        return "Date | string" if schema.get("format") == "date-time" else "string"
    return {"integer": "number", "number": "number", "boolean": "boolean", "null": "null"}.get(str(kind), "unknown")
