"""The formats of strings that a schema may name: exactly what readers decode.

Each is decided by the function that a Python reader decodes it with, so the broker and the reader can't differ. A format
that is not here says something to people, and is not checked.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec


def _decodes_as(type_: Any) -> Callable[[str], bool]:
    convert = msgspec.convert

    def holds(text: str) -> bool:
        try:
            convert(text, type_)
        except msgspec.ValidationError:
            return False
        return True

    return holds


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def holds(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return holds


FORMATS: dict[str, Callable[[str], bool]] = {
    "date-time": _decodes_as(datetime.datetime),
    "date": _decodes_as(datetime.date),
    "time": _decodes_as(datetime.time),
    "duration": _decodes_as(datetime.timedelta),
    "uuid": _decodes_as(UUID),
    "decimal": _decodes_as(Decimal),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
}
"""By the format's name: whether a text is one."""

NAMES = {"date-time": "datetime"}
"""What a mismatch calls a format, where that is not its name."""


def has_zone(text: str, format_: str) -> bool:
    """True if a text of the format "date-time" or "time" has a time zone."""
    type_: Any = datetime.datetime if format_ == "date-time" else datetime.time
    return msgspec.convert(text, type_).tzinfo is not None
