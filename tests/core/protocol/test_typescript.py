"""TypeScript declarations for the schema of a type."""

from __future__ import annotations

import datetime
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
