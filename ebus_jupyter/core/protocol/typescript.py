"""TypeScript declarations for the JSON Schema of a bus, so that pages are checked against the types of the kernel."""

from __future__ import annotations

import json
import re
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")


def typescript(schema: dict[str, Any] | None, name: str = "Value") -> str:
    """TypeScript declarations for a JSON Schema: ``export type NAME = …;`` and one for each of its definitions.

    Args:
        schema: The JSON Schema; None declares ``unknown``.
        name: The name of the declared type. Default: "Value".

    >>> print(typescript({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, "Vote"))
    export type Vote = { n: number };
    """
    schema = schema if isinstance(schema, dict) else {}
    defs = _dict(schema.get("$defs"))
    lines = [f"export type {_identifier(key)} = {_type(sub)};" for key, sub in defs.items() if key != name]
    own = defs.get(name) if schema.get("$ref") == f"#/$defs/{name}" else schema
    return "\n".join([*lines, f"export type {_identifier(name)} = {_type(own if own is not None else schema)};"])


def _identifier(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_$]", "_", str(name))[:80] or "Value"
    return f"_{plain}" if plain[0].isdigit() or plain in _RESERVED else plain


_RESERVED = frozenset(
    [
        "any",
        "as",
        "boolean",
        "break",
        "case",
        "catch",
        "class",
        "const",
        "continue",
        "debugger",
        "default",
        "delete",
        "do",
        "else",
        "enum",
        "export",
        "extends",
        "false",
        "finally",
        "for",
        "function",
        "if",
        "implements",
        "import",
        "in",
        "instanceof",
        "interface",
        "let",
        "new",
        "null",
        "number",
        "object",
        "package",
        "private",
        "protected",
        "public",
        "return",
        "static",
        "string",
        "super",
        "switch",
        "symbol",
        "this",
        "throw",
        "true",
        "try",
        "type",
        "typeof",
        "undefined",
        "unknown",
        "var",
        "void",
        "while",
        "with",
        "yield",
        "never",
        "bigint",
        "NDArray",
        "Date",
        "Uint8Array",
        "Array",
        "Record",
        "Map",
    ]
)


def _literal(value: Any) -> str:
    """A value as TypeScript writes it: JSON in ASCII, on one line, whatever it holds."""
    return json.dumps(value)


def _dict(found: Any) -> dict[str, Any]:
    """What a schema has where an object is expected: nobody has checked it."""
    return found if isinstance(found, dict) else {}


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _type(schema: Any) -> str:
    if schema is False:
        return "never"
    if not schema or not isinstance(schema, dict):
        return "unknown"
    if "$ref" in schema:
        return _identifier(str(schema["$ref"]).rsplit("/", 1)[-1])
    if "const" in schema or "enum" in schema:
        return " | ".join(map(_literal, _list(schema.get("enum", [schema.get("const")])))) or "never"
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " | ".join(dict.fromkeys(_type(sub) for sub in _list(schema[union]))) or "never"
    extra = _dict(schema.get("x-ebus"))
    if "ndarray" in extra:
        return "NDArray"
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(_type({**schema, "type": each}) for each in kind)
    if kind == "object" or "properties" in schema:
        required = _list(schema.get("required"))
        fields = [
            f"{key if _PLAIN.fullmatch(str(key)) else _literal(str(key))}{'' if key in required else '?'}: {_type(sub)}"
            for key, sub in _dict(schema.get("properties")).items()
        ]
        rest = schema.get("additionalProperties")
        if "keys" in extra:
            return f"Map<{_type(extra['keys'])}, {_type(rest)}>"
        if isinstance(rest, dict) or not fields:
            return f"Record<string, {_type(rest)}>"
        return "{ " + "; ".join(fields) + " }"
    if kind == "array":
        prefix = _list(schema.get("prefixItems"))
        if prefix:
            return "[" + ", ".join(_type(sub) for sub in prefix) + "]"
        return f"Array<{_type(schema.get('items'))}>"
    if kind == "string":
        if schema.get("contentEncoding") == "base64":
            return "Uint8Array"
        return "Date | string" if schema.get("format") == "date-time" else "string"
    return {"integer": "number", "number": "number", "boolean": "boolean", "null": "null"}.get(str(kind), "unknown")
