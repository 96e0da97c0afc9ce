"""The JSON Schema of a Python type: what `msgspec` encodes values of the type as, and nothing else that it decodes.

It is the JSON Schema that one expects of the type, with ``x-ebus`` (see `compiler`) where JSON Schema has no word.
"""

from __future__ import annotations

import textwrap
from typing import Annotated, Any, get_origin

import msgspec
from msgspec import NODEFAULT, UNSET, inspect

from .ndarray import array_schema

_LIMITS = {
    "ge": "minimum",
    "le": "maximum",
    "gt": "exclusiveMinimum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}
_NAMED = (
    inspect.StructType,
    inspect.DataclassType,
    inspect.TypedDictType,
    inspect.NamedTupleType,
    inspect.EnumType,
)
_TEXTS: dict[type, str] = {
    inspect.UUIDType: "uuid",
    inspect.DecimalType: "decimal",
    inspect.DateType: "date",
    inspect.TimeDeltaType: "duration",
}


def type_schema(type_: Any) -> dict[str, Any]:
    """The schema of a type.

    Raises:
        TypeError: Its values can't travel.
    """
    translator: Any = _Translator
    (info,) = translator([type_]).run()
    schemas = _Schemas()
    found = schemas.of(info)
    return {**found, "$defs": schemas.named} if schemas.named else found


_Base: Any = inspect._Translator


class _Translator(_Base):  # type: ignore[misc]
    """msgspec's own, which forgets the dtype of an array type."""

    def translate(self, type_: Any) -> Any:
        plain = type_.__origin__ if get_origin(type_) is Annotated else type_
        return inspect.CustomType(plain) if array_schema(plain) is not None else super().translate(type_)


class _Schemas:
    """The schemas of one type and of the types that it consists of.

    Attributes:
        named: The schemas of types with names, by name.
    """

    def __init__(self) -> None:
        self.named: dict[str, Any] = {}
        self._names: dict[Any, str] = {}

    def of(self, info: inspect.Type) -> dict[str, Any]:
        """The schema of a type, where it is used; named types are referred to."""
        extra: dict[str, Any] = {}
        while isinstance(info, inspect.Metadata):
            extra = {**(info.extra_json_schema or {}), **extra}
            info = info.type
        if isinstance(info, _NAMED):
            return {"$ref": f"#/$defs/{self._name(info)}", **extra}
        return {**self._plain(info), **extra}

    def _name(self, info: Any) -> str:
        key = info.cls
        found = self._names.get(key)
        if found is None:
            plain = str(getattr(key, "__name__", key))
            arguments = getattr(key, "__args__", ())
            if arguments and not isinstance(key, type):
                plain += "_" + "_".join(str(getattr(each, "__name__", each)) for each in arguments)
            plain = "".join(char if char.isalnum() else "_" for char in plain)
            found, n = plain, 1
            while found in self.named:
                n += 1
                found = f"{plain}_{n}"
            self._names[key] = found
            self.named[found] = {}  # the place is taken, should the type contain itself
            self.named[found] = self._named(info)
        return found

    def _plain(self, info: inspect.Type) -> dict[str, Any]:
        if type(info) in _TEXTS:
            return {"type": "string", "format": _TEXTS[type(info)]}
        match info:
            case inspect.AnyType() | inspect.RawType():
                return {}
            case inspect.NoneType():
                return {"type": "null"}
            case inspect.BoolType():
                return {"type": "boolean"}
            case inspect.IntType():
                return {"type": "integer", **_limits(info, _LIMITS)}
            case inspect.FloatType():
                return {"type": "number", **_limits(info, _LIMITS)}
            case inspect.StrType():
                limits = {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"}
                return {"type": "string", **_limits(info, limits)}
            case inspect.BytesType() | inspect.ByteArrayType() | inspect.MemoryViewType():
                limits = _limits(info, {"min_length": "minBytes", "max_length": "maxBytes"})
                return {"type": "string", "contentEncoding": "base64", **({"x-ebus": limits} if limits else {})}
            case inspect.DateTimeType() | inspect.TimeType():
                format_ = "date-time" if isinstance(info, inspect.DateTimeType) else "time"
                return {"type": "string", "format": format_, **({} if info.tz is None else {"x-ebus": {"tz": info.tz}})}
            case inspect.LiteralType():
                return {"enum": sorted(info.values, key=lambda value: (str(type(value)), str(value)))}
            case inspect.UnionType():
                return self._union(info)
            case inspect.ListType() | inspect.VarTupleType():
                return {"type": "array", **self._items(info), **_limits(info, _ITEMS)}
            case inspect.SetType() | inspect.FrozenSetType():
                items = {"items": self._hashable(info.item_type)}
                return {"type": "array", **items, **_limits(info, _ITEMS)}
            case inspect.TupleType():
                return _tuple([self.of(item) for item in info.item_types], len(info.item_types))
            case inspect.DictType():
                return self._dict(info)
            case inspect.CustomType():
                if info.cls is object:
                    return {}
                found = array_schema(info.cls)
                if found is not None:
                    return found
        raise TypeError(f"values of {getattr(info, 'cls', info)!r} can't travel on a bus")

    def _items(self, info: Any) -> dict[str, Any]:
        items = self.of(info.item_type)
        return {"items": items} if items else {}

    def _hashable(self, info: inspect.Type) -> dict[str, Any]:
        return _HASHABLE if isinstance(info, inspect.AnyType) else self.of(info)

    def _union(self, info: inspect.UnionType) -> dict[str, Any]:
        # A set of literals and None is what most optional types are.
        return {"anyOf": [self.of(each) for each in info.types]}

    def _dict(self, info: inspect.DictType) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "object"}
        keys, values = self.of(info.key_type), self.of(info.value_type)
        if values:
            found["additionalProperties"] = values
        if self._is_text(keys):
            if keys != {"type": "string"}:
                found["propertyNames"] = keys
        else:
            found["x-ebus"] = {"keys": keys}
        return found | _limits(info, {"min_length": "minProperties", "max_length": "maxProperties"})

    def _is_text(self, schema: dict[str, Any]) -> bool:
        """True if all values of a schema are strings on the wire."""
        if "$ref" in schema:
            schema = self.named[schema["$ref"].removeprefix("#/$defs/")]
        if "enum" in schema:
            return all(isinstance(value, str) for value in schema["enum"])
        is_text = schema.get("type") == "string" and schema.get("format") != "date-time"
        return is_text and "contentEncoding" not in schema

    # --- named types ------------------------------------------------------------------------------------------------

    def _named(self, info: Any) -> dict[str, Any]:
        about: dict[str, Any] = {"title": getattr(info.cls, "__name__", str(info.cls))}
        doc = _doc(info.cls)
        if doc:
            about["description"] = doc
        if isinstance(info, inspect.EnumType):
            return {**about, "enum": [member.value for member in info.cls]}
        if isinstance(info, inspect.NamedTupleType):
            items = [self._field(field) for field in info.fields]
            return {**about, **_tuple(items, sum(field.required for field in info.fields))}
        if isinstance(info, inspect.StructType) and info.array_like:
            items = [{"enum": [info.tag]}] if info.tag is not None else []
            items += [self._field(field) for field in info.fields]
            low = (info.tag is not None) + sum(field.required for field in info.fields)
            return {**about, **_tuple(items, low, is_closed=info.forbid_unknown_fields)}
        properties: dict[str, Any] = {}
        required: list[str] = []
        if isinstance(info, inspect.StructType) and info.tag is not None and info.tag_field is not None:
            properties[info.tag_field] = {"enum": [info.tag]}
            required.append(info.tag_field)
        for field in info.fields:
            properties[field.encode_name] = self._field(field)
            if field.required:
                required.append(field.encode_name)
        closed = {"additionalProperties": False} if getattr(info, "forbid_unknown_fields", False) else {}
        return {**about, "type": "object", "properties": properties, "required": required, **closed}

    def _field(self, field: inspect.Field) -> dict[str, Any]:
        found = self.of(field.type)
        default = field.default
        if default is NODEFAULT and field.default_factory in (list, dict, set, tuple):
            default = () if field.default_factory in (set, tuple) else field.default_factory()
        if default is not NODEFAULT and default is not UNSET:
            try:
                said = msgspec.to_builtins(default)
                if isinstance(said, str | int | float | list | dict | tuple | None) and msgspec.json.encode(said):
                    found = {**found, "default": said}
            except (TypeError, ValueError):  # said to people only
                pass
        return found


_ITEMS = {"min_length": "minItems", "max_length": "maxItems"}

_HASHABLE: dict[str, Any] = {
    "anyOf": [
        {"type": ["null", "boolean", "number", "string"]},
        {"type": "string", "contentEncoding": "base64"},
        {"type": "string", "format": "date-time"},
        {"type": "array", "items": {"type": ["null", "boolean", "number", "string"]}},
    ]
}
"""The items of a set of anything. (An array is an item of a set as a tuple.)"""


def _tuple(items: list[dict[str, Any]], low: int, *, is_closed: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "array", "minItems": low}
    if items:
        found["prefixItems"] = items
    if is_closed:
        found |= {"maxItems": len(items), "items": False}
    return found


def _limits(info: Any, words: dict[str, str]) -> dict[str, Any]:
    found = ((keyword, getattr(info, word)) for word, keyword in words.items())
    return {keyword: limit for keyword, limit in found if limit is not None}


def _doc(cls: Any) -> str:
    """The docstring of a type; not the one that dataclasses makes, nor one that is inherited."""
    doc = getattr(cls, "__dict__", {}).get("__doc__")
    if not isinstance(doc, str) or doc.startswith(f"{getattr(cls, '__name__', '')}("):
        return ""
    return textwrap.dedent(doc).strip()
