"""Writes and requests without an answer, and their fate when the connection is lost.

| pending | when the connection is lost |
| --- | --- |
| write | is sent again once its bus is open again, with its first id, so that it is accepted once |
| open, subscribe | are dropped: on the next connection the session makes new ones for all of its channels |
| reopen, list | are sent again right after ``Hello`` |
| fetch | is sent again once its bus is open again |
| delete | fails: its outcome is unknown, and by then another bus may have the name |

Writes and requests that are made without a connection are pending, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Literal, NamedTuple

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.errors import RateLimited

from .channel import Channel

Kind = Literal["open", "reopen", "subscribe", "fetch", "delete", "list"]
RequestFrame = frames.Open | frames.Subscribe | frames.Fetch | frames.Delete | frames.List


class PendingWrites:
    """The writes of one client without an answer, by id. Their frames are in `Channel.unacked`.

    Args:
        limit: The most writes that may be pending.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._channels: dict[int, Channel] = {}
        self._ids: Iterator[int] = count(1)

    def new_id(self, channel: Channel) -> int:
        """The id of the next write. The caller puts its frame into `Channel.unacked`.

        Raises:
            RateLimited: ``limit`` writes are pending.
        """
        if len(self._channels) >= self.limit:
            raise RateLimited(
                f"{self.limit} writes wait for an answer. Await acks as you write.",
                limit="max_pending",
                retry_after=0.1,
            )
        id_ = next(self._ids)
        self._channels[id_] = channel
        return id_

    def pop(self, first: int, number: int = 1) -> list[int]:
        """Take out the writes ``first`` … ``first + number - 1``, which have their answer; returns those that were here."""
        found = []
        for id_ in range(first, first + number):
            channel = self._channels.pop(id_, None)
            if channel is not None:
                del channel.unacked[id_]
                found.append(id_)
        return found

    def pop_channel(self, channel: Channel) -> list[int]:
        """Take out the writes of a bus that has ended; returns their ids."""
        ids = list(channel.unacked)
        for id_ in ids:
            self.pop(id_)
        return ids

    def pop_all(self) -> list[int]:
        """Take out all writes; returns their ids."""
        ids = list(self._channels)
        for id_ in ids:
            self.pop(id_)
        return ids


class Request(NamedTuple):
    """One request without a reply. Its number is ``frame.req``."""

    kind: Kind
    frame: RequestFrame
    channel: Channel | None


class PendingRequests:
    """The requests of one client without a reply, by number."""

    def __init__(self) -> None:
        self._requests: dict[int, Request] = {}
        self._numbers: Iterator[int] = count(1)

    def add(self, kind: Kind, frame: RequestFrame, channel: Channel | None = None) -> int:
        """Number ``frame`` and keep it until its reply. Returns the number."""
        frame.req = next(self._numbers)
        self._requests[frame.req] = Request(kind, frame, channel)
        return frame.req

    def pop(self, req: int) -> Request | None:
        """Take out the request that a reply answers; None where it is not here."""
        return self._requests.pop(req, None)

    def pop_channel(self, channel: Channel) -> list[int]:
        """Take out the requests of a bus that has ended; returns their numbers."""
        return self._pop(lambda request: request.channel is channel)

    def pop_all(self) -> list[int]:
        """Take out all requests; returns their numbers."""
        return self._pop(lambda request: True)

    def connection_lost(self) -> list[int]:
        """Drop the requests that belonged to the connection. Returns the numbers of the deletions: they have failed."""
        self._pop(lambda request: request.kind in ("open", "subscribe"))
        return self._pop(lambda request: request.kind == "delete")

    def to_repeat(self) -> list[RequestFrame]:
        """The frames to send right after ``Hello``."""
        return [request.frame for request in self._requests.values() if request.kind in ("reopen", "list")]

    def to_repeat_for(self, channel: Channel) -> list[RequestFrame]:
        """The frames to send once ``channel`` is open, with its present number."""
        repeated: list[RequestFrame] = []
        for request in self._requests.values():
            if request.channel is channel and isinstance(request.frame, frames.Fetch | frames.Delete):
                request.frame.bus = channel.number
                repeated.append(request.frame)
        return repeated

    def _pop(self, wanted: Callable[[Request], bool]) -> list[int]:
        popped = [req for req, request in self._requests.items() if wanted(request)]
        for req in popped:
            del self._requests[req]
        return popped
