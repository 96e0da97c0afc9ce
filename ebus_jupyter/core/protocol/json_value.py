"""Values and messages as JSON, and back without a loss: for HTTP, the command line and recordings.

A value that JSON does not know is a map with one key that begins with ``$``:

| on the bus | as JSON |
| --- | --- |
| bytes | ``{"$bytes": "aGk="}`` (base64) |
| a time with a zone | ``{"$time": "2026-01-31T12:00:00+00:00"}`` |
| a numpy array | ``{"$array": {"dtype": "<f8", "shape": [2], "data": "…"}}`` (base64, C order) |
| NaN, ±infinity | ``{"$float": "nan"}``, ``"inf"``, ``"-inf"`` |
| a map whose keys are not all strings | ``{"$pairs": [[1, "one"]]}`` |
| a map that looks like one of these | ``{"$map": {"$bytes": 1}}`` |
| a NaN with a sign or a payload; a value nested too deeply for Python | ``{"$msgpack": "…"}`` (its MessagePack, base64) |

A map with one ``$`` key that is not in this table is just a map.

>>> data = msgspec.msgpack.encode({"picture": b"hi"})
>>> to_json(data)
{'picture': {'$bytes': 'aGk='}}
>>> from_json(to_json(data)) == data
True
"""

from __future__ import annotations

import contextlib
import math
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from ebus_jupyter.errors import TypeMismatch, shorten

from . import frames
from .message import Participant
from .ndarray import NDARRAY

KEY_CHARS = 80
"""The most characters of one key in the path of an error."""

PATH_CHARS = 500
"""The most characters of the path of an error."""


class _Array(NamedTuple):
    dtype: str
    shape: list[int]
    data: bytes


def to_json(data: bytes | msgspec.Raw) -> Any:
    """An encoded value as builtins that any JSON encoder takes."""
    try:
        return _form(_decode(data))
    except RecursionError:
        return _as_it_is(bytes(data))


def from_json(form: Any) -> bytes:
    """Decoded JSON, plain or made by `to_json`, as an encoded value.

    Raises:
        TypeMismatch: A map with a ``$`` key is malformed, or a number does not fit; ``path`` says where.
    """
    try:
        return msgspec.msgpack.encode(_value(form))
    except _Malformed as malformed:
        path = shorten("$" + "".join(reversed(malformed.path)), PATH_CHARS)
        raise TypeMismatch(
            f"the value at {path} is no {malformed.name}; to write a map that only looks like one, write "
            f'{{"$map": {{"{malformed.name}": …}}}}.',
            path=path,
            expected=malformed.name,
        ) from None
    except RecursionError:
        raise TypeMismatch("the value is nested too deeply.", path="$", expected="") from None
    except (OverflowError, ValueError, TypeError) as error:
        raise TypeMismatch(f"the value can't travel on a bus: {error}.", path="$", expected="") from None


def sender(who: Participant) -> dict[str, Any]:
    """A participant as others may see it, as JSON. ``anonymous`` is there where it is true."""
    found = {"id": who.id, "kind": who.kind, "user": who.user, "name": who.name, "kernel_id": who.kernel_id}
    return found | {"anonymous": True} if who.anonymous else found


def message(delivery: frames.Delivery, filtered_by: str = "") -> dict[str, Any]:
    """A message as JSON.

    ``key`` is there where the message has one, ``deleted`` where it removes that key, and ``filtered_by`` where the bus has a
    filter.
    """
    found: dict[str, Any] = {
        "offset": delivery.offset,
        "id": delivery.message_id,
        "time": delivery.time,
        "sender": sender(delivery.sender),
    }
    if delivery.key is not None:
        found["key"] = delivery.key
    if delivery.deleted:
        found["deleted"] = True
    if filtered_by:
        found["filtered_by"] = filtered_by
    return found | {"value": to_json(delivery.value)}


# --- to JSON ----------------------------------------------------------------------------------------------------------


