"""What a program passes to a public call: checked in that call, so that the error names the parameter and hurts nobody else.

What is wrong and gets as far as a frame is refused by the broker, which ends the client: a broker can't tell a mistake of the
program from one of the client. So nothing that a frame can't carry gets past these functions. They return what they were
given as a plain `str`, `int`, `float` or `bool`; subclasses of these and numpy's scalars are taken, where they mean the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf, isnan
from operator import index
from typing import Any, TypeVar

from ebus_jupyter.core.client.reader import Since
from ebus_jupyter.core.protocol.position import Position

F = TypeVar("F", bound=Callable[..., Any])

LONGEST_SECONDS = 1e8
"""A longer time (three years) is without a limit: the operating system's own clocks end somewhere."""

LARGEST = 1 << 53
"""The largest whole number that every participant can read, pages included."""


def seconds(value: Any, name: str = "timeout") -> float:
    """A number of seconds; infinite for None.

    Raises:
        TypeError, ValueError: ``value`` is no number.
    """
    if value is None:
        return inf
    if type(value) is not float:
        if isinstance(value, str | bytes | bool):
            raise _wrong(name, "a number of seconds, or None", value)
        try:
            value = float(value)
        except OverflowError:
            return inf if value > 0 else -inf
        except Exception:
            raise _wrong(name, "a number of seconds, or None", value) from None
    if isnan(value):
        raise ValueError(f"{name} must be a number of seconds, or None, not nan.")
    return float(value) if value <= LONGEST_SECONDS else inf


def whole(value: Any, name: str, least: int = -LARGEST) -> int:
    """A whole number, not less than ``least``.

    Raises:
        TypeError, ValueError: ``value`` is none.
    """
    try:
        found = index(value) if not isinstance(value, bool) else None
    except Exception:
        found = None
    if found is None:
        raise _wrong(name, "a whole number", value)
    if not least <= found <= LARGEST:
        raise ValueError(
            f"{name} must be from {least} to {LARGEST}." if least > -LARGEST else f"{name} is out of range."
        )
    return found


def flag(value: Any, name: str) -> bool:
    """True or False.

    Raises:
        TypeError: ``value`` is neither.
    """
    if value is True or value is False:
        return bool(value)
    if type(value).__name__ in ("bool", "bool_") and type(value).__module__ == "numpy":
        return bool(value)
    raise _wrong(name, "True or False", value)


def text(value: Any, name: str) -> str:
    """A text.

    Raises:
        TypeError, ValueError: ``value`` is none, or one that can't be sent.
    """
    if not isinstance(value, str):
        raise _wrong(name, "a str", value)
    if type(value) is not str:
        value = str.__str__(value)
    found: str = value
    if not found.isascii():
        try:
            found.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} has a lone surrogate, which can't be sent: {found[:40]!a}.") from None
    return found


def texts(value: Any, name: str) -> list[str]:
    """Texts, such as usernames; one by itself is a list of one.

    Raises:
        TypeError, ValueError: ``value`` is something else.
    """
    if isinstance(value, str):
        return [text(value, name)]
    if isinstance(value, bytes | dict) or not isinstance(value, Iterable):
        raise _wrong(name, "a str or a list of str", value)
    return [text(each, f"each item of {name}") for each in value]


def function(value: F, name: str) -> F:
    """Something that can be called.

    Raises:
        TypeError: ``value`` can't.
    """
    if not callable(value):
        raise _wrong(name, "a function", value)
    return value


def beginning(since: Any) -> Since:
    """The beginning of a stream.

    Raises:
        TypeError, ValueError: ``since`` is none.
    """
    if since is None:
        return None
    if isinstance(since, Position):
        epoch, id_ = text(since.epoch, "since.epoch"), text(since.id, "since.id")
        return Position(epoch, whole(since.offset, "since.offset", 0), id_)
    if isinstance(since, str):
        if since == "start":
            return "start"
        raise ValueError(
            f"since must be 'start', an offset, -n for the last n, or a position, not {since[:40]!a}. "
            "ebus.Position.parse(text) reads the text of a position."
        )
    try:
        return whole(since, "since")
    except TypeError:
        raise _wrong("since", "None, 'start', an offset, -n for the last n, or a position", since) from None


def _wrong(name: str, wanted: str, value: Any) -> TypeError:
    # Its type says enough, and its `repr` may be anything.
    return TypeError(
        f"{name} must be {wanted}, not {'None' if value is None else 'a value of type ' + type(value).__name__}."
    )
