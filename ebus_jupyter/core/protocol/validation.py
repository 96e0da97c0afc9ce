"""The broker's check: encoded values are held to the bus's JSON Schema, whatever language their writer uses.

Bytes count as base64 strings, times as date-time strings and numpy arrays as objects of dtype and shape: see the table in
`core.protocol.codec`. A value is checked without building Python objects of the writer's type.
"""

from __future__ import annotations

import math
import re
from typing import Any

import jsonschema_rs
import msgspec

from ebus_jupyter.errors import SpecConflict, TypeMismatch, shorten

from .ndarray import NDARRAY, array_parts


class Validator:
    """Holds encoded values to a JSON Schema.

    Schemas come from clients, so nothing in one may reach out or run long: references stay inside the document, and
    patterns run on an engine without backtracking.

    Args:
        schema: The JSON Schema. None takes any value that every reader can decode.

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
                raise SpecConflict(f"the type's JSON Schema can't be used: {shorten(str(error))}") from None

    @classmethod
    def of(cls, schema: dict[str, Any] | None) -> Validator:
        """A validator for ``schema``. Buses that take any value share one."""
        return _ANYTHING if schema is None else cls(schema)

    def check(self, data: bytes | msgspec.Raw, bus: str) -> None:
        """Check an encoded value.

        Args:
            data: The value.
            bus: The bus's name, for the error.

        Raises:
            TypeMismatch: ``data`` is no MessagePack, or does not match the schema (``path``, ``expected``).
        """
        try:
            value = _plain(data)
            if self._schema is None or self._valid(value):
                return
            value = msgspec.to_builtins(value)  # bytes and times as the strings that JSON Schema knows
            error = next(iter(self._schema.iter_errors(value)), None)
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as malformed:
            raise TypeMismatch(
                f"{bus}: the value can't be read by others: {shorten(str(malformed))}", path="$", expected=""
            ) from None
        if error is not None:
            path = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
            kinds = getattr(error.kind, "types", None)
            expected = "" if kinds is None else " or ".join(map(str, kinds))
            raise TypeMismatch(f"{bus}: {shorten(error.message)} at {path}.", path=path, expected=expected)

    def _valid(self, value: Any) -> bool:
        assert self._schema is not None
        try:
            return self._schema.is_valid(value)
        except ValueError:  # it holds bytes or times: `check` looks again, which most values need not pay for
            return False


_ANYTHING = Validator(None)


def _describe(code: int, body: memoryview) -> Any:
    """An extension value as the schema knows it: an array by its dtype and shape."""
    if code != NDARRAY:
        raise ValueError(f"extension {code} is not one that a bus carries")
    dtype, shape, data = array_parts(body)
    width = re.search(r"\d+", dtype)
    each = int(width[0]) * (4 if dtype[1] == "U" else 1) if width else 1
    if math.prod(shape) * each != len(data):
        raise ValueError(f"an array of dtype {dtype} and shape {shape[:8]} does not have {len(data)} bytes")
    return {"dtype": dtype, "shape": shape}


_plain = msgspec.msgpack.Decoder(ext_hook=_describe).decode
