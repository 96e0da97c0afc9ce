"""Numpy arrays on the wire: a MessagePack extension that holds dtype, shape and C-ordered bytes.

The extension's body is an array of three items: numpy's ``dtype.str``, the shape, and the data. Numpy itself is imported
only where an array is decoded.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import msgspec

NDARRAY = 1
"""The MessagePack extension type of a numpy array."""

_DTYPE = re.compile(r"[<>|=][biufcSUmM?]\d*(\[\w+\])?")


def array_parts(data: memoryview) -> tuple[str, list[int], memoryview]:
    """The dtype, the shape and the data of an encoded array.

    Raises:
        ValueError: No array has such a dtype or shape.
        msgspec.MsgspecError: ``data`` does not hold three such items.
    """
    dtype, shape, body = msgspec.msgpack.decode(data, type=tuple[str, list[int], memoryview])
    if not _DTYPE.fullmatch(dtype) or any(n < 0 for n in shape):
        raise ValueError(f"no array has dtype {dtype[:20]!r} and shape {shape[:8]}")
    return dtype, shape, body


def array_schema(type_: Any) -> Any:
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
