"""TypeScript declarations for the schema of a type."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any, Literal

import msgspec
import numpy
import pytest

from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.typescript import typescript


class Struct(msgspec.Struct):
    choice: str
    weight: float = 1.0


@pytest.mark.parametrize(
    ("type_", "declared"),
    [
        (int, "export type Value = number;"),
        (list[str], "export type Value = Array<string>;"),
        (dict[str, int], "export type Value = Record<string, number>;"),
        (bytes, "export type Value = Uint8Array;"),
        (Annotated[datetime.datetime, msgspec.Meta(tz=True)], "export type Value = Date | string;"),
        (int | None, "export type Value = number | null;"),
        (Literal["a", 1], 'export type Value = 1 | "a";'),
        (Any, "export type Value = unknown;"),
        (numpy.ndarray, "export type Value = NDArray;"),
    ],
)
def test_declaration_of_a_type(type_, declared):
    assert typescript(Codec(type_).schema) == declared


def test_declaration_of_a_struct_names_its_fields():
    assert typescript(Codec(Struct).schema, "Struct") == "export type Struct = { choice: string; weight?: number };"


EVIL = '"; import("//evil.example"); /* \u2028\n} ]*/ //'


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [EVIL]},
        {"const": EVIL},
        {"type": "object", "properties": {EVIL: {"type": EVIL}, "ok": {"$ref": f"#/$defs/{EVIL}"}}},
        {"$defs": {EVIL: {"enum": [EVIL]}}, "$ref": f"#/$defs/{EVIL}"},
        {"type": [EVIL, "string"]},
        {"type": "array", "prefixItems": [{"title": EVIL, "enum": [{EVIL: EVIL}]}]},
        {"properties": 5, "required": 5, "$defs": [], "anyOf": 5, "enum": 5},
        {"type": "object", "properties": [], "required": {}},
        {"x-ebus": 5, "type": "object"},
        5,
    ],
)
@pytest.mark.parametrize("name", ["Value", EVIL, "default", "1st"])
def test_declarations_hold_nothing_but_types_whatever_a_schema_says(schema, name):
    declared = typescript(schema, name)
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', "S", declared)
    assert declared.isascii()
    assert re.fullmatch(r"(?:export type [A-Za-z_$][\w$]* = [\w$ |<>,:?;{}\[\]]*;\n?)+", outside), declared
    assert not re.search(r"\bimport\b", outside)
    assert not re.search(r"export type (?:default|\d)", outside)
