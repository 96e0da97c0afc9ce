"""The requests of a client that have no reply yet, and what becomes of each when the connection is lost.

| request | when the connection is lost |
| --- | --- |
| open, subscribe | is forgotten: on the next connection the session makes new ones for all of its channels |
| reopen, list | is sent again right after ``hello`` |
| fetch | is sent again once its bus is open again |
| delete | fails, for the outcome is unknown, and by then another bus may have the name |

A fetch or delete that is made while there is no connection waits for its bus to open, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Literal, NamedTuple

from ebus_jupyter.core.protocol import frames

from .channel import Channel

Kind = Literal["open", "reopen", "subscribe", "fetch", "delete", "list"]
RequestFrame = frames.Open | frames.Subscribe | frames.Fetch | frames.Delete | frames.List


class Request(NamedTuple):
    """One request without a reply. Its number is ``frame.req``."""

    kind: Kind
    frame: RequestFrame
    channel: Channel | None


class Requests:
    """The pending requests of one client, by number."""

    def __init__(self) -> None:
        self._pending: dict[int, Request] = {}
        self._numbers: Iterator[int] = count(1)

    def add(self, kind: Kind, frame: RequestFrame, channel: Channel | None = None) -> int:
        """Number ``frame`` and keep it until `pop`. Returns the number."""
        frame.req = next(self._numbers)
        self._pending[frame.req] = Request(kind, frame, channel)
        return frame.req

    def pop(self, req: int) -> Request | None:
        """Take the request that a reply answers; None where it is not pending."""
        return self._pending.pop(req, None)

    def pop_channel(self, channel: Channel) -> list[int]:
        """Take the numbers of all requests of a bus that has ended."""
        return self._take(lambda request: request.channel is channel)

    def pop_all(self) -> list[int]:
        """Take the numbers of all requests."""
        return self._take(lambda request: True)

    def connection_lost(self) -> list[int]:
        """Forget what belonged to the connection. Returns the numbers of the deletions, whose outcome is unknown."""
        self._take(lambda request: request.kind in ("open", "subscribe"))
        return self._take(lambda request: request.kind == "delete")

    def to_repeat(self) -> list[RequestFrame]:
        """The frames to send right after ``hello``."""
        return [request.frame for request in self._pending.values() if request.kind in ("reopen", "list")]

    def to_repeat_for(self, channel: Channel) -> list[RequestFrame]:
        """The frames to send once ``channel`` is open, with its present number."""
        repeated: list[RequestFrame] = []
        for request in self._pending.values():
            if request.channel is channel and isinstance(request.frame, frames.Fetch | frames.Delete):
                request.frame.bus = channel.number
                repeated.append(request.frame)
        return repeated

    def _take(self, wanted: Callable[[Request], bool]) -> list[int]:
        taken = [req for req, request in self._pending.items() if wanted(request)]
        for req in taken:
            del self._pending[req]
        return taken
