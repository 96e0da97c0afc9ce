"""TypeScript declarations for the JSON Schema of a bus, so that pages are checked against the types of the kernel."""

from __future__ import annotations

import re
from typing import Any

import msgspec


def typescript(schema: dict[str, Any] | None, name: str = "Value") -> str:
    """TypeScript declarations for a JSON Schema: ``export type NAME = …;`` and one for each of its definitions.

    Args:
        schema: The JSON Schema; None declares ``unknown``.
        name: The name of the declared type. Default: "Value".

    >>> print(typescript({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, "Vote"))
    export type Vote = { n: number };
    """
    schema = schema or {}
    lines = [
        f"export type {_identifier(key)} = {_type(sub)};" for key, sub in schema.get("$defs", {}).items() if key != name
    ]
    own = schema.get("$defs", {}).get(name) if schema.get("$ref") == f"#/$defs/{name}" else schema
    return "\n".join([*lines, f"export type {_identifier(name)} = {_type(own if own is not None else schema)};"])


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name) or "Value"


def _type(schema: Any) -> str:
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
            return " | ".join(dict.fromkeys(_type(sub) for sub in schema[union]))
    if schema.get("title") == "ndarray":
        return "NDArray"
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(_type({**schema, "type": each}) for each in kind)
    if kind == "object" or "properties" in schema:
        required = set(schema.get("required", ()))
        fields = [
            f"{key if key.isidentifier() else msgspec.json.encode(key).decode()}{'' if key in required else '?'}: {_type(sub)}"
            for key, sub in schema.get("properties", {}).items()
        ]
        rest = schema.get("additionalProperties")
        if isinstance(rest, dict) or not fields:
            return f"Record<string, {_type(rest)}>"
        return "{ " + "; ".join(fields) + " }"
    if kind == "array":
        prefix = schema.get("prefixItems")
        if prefix:
            return "[" + ", ".join(_type(sub) for sub in prefix) + "]"
        return f"Array<{_type(schema.get('items'))}>"
    if kind == "string":
        if schema.get("contentEncoding") == "base64":
            return "Uint8Array"
        return "Date | string" if schema.get("format") == "date-time" else "string"
    return {"integer": "number", "number": "number", "boolean": "boolean", "null": "null"}.get(str(kind), "unknown")
