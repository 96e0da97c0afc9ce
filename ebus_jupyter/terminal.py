"""Text of others, made printable: what is shown on a terminal, or written to a log, passes `printable`.

A terminal obeys control characters: an escape sequence in the name of a bus could clear the screen, set the title, or show a
line that the server has never said. Characters that reorder or hide the text around them are as misleading, for a reader of
a log or of a list of names. All of them are shown as escapes, such as ``\\x1b``.

>>> print(printable("a\\x1b[2Jb"))
a\\x1b[2Jb
>>> printable("tea for 3 €")
'tea for 3 €'
"""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # controls; a line feed, too: it would begin a line that looks like another one
    "\u00ad\u061c\u180e\u200b\u200e\u200f\ufeff"  # invisible characters and marks of direction
    "\u2028\u2029\u202a-\u202e\u2060-\u206f"  # ends of lines, overrides and isolates of direction
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"  # annotations, halves of characters, tags
    "]"
)


def printable(text: str) -> str:
    """Return ``text`` with every character that a terminal obeys, or that hides or reorders others, as an escape."""
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub(_escape, text)


def printable_lines(text: str) -> str:
    """Return a text of several lines, each of them made `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(data: bytes) -> bytes:
    """Return JSON whose strings are `printable`: the same value, with further characters in its escapes."""
    if data.isascii() and b"\x7f" not in data:
        return data  # JSON escapes the controls of ASCII by itself, except this one
    return _UNPRINTABLE.sub(_json_escape, data.decode("utf-8", "surrogatepass")).encode()


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
