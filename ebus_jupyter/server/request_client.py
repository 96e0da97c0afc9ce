"""A client on the broker for the length of one HTTP request.

It attaches to the broker like any other participant and speaks frames, so that scopes, types, limits and filters are
enforced by the broker here as everywhere.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import BusSpec
from ebus_jupyter.core.protocol.position import Position
from ebus_jupyter.errors import Closed, ConnectionLost, ProtocolError
from ebus_jupyter.transports.local import Attached, LocalTransport

F = TypeVar("F", bound=frames.Frame)

_OFFSET = re.compile(r"-?\d{1,15}")


Since = Position | int | Literal["start"] | None
"""Where to begin reading, as in `core.client.reader`; or a `Position`, which detects that the history is another one."""


def parse_since(text: str) -> Since:
    """Parse the query parameter ``since``.

    Raises:
        ProtocolError: It is none of "start", an offset, -n, or a position from an earlier answer.
    """
    if text == "start":
        return "start"
    if _OFFSET.fullmatch(text):
        return int(text)
    position = Position.parse(text)
    if position is None:
        raise ProtocolError(
            f"since={text[:80]!r} is not a position in a bus: use 'start', an offset, -n for the last n messages, or the "
            "`next` of an earlier answer."
        )
    return position


def filtered_by_of(bus: frames.Opened) -> str:
    """Whose filter sees each write to a bus; see `BusSpec.filtered_by`."""
    return msgspec.convert(bus.spec, BusSpec, strict=False).filtered_by if "filter" in bus.spec else ""


class Missed(NamedTuple):
    """``skipped`` messages were missed (None: their number is unknown). Reading goes on after ``resume_after``."""

    skipped: int | None
    resume_after: int


class BusReading:
    """Reads a bus in batches: first the log and then, if ``live``, new messages as they arrive.

    Attributes:
        position: That of the last message read. Messages behind it that are for others don't count: only the id of a message
            that was read tells this history from another.
        through: The offset that was read through, those messages included.
        more: True if more messages follow the last batch.
    """

    def __init__(self, client: RequestClient, bus: frames.Opened, live: bool) -> None:
        self.position = Position(bus.epoch, bus.last)
        self.through = bus.last
        self.more = True
        self._client = client
        self._bus = bus
        self._live = live
        self._keyed = bus.spec.get("retain") == "keys"
        self._first: list[frames.Delivery | Missed] = []
        self._page: frames.Page | None = None
        self._end: int | None = None  # the offset at which a reading that is not live ends

    async def start(self, since: Since) -> None:
        """Request the first messages. Raises the broker's refusal."""
        if since is None:
            await self._subscribe(None)
        elif isinstance(since, Position):
            self._reached(since)
            await self._subscribe(since)
        else:
            after = 0 if since == "start" else since
            if after > self._bus.last:  # an offset of another history: this one has not reached it
                self._first.append(Missed(None, 0))
                after = 0
            await self._fetch(after)
            assert self._page is not None
            if 0 < after < self._page.floor:
                missed = Missed(self._page.floor - after, 0 if self._keyed else self._page.floor)
                self._first.append(missed)
                if self._keyed:  # deleted keys show only in the whole state
                    await self._fetch(0)

    async def __aiter__(self) -> AsyncIterator[list[frames.Delivery | Missed]]:
        if self._first:
            yield self._first
        while self._page is not None:
            page = self._page
            self.more = page.more or self._live
            yield [self._delivered(frames.delivery(message)) for message in page.messages]
            self._advance(page.through)
            if page.more:
                await self._fetch(page.through)
            elif not self._live:
                return
            else:
                self._page = None
                await self._subscribe(self.position)
        while self._live or self.through < (self._end or 0):
            items = [item for frame in await self._client.receive() if (item := self._item(frame)) is not None]
            if items:
                self.more = self._live or self.through < (self._end or 0)
                yield items
        self.more = False

    async def _fetch(self, after: int) -> None:
        fetch = frames.Fetch(self._client.next_request(), self._bus.bus, after)
        self._page = await self._client.request(fetch, frames.Page)

    async def _subscribe(self, position: Position | None) -> None:
        subscribe = frames.Subscribe(self._client.next_request(), self._bus.bus)
        if position is not None:
            subscribe.epoch, subscribe.after, subscribe.last_id = position
            if self.through > position.offset:
                subscribe.after, subscribe.id_offset = self.through, position.offset
        subscribed = await self._client.request(subscribe, frames.Subscribed)
        self._end = subscribed.last
        missed = self._item(subscribed)
        if missed is not None:
            self._first.append(missed)
        elif position is None:
            self._reached(Position(subscribed.epoch, subscribed.after))

    def _item(self, frame: frames.BrokerFrame) -> frames.Delivery | Missed | None:
        match frame:
            case frames.Delivery():
                return self._delivered(frame)
            case frames.Advance():
                self._advance(frame.offset)
            case frames.Lag():
                self._reached(Position(self._bus.epoch, frame.resume_after))
                return Missed(frame.skipped, frame.resume_after)
            case frames.Subscribed(recovered=False):
                self._reached(Position(frame.epoch, frame.after))
                return Missed(None if frame.skipped < 0 else frame.skipped, frame.after)
        return None

    def _delivered(self, delivery: frames.Delivery) -> frames.Delivery:
        self._reached(Position(self._bus.epoch, delivery.offset, delivery.message_id))
        return delivery

    def _reached(self, position: Position) -> None:
        self.position, self.through = position, position.offset

    def _advance(self, offset: int) -> None:
        """Go on to ``offset`` without a message that this client may see."""
        if not self.position.id and offset > self.through:
            self.position = Position(self._bus.epoch, offset)
        self.through = max(self.through, offset)


