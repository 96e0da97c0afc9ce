"""The one check of encoded values: a writer makes it at once, and the broker makes it of every writer.

It holds a value to the bus's JSON Schema, which `compiler` turns into a `Check`. What passes can be decoded by every reader of
the type; only code of the type itself (a pydantic validator, a ``__post_init__``) may still refuse it. The work is bounded by
the size of the schema, when the bus is opened, and by the size of the value, when it is checked.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from ebus_jupyter.errors import SpecConflict, TypeMismatch, shorten

from .checks import Check, Mismatch, quick
from .compiler import compile_schema
from .key_scan import repeated_key
from .meter import Meter, Overrun
from .ndarray import NDARRAY, ArrayHead


class Validator:
    """Holds encoded values to a JSON Schema.

    Args:
        schema: The JSON Schema. None takes any value that every reader can decode.

    Raises:
        SpecConflict: ``schema`` is no JSON Schema, refers to something outside itself, or takes too much work.
    """

    __slots__ = ("_accepts", "_check")

    def __init__(self, schema: dict[str, Any] | None) -> None:
        self._check: Check | None = None if schema is None else compile_schema(schema)
        self._accepts = None if self._check is None else quick(self._check)

    @classmethod
    def of(cls, schema: dict[str, Any] | None) -> Validator:
        """A validator for ``schema``. Buses of one type share one."""
        if schema is None:
            return _ANYTHING
        try:
            return _compiled(msgspec.msgpack.encode(schema))
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise SpecConflict(f"the type's JSON Schema can't be used: {shorten(str(error))}") from None

    def check(self, data: bytes | msgspec.Raw, bus: str) -> None:
        """Check an encoded value.

        Args:
            data: The value.
            bus: The bus's name, for the error.

        Raises:
            TypeMismatch: ``data`` is no MessagePack, or does not match the schema (``path``, ``expected``).
        """
        try:
            value = _decode(data)
            if self._check is None:
                return
            accepts = self._accepts
            found = None if accepts is not None and accepts(value) else self._check.find(value, Meter(len(data)))
            if found is None:
                if not isinstance(value, list | dict) or _encode(value) == data or not repeated_key(bytes(data)):
                    return
                found = Mismatch("each key once", "a map with a key twice")
        except Overrun:
            raise TypeMismatch(
                f"{bus}: the value takes too much work to check, for its size and this type. Write it in pieces, or give "
                "the bus a simpler type.",
                path="$",
                expected="less",
            ) from None
        except Exception as error:
            raise TypeMismatch(
                f"{bus}: the value can't be read by others: {shorten(str(error))}", path="$", expected=""
            ) from None
        path = found.path
        text = f"expected {found.expected}, got {found.got}"
        raise TypeMismatch(f"{bus}: {shorten(text)} at {shorten(path)}.", path=path, expected=found.expected)


@lru_cache(128)
def _compiled(schema: bytes) -> Validator:
    return Validator(msgspec.msgpack.decode(schema))


def _head(code: int, body: memoryview) -> ArrayHead:
    """An extension value: an array, whose elements a check need not see."""
    if code != NDARRAY:
        raise ValueError(f"extension {code} is not one that a bus carries")
    return ArrayHead(body)


def _encode_hook(value: Any) -> Any:
    if isinstance(value, ArrayHead):
        return value.as_extension()
    raise TypeError(f"{type(value).__name__} is no value")


_decode = msgspec.msgpack.Decoder(ext_hook=_head).decode
_encode = msgspec.msgpack.Encoder(enc_hook=_encode_hook).encode
_ANYTHING = Validator(None)
