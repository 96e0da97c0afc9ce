"""Maps with a key twice: a generic decoder takes the last one, and a typed reader stumbles over the first.

What a check has decoded would not be what the reader decodes. The scan is slow, and only made where a value's bytes differ
from those that its decoded form is encoded as.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

_SIZES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FIXED |= {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
_COUNTS = {0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}

_decode: Any = msgspec.msgpack.Decoder(ext_hook=lambda code, body: (code, bytes(body))).decode


def repeated_key(data: bytes) -> Any:
    """A list with a key that a map in ``data`` has twice (1 and 1.0 are one key, as in Python); None: there is none.

    Args:
        data: Valid MessagePack.
    """
    found: list[Any] = []
    _skip(data, 0, found)
    return found or None


def _skip(data: bytes, at: int, found: list[Any]) -> int:
    """The place after the value that begins at ``at``."""
    head = data[at]
    at += 1
    if head < 0x80 or head >= 0xE0 or head in (0xC0, 0xC2, 0xC3):
        return at
    if 0xA0 <= head < 0xC0:
        return at + (head & 0x1F)
    if head in _FIXED:
        return at + _FIXED[head]
    if head in _SIZES:
        width = _SIZES[head]
        size = int.from_bytes(data[at : at + width], "big")
        return at + width + size + (0xC7 <= head <= 0xC9)
    if head < 0xA0:
        count, is_map = head & 0x0F, head < 0x90
    else:
        form = _COUNTS[head]
        (count,) = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        is_map = head >= 0xDE
    if not is_map:
        for _ in range(count):
            at = _skip(data, at, found)
        return at
    keys = set()
    for _ in range(count):
        start, at = at, _skip(data, at, found)
        key = _decode(b"\x81" + data[start:at] + b"\xc0")
        keys |= key.keys()
        at = _skip(data, at, found)
        if found:
            return at
    if len(keys) < count:
        found.append(len(keys))
    return at
