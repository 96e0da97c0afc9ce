"""A place in one history of a bus: where a reader has got to, and where it resumes.

An offset alone does not tell one history from another: a bus that was deleted and made anew counts from 1 again, and so
does a restored older store, under its old epoch. The epoch and the id of the last message seen tell them apart.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_POSITION = re.compile(r"([0-9a-f]{1,64}):(\d{1,15}):([0-9a-f]{1,64}-\d{1,16})?")


class Position(NamedTuple):
    """A place in one history of a bus.

    Attributes:
        epoch: Names the history; "" means "from now on", whatever the history.
        offset: The offset of the last message seen.
        id: `Message.id` of that message; "" where it is not known.

    >>> Position.parse("a1:17:b2-5")
    Position(epoch='a1', offset=17, id='b2-5')
    >>> str(Position("a1", 17))
    'a1:17:'
    """

    epoch: str = ""
    offset: int = 0
    id: str = ""

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """Read the output of `str`; None where ``text`` is no position."""
        found = _POSITION.fullmatch(text)
        return None if found is None else cls(found[1], int(found[2]), found[3] or "")
