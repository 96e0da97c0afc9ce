"""Numpy arrays on the wire: a MessagePack extension that holds dtype, shape and C-ordered bytes.

The extension's body is an array of three items: numpy's ``dtype.str``, the shape, and the data. Numpy is imported only
when an array is decoded: brokers and programs without arrays never load it.
"""

from __future__ import annotations

import contextlib
import re
import sys
from typing import Annotated, Any

import msgspec

NDARRAY = 1
"""The MessagePack extension type of a numpy array."""

MAX_DIMENSIONS = 32
"""The dimensions of an array; every numpy has as many."""

_DTYPE = re.compile(
    r"\|b1|\|[iu]1|[<>][iu][248]|[<>]f[248]|[<>]c(?:8|16)|\|S[1-9]\d{0,6}|[<>]U[1-9]\d{0,6}"
    r"|[<>][mM]8(?:\[(?:[1-9]\d{0,8})?(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)
_MOST_BYTES = 1 << 40  # far over what any value may have: dimensions are multiplied no further


class ArrayHead:
    """An array as a broker sees it: everything but its elements.

    Args:
        body: The extension's body.

    Attributes:
        dtype: Numpy's ``dtype.str``.
        shape: The dimensions.

    Raises:
        ValueError: No array has such a dtype or shape, or the data have another size.
        msgspec.MsgspecError: ``body`` does not hold three such items.
    """

    __slots__ = ("_body", "dtype", "shape")

    def __init__(self, body: memoryview) -> None:
        self.dtype, self.shape, _ = array_parts(body)
        self._body = body

    def as_extension(self) -> msgspec.msgpack.Ext:
        """The array as it came."""
        return msgspec.msgpack.Ext(NDARRAY, self._body)


def encode_array(array: Any) -> msgspec.msgpack.Ext:
    """A numpy array as an extension value.

    Raises:
        TypeError: Arrays of its dtype can't travel: they hold Python objects, or have fields, or differ between machines.
    """
    dtype = "" if array.dtype.hasobject else array.dtype.str
    if not _DTYPE.fullmatch(dtype) or array.dtype.names is not None:
        raise TypeError(
            f"arrays of dtype {str(array.dtype)[:80]} can't travel; use a numeric, boolean, time or fixed-width text dtype, "
            "and for a structured array a dict of one array for each field"
        )
    if array.ndim > MAX_DIMENSIONS:
        raise TypeError(f"arrays of more than {MAX_DIMENSIONS} dimensions can't travel")
    import numpy

    data = numpy.ascontiguousarray(array).reshape(-1).view("u1").data if array.size else b""
    return msgspec.msgpack.Ext(NDARRAY, msgspec.msgpack.encode([dtype, list(array.shape), data]))


def decode_array(body: memoryview) -> Any:
    """The numpy array in an extension's body; it is read-only and shares the body's memory. Raises as `array_parts` does."""
    dtype, shape, data = array_parts(body)
    import numpy

    return numpy.frombuffer(data, dtype=dtype).reshape(shape)


def array_parts(body: memoryview) -> tuple[str, list[int], memoryview]:
    """The dtype, the shape and the data in an extension's body.

    Raises:
        ValueError: No array has such a dtype or shape, or the data have another size.
        msgspec.MsgspecError: ``body`` does not hold three such items.
    """
    dtype, shape, data = _decode_parts(body)
    if len(dtype) > 24 or not _DTYPE.fullmatch(dtype):
        raise ValueError(f"no array that can travel has dtype {dtype[:20]!r}")
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"an array has at most {MAX_DIMENSIONS} dimensions")
    size = _item_size(dtype)
    is_empty = False
    for n in shape:
        if n < 0:
            raise ValueError("an array's dimensions are not negative")
        is_empty = is_empty or n == 0
        size *= n or 1
        if size > _MOST_BYTES:
            raise ValueError(f"an array of dtype {dtype} and shape {shape[:8]} is larger than any value")
    if (0 if is_empty else size) != len(data):
        raise ValueError(f"an array of dtype {dtype} and shape {shape[:8]} does not have {len(data)} bytes")
    return dtype, shape, data


_decode_parts = msgspec.msgpack.Decoder(
    tuple[str, Annotated[list[int], msgspec.Meta(max_length=MAX_DIMENSIONS)], memoryview]
).decode


def _item_size(dtype: str) -> int:
    kind, width = dtype[1], dtype[2:].partition("[")[0]
    return int(width) * (4 if kind == "U" else 1)


def array_schema(type_: Any) -> dict[str, Any] | None:
    """JSON Schema of a numpy array type; None for every other type.

    ``x-ebus`` says what no JSON Schema can: that the value is an array, and its dtype and number of dimensions where the type
    names them.
    """
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
    shape: dict[str, Any] = {"type": "array", "items": {"type": "integer"}}
    array: dict[str, Any] = {}
    if origin is not None:
        dimensions = getattr(type_.__args__[0], "__args__", ())
        if getattr(type_.__args__[0], "__origin__", None) is tuple and dimensions and dimensions[-1] is not Ellipsis:
            array["ndim"] = shape["minItems"] = shape["maxItems"] = len(dimensions)
        scalar = getattr(type_.__args__[1], "__args__", (None,))[0]
        if isinstance(scalar, type) and issubclass(scalar, numpy.generic):
            with contextlib.suppress(TypeError):  # an abstract one, such as numpy.floating, says no dtype
                array["dtype"] = dtype["const"] = numpy.dtype(scalar).str
    return {
        "type": "object",
        "title": "ndarray",
        "properties": {"dtype": dtype, "shape": shape},
        "required": ["dtype", "shape"],
        "x-ebus": {"ndarray": array},
    }


def array_name(asked: dict[str, Any]) -> str:
    """What an array type asks for (the ``ndarray`` of its schema's ``x-ebus``), for people."""
    name = f"array of {asked['dtype']}" if asked.get("dtype") is not None else "array"
    return name if asked.get("ndim") is None else f"{name} with {asked['ndim']} dimensions"