class RequestClient:
    """One connection to the broker, as an asynchronous context manager.

    Args:
        attach: Makes the connection.
        instance: 32 unguessable hexadecimal digits; a request with those of an earlier one is its retry. Default: new ones.

    Raises (all methods):
        ConnectionLost: The broker has closed the connection, or `aclose` was called.
        EbusError: The broker refused the request.
    """

    def __init__(self, attach: Callable[[LocalTransport], Attached], instance: str = "") -> None:
        self._attach = attach
        self._instance = instance or secrets.token_hex(16)
        self._received: deque[frames.BrokerFrame] = deque()
        self._request = 0
        self._bus = 0

    async def __aenter__(self) -> RequestClient:
        self._transport = LocalTransport(self._attach)
        self._messages = aiter(self._transport)
        await self.request(frames.Hello(frames.VERSION, self._instance, "http"), frames.Welcome)
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection, whatever request is pending. Safe to call twice."""
        bus, self._bus = self._bus, 0
        if bus:  # a participant that leaves is not shown as away
            with contextlib.suppress(ConnectionLost):
                await self._send(frames.Leave(bus))
        await self._transport.aclose()

    async def buses(self, after: str = "", limit: int = 0, find: str = "") -> frames.Listed:
        """List the named buses within reach, one page."""
        return await self.request(frames.List(self.next_request(), after, limit, find), frames.Listed)

    async def open(self, scope: str, name: str, *, create: bool) -> frames.Opened:
        """Open a bus."""
        opened = await self.request(frames.Open(self.next_request(), scope, name, create=create), frames.Opened)
        self._bus = opened.bus
        return opened

    async def write(self, bus: frames.Opened, value: bytes, **fields: Any) -> int:
        """Write a value and return its offset. The keywords are the fields of `frames.Publish`."""
        return (await self.request(frames.Publish(bus.bus, 1, msgspec.Raw(value), **fields), frames.Ok)).offset

    async def read(self, bus: frames.Opened, since: Since, *, live: bool) -> BusReading:
        """Start to read a bus at ``since``."""
        reading = BusReading(self, bus, live)
        await reading.start(since)
        return reading

    # --- frames -----------------------------------------------------------------------------------------------------

    def next_request(self) -> int:
        """Return a new request number."""
        self._request += 1
        return self._request

    async def request(self, frame: frames.ClientFrame, answer: type[F]) -> F:
        """Send a frame and return its answer, the next frame of type ``answer``. Frames before that are discarded."""
        await self._send(frame)
        while True:
            received = await self._next_frame()
            if isinstance(received, answer):
                return received

    async def receive(self) -> list[frames.BrokerFrame]:
        """Wait for a frame, and return it with all others that have already arrived."""
        received = [await self._next_frame()]
        while self._received:
            received.append(self._checked(self._received.popleft()))
        return received

    async def _send(self, frame: frames.Frame) -> None:
        await self._transport.send(frames.join([frames.encode(frame)]))

    async def _next_frame(self) -> frames.BrokerFrame:
        while not self._received:
            try:
                self._received.extend(frames.from_broker(await anext(self._messages)))
            except StopAsyncIteration:
                raise ConnectionLost("the server has closed the connection; try again.") from None
        return self._checked(self._received.popleft())

    def _checked(self, frame: frames.BrokerFrame) -> frames.BrokerFrame:
        match frame:
            case frames.Error():
                raise frame.exception()
            case frames.Bye():
                raise ConnectionLost(frame.text)
            case frames.Gone():
                self._bus = 0
                raise Closed(f"the bus is gone: {frame.reason}.", reason=frame.reason)
        return frame
