"""Numpy arrays on the wire: a MessagePack extension that holds dtype, shape and C-ordered bytes.

The extension's body is an array of three items: numpy's ``dtype.str``, the shape, and the data. Numpy is imported only
when an array is decoded: brokers and programs without arrays never load it.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import msgspec

NDARRAY = 1
"""The MessagePack extension type of a numpy array."""

_DTYPE = re.compile(r"[<>|=][biufcSUmM?]\d*(\[\w+\])?")


def encode_array(array: Any) -> msgspec.msgpack.Ext:
    """A numpy array as an extension value.

    Raises:
        TypeError: The array holds Python objects.
    """
    if array.dtype.hasobject:
        raise TypeError(f"arrays of dtype {array.dtype} can't travel; use a numeric, boolean or fixed-width dtype")
    import numpy

    data = numpy.ascontiguousarray(array).reshape(-1).view("u1").data if array.size else b""
    return msgspec.msgpack.Ext(NDARRAY, msgspec.msgpack.encode([array.dtype.str, list(array.shape), data]))


def decode_array(body: memoryview) -> Any:
    """The numpy array in an extension's body; it is read-only and shares the body's memory. Raises as `array_parts` does."""
    dtype, shape, data = array_parts(body)
    import numpy

    return numpy.frombuffer(data, dtype=dtype).reshape(shape)


def array_parts(body: memoryview) -> tuple[str, list[int], memoryview]:
    """The dtype, the shape and the data in an extension's body.

    Raises:
        ValueError: No array has such a dtype or shape.
        msgspec.MsgspecError: ``body`` does not hold three such items.
    """
    dtype, shape, data = msgspec.msgpack.decode(body, type=tuple[str, list[int], memoryview])
    if not _DTYPE.fullmatch(dtype) or any(n < 0 for n in shape):
        raise ValueError(f"no array has dtype {dtype[:20]!r} and shape {shape[:8]}")
    return dtype, shape, data


def array_schema(type_: Any) -> Any:
    """JSON Schema of a numpy array type; None for every other type."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    origin = getattr(type_, "__origin__", None)
    if origin is not None and hasattr(origin, "__value__"):  # numpy 2.5's NDArray is a type alias, from Python 3.12 on
        type_ = origin.__value__[type_.__args__]
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