def _extension(code: int, data: memoryview) -> Any:
    if code == NDARRAY:
        return _Array(*msgspec.msgpack.decode(data, type=tuple[str, list[int], bytes]))
    raise ValueError(f"extension {code} is not one that a bus carries")


_decode: Callable[[bytes | msgspec.Raw], Any] = msgspec.msgpack.Decoder(ext_hook=_extension).decode


_NAN = msgspec.msgpack.encode(math.nan)


def _as_it_is(data: bytes) -> dict[str, str]:
    return {"$msgpack": b64encode(data).decode()}


def _form(value: Any) -> Any:
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        data = msgspec.msgpack.encode(value)
        return _as_it_is(data) if math.isnan(value) and data != _NAN else {"$float": str(value)}
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            return {"$pairs": [[_form(key), _form(item)] for key, item in value.items()]}
        found = {key: _form(item) for key, item in value.items()}
        return {"$map": found} if len(found) == 1 and next(iter(found)) in _FORMS else found
    if isinstance(value, _Array):
        return {
            "$array": {"dtype": value.dtype, "shape": value.shape, "data": b64encode(value.data).decode()},
        }
    if isinstance(value, list | tuple):
        return [_form(item) for item in value]
    if isinstance(value, bytes):
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$time": value.isoformat()}
    return value


# --- from JSON --------------------------------------------------------------------------------------------------------


class _Malformed(Exception):
    """A map with a ``$`` key is malformed; ``path`` is filled in on the way out, the innermost part first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path: list[str] = []


def _value(form: Any) -> Any:
    if isinstance(form, list):
        found: list[Any] = []
        try:
            for item in form:
                found.append(_value(item))  # noqa: PERF401 -- its length says where a malformed item is
        except _Malformed as malformed:
            malformed.path.append(f"[{len(found)}]")
            raise
        return found
    if not isinstance(form, dict):
        return form
    if len(form) == 1:
        (name, content), *_ = form.items()
        read = _FORMS.get(name)
        if read is not None:
            try:
                return read(content)
            except _Malformed:
                raise
            except (ValueError, TypeError, KeyError, AttributeError, msgspec.MsgspecError):
                raise _Malformed(name) from None
    return _map(form)


def _map(content: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in content.items():
        try:
            found[key] = _value(item)
        except _Malformed as malformed:
            malformed.path.append(f".{shorten(str(key), KEY_CHARS)}")
            raise
    return found


def _bytes(content: Any) -> bytes:
    return b64decode(content, validate=True)


def _time(content: Any) -> datetime:
    found = datetime.fromisoformat(content)
    if found.tzinfo is None:
        raise ValueError("a time needs a time zone")
    return found


def _array(content: Any) -> msgspec.msgpack.Ext:
    parts = [content["dtype"], content["shape"], b64decode(content["data"], validate=True)]
    msgspec.convert(parts, tuple[str, list[int], bytes])
    return msgspec.msgpack.Ext(NDARRAY, msgspec.msgpack.encode(parts))


def _float(content: Any) -> float:
    return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[content]


def _pairs(content: Any) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, item in content:
        try:
            found[_key(key)] = _value(item)
        except _Malformed as malformed:
            malformed.path.append(f"[{shorten(repr(key), KEY_CHARS)}]")
            raise
    return found


def _key(form: Any) -> Any:
    return _hashable(_value(form))


def _hashable(key: Any) -> Any:
    """A key as decoders make it: of an array, at whatever depth, a tuple."""
    return tuple(map(_hashable, key)) if isinstance(key, list) else key


def _msgpack(content: Any) -> msgspec.Raw:
    data = b64decode(content, validate=True)
    with contextlib.suppress(RecursionError):  # a value nested too deeply is why this form exists
        _decode(data)
    return msgspec.Raw(data)


_FORMS: dict[str, Callable[[Any], Any]] = {
    "$bytes": _bytes,
    "$time": _time,
    "$array": _array,
    "$float": _float,
    "$pairs": _pairs,
    "$map": _map,
    "$msgpack": _msgpack,
}
