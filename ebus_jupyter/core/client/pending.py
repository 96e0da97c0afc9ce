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

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Literal, NamedTuple

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.errors import RateLimited

from .channel import Channel

Kind = Literal["open", "reopen", "subscribe", "fetch", "delete", "list"]
RequestFrame = frames.Open | frames.Subscribe | frames.Fetch | frames.Delete | frames.List


MAX_PENDING_BYTES = 64 << 20
"""The most bytes of values without an answer."""


class PendingWrites:
    """The writes of one client without an answer, by id. Their frames are in `Channel.unacked`.

    Args:
        limit: The most writes that may be pending.
        max_bytes: The most bytes that their values may have. One write may have more, by itself.
    """

    def __init__(self, limit: int, max_bytes: int = MAX_PENDING_BYTES) -> None:
        self.limit = limit
        self.max_bytes = max_bytes
        self.impatient: set[int] = set()  # those that see a refusal that others do not
        self._bytes = 0
        self._channels: dict[int, Channel] = {}
        self._ids: Iterator[int] = count(1)

    def __iter__(self) -> Iterator[tuple[Channel, frames.Publish]]:
        for id_, channel in self._channels.items():
            yield channel, channel.unacked[id_]

    def add(self, channel: Channel, frame: frames.Publish) -> int:
        """Give a write the next id, and keep it until its answer. Returns the id.

        Raises:
            RateLimited: There is no room.
        """
        size = len(frame.value)
        if not self.has_room(size):
            raise RateLimited(
                f"{channel.name or 'the bus'}: {len(self._channels)} writes of this client have no answer yet (at most "
                f"{self.limit}, and {self.max_bytes >> 20} MiB of values). Await their acks before you write more.",
                limit="max_pending",
                retry_after=0.1,
            )
        frame.id = id_ = next(self._ids)
        self._bytes += size
        channel.unacked[id_] = frame
        self._channels[id_] = channel
        return id_

    def take_back(self, channel: Channel, frame: frames.Publish) -> None:
        """Forget a write whose `add`, or what came after it, was interrupted."""
        self._channels.pop(frame.id, None)
        self.impatient.discard(frame.id)
        if channel.unacked.pop(frame.id, None) is not None:
            self._bytes -= len(frame.value)

    def pop(self, first: int, number: int = 1) -> list[int]:
        """Take out the writes ``first`` … ``first + number - 1``, which have their answer; returns those that were here."""
        found = []
        wanted: Sequence[int] = range(first, first + number)
        if number > len(self._channels):  # whatever a broker says, this takes no longer than there are writes
            wanted = [id_ for id_ in self._channels if id_ in wanted]
        for id_ in wanted:
            channel = self._channels.pop(id_, None)
            if channel is not None:
                if self.impatient:
                    self.impatient.discard(id_)
                self._bytes -= len(channel.unacked.pop(id_).value)
                found.append(id_)
        return found

    def to_send_again(self, id_: int) -> tuple[Channel, frames.Publish] | None:
        """The write that was refused for its rate; None where it is not here, or is to see that."""
        channel = self._channels.get(id_)
        return None if channel is None or id_ in self.impatient else (channel, channel.unacked[id_])

    def has_room(self, size: int) -> bool:
        """True while `add` takes one more write, of a value with ``size`` bytes."""
        return not self._channels or (len(self._channels) < self.limit and self._bytes + size <= self.max_bytes)

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

    def leave(self, channel: Channel) -> list[int]:
        """Take out the requests of a bus that is left, except those that are still to be answered; returns their numbers."""
        return self._pop(lambda request: request.channel is channel and request.kind not in ("open", "delete"))

    def has_any(self, channel: Channel) -> bool:
        """Whether requests of the bus have no answer."""
        return any(request.channel is channel for request in self._requests.values())

    @property
    def opening(self) -> bool:
        """Whether a bus is being opened on this connection."""
        return any(request.kind == "open" for request in self._requests.values())

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
