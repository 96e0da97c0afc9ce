"""A participant for the length of one HTTP request, attached to the broker like any other.

It speaks frames, so scopes, types, limits and filters are the broker's business here as everywhere.
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
from ebus_jupyter.core.protocol.message import message_id
from ebus_jupyter.errors import Closed, ConnectionLost, ProtocolError
from ebus_jupyter.transports.local import Attached, LocalTransport

F = TypeVar("F", bound=frames.Frame)

_POSITION = re.compile(r"([0-9a-f]{1,64}):(\d{1,15}):([0-9a-f]{1,64}-\d{1,16})?")
_OFFSET = re.compile(r"-?\d{1,15}")


class Position(NamedTuple):
    """A place in one history of a bus: its epoch, an offset, and the id of the message there ("" where it is not known).

    >>> Position.parse("a1:17:b2-5")
    Position(epoch='a1', offset=17, id='b2-5')
    >>> str(Position("a1", 17))
    'a1:17:'
    """

    epoch: str
    offset: int
    id: str = ""

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """Read what `str` printed; None where ``text`` is something else."""
        found = _POSITION.fullmatch(text)
        return None if found is None else cls(found[1], int(found[2]), found[3] or "")


Since = Position | int | Literal["start"] | None
"""Where to begin reading, as in `core.client.reader`; or a `Position`, which notices another history."""


def since(text: str) -> Since:
    """Read the parameter ``since``.

    Raises:
        ProtocolError: It is none of "start", an offset, -n, or a position that was given out here.
    """
    if text == "start":
        return "start"
    if _OFFSET.fullmatch(text):
        return int(text)
    found = Position.parse(text)
    if found is None:
        raise ProtocolError(
            f"since={text[:80]!r} is no place in a bus: use 'start', an offset, -n for the last n, or the `next` of an "
            "earlier answer."
        )
    return found


class Missed(NamedTuple):
    """Messages were missed: ``skipped`` of them (None: nobody can know). What follows comes after ``resume_after``."""

    skipped: int | None
    resume_after: int


class BusReading:
    """Reads a bus: what is there already, then (``live``) what is written, in batches as they come.

    Attributes:
        position: Where it has got to.
        more: Whether the last batch was not the last one.
    """

    def __init__(self, visit: RequestClient, bus: frames.Opened, live: bool) -> None:
        self.position = Position(bus.epoch, bus.last)
        self.more = True
        self._visit = visit
        self._bus = bus
        self._live = live
        self._keyed = bus.spec.get("retain") == "keys"
        self._first: list[frames.Delivery | Missed] = []
        self._page: frames.Page | None = None
        self._target: int | None = None  # the offset that a reading which is not live ends at

    async def begin(self, where: Since) -> None:
        """Ask for the beginning; raises what the broker has against it."""
        if where is None:
            await self._subscribe(None)
        elif isinstance(where, Position):
            self.position = where
            await self._subscribe(where)
        else:
            after = 0 if where == "start" else where
            if after > self._bus.last:  # from another history: that offset has not been given yet
                self._first.append(Missed(None, 0))
                after = 0
            await self._fetch(after)
            assert self._page is not None
            if 0 < after < self._page.floor:
                missed = Missed(self._page.floor - after, 0 if self._keyed else self._page.floor)
                self._first.append(missed)
                if self._keyed:  # only the whole state tells what has become of it
                    await self._fetch(0)

    async def __aiter__(self) -> AsyncIterator[list[frames.Delivery | Missed]]:
        if self._first:
            yield self._first
        while self._page is not None:
            page = self._page
            self.more = page.more or self._live
            yield [self._at(frames.delivery(message)) for message in page.messages]
            self._reach(page.through)
            if page.more:
                await self._fetch(page.through)
            elif not self._live:
                return
            else:
                self._page = None
                await self._subscribe(self.position)
        while self._live or self.position.offset < (self._target or 0):
            found = [item for frame in await self._visit.heard() if (item := self._item(frame)) is not None]
            if found:
                self.more = self._live or self.position.offset < (self._target or 0)
                yield found
        self.more = False

    async def _fetch(self, after: int) -> None:
        self._page = await self._visit.ask(frames.Page, frames.Fetch(self._visit.req(), self._bus.bus, after))

    async def _subscribe(self, where: Position | None) -> None:
        question = frames.Subscribe(self._visit.req(), self._bus.bus)
        if where is not None:
            question.epoch, question.after, question.last_id = where
        answer = await self._visit.ask(frames.Subscribed, question)
        self._target = answer.last
        missed = self._item(answer)
        if missed is not None:
            self._first.append(missed)
        elif where is None:
            self.position = Position(answer.epoch, answer.after)

    def _item(self, frame: frames.BrokerFrame) -> frames.Delivery | Missed | None:
        match frame:
            case frames.Delivery():
                return self._at(frame)
            case frames.Advance():
                self._reach(frame.offset)
            case frames.Lag():
                self.position = Position(self._bus.epoch, frame.resume_after)
                return Missed(frame.skipped, frame.resume_after)
            case frames.Subscribed(recovered=False):
                self.position = Position(frame.epoch, frame.after)
                return Missed(None if frame.skipped < 0 else frame.skipped, frame.after)
        return None

    def _at(self, delivery: frames.Delivery) -> frames.Delivery:
        self.position = Position(self._bus.epoch, delivery.offset, message_id((delivery.sender.id, delivery.id)))
        return delivery

    def _reach(self, offset: int) -> None:
        if offset > self.position.offset:
            self.position = Position(self._bus.epoch, offset)


class RequestClient:
    """One connection to the broker, as an async context.

    Args:
        attach: Makes the connection.
        instance: 32 hexadecimal digits that nobody can guess; those of an earlier visit make this one its retry.

    Raises (all methods):
        ConnectionLost: The broker has ended the connection, or `leave` was called.
        EbusError: What the broker answered.
    """

    def __init__(self, attach: Callable[[LocalTransport], Attached], instance: str = "") -> None:
        self._attach = attach
        self._instance = instance or secrets.token_hex(16)
        self._waiting: deque[frames.BrokerFrame] = deque()
        self._req = 0
        self._bus = 0

    async def __aenter__(self) -> RequestClient:
        self._transport = LocalTransport(self._attach)
        self._messages = aiter(self._transport)
        await self.ask(frames.Welcome, frames.Hello(frames.VERSION, self._instance, "http"))
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.leave()

    async def leave(self) -> None:
        """End, whatever is under way. Safe to call twice."""
        bus, self._bus = self._bus, 0
        if bus:  # so that it is not shown as someone who may be back
            with contextlib.suppress(ConnectionLost):
                await self._say(frames.Leave(bus))
        await self._transport.aclose()

    async def buses(self) -> list[dict[str, Any]]:
        """The named buses within reach."""
        return (await self.ask(frames.Listed, frames.List(self.req()))).buses

    async def open(self, scope: str, name: str, *, create: bool) -> frames.Opened:
        """Open a bus."""
        opened = await self.ask(frames.Opened, frames.Open(self.req(), scope, name, create=create))
        self._bus = opened.bus
        return opened

    async def write(self, bus: frames.Opened, value: bytes, **how: Any) -> int:
        """Write a value and return its offset. The keywords are the fields of `frames.Publish`."""
        return (await self.ask(frames.Ok, frames.Publish(bus.bus, 1, msgspec.Raw(value), **how))).offset

    async def read(self, bus: frames.Opened, where: Since, *, live: bool) -> BusReading:
        """Read from ``where`` on; raises at once what forbids it."""
        reading = BusReading(self, bus, live)
        await reading.begin(where)
        return reading

    # --- frames -----------------------------------------------------------------------------------------------------

    def req(self) -> int:
        self._req += 1
        return self._req

    async def ask(self, kind: type[F], question: frames.ClientFrame) -> F:
        """Say something, and wait for the answer of that kind; what comes in between is of no interest."""
        await self._say(question)
        while True:
            frame = await self._next()
            if isinstance(frame, kind):
                return frame

    async def heard(self) -> list[frames.BrokerFrame]:
        """What the broker says next; all that is here already, one frame at least."""
        found = [await self._next()]
        while self._waiting:
            found.append(self._heard(self._waiting.popleft()))
        return found

    async def _say(self, frame: frames.Frame) -> None:
        await self._transport.send(frames.join([frames.encode(frame)]))

    async def _next(self) -> frames.BrokerFrame:
        while not self._waiting:
            try:
                self._waiting.extend(frames.from_broker(await anext(self._messages)))
            except StopAsyncIteration:
                raise ConnectionLost("the server has ended the connection; try again.") from None
        return self._heard(self._waiting.popleft())

    def _heard(self, frame: frames.BrokerFrame) -> frames.BrokerFrame:
        match frame:
            case frames.Error():
                raise frame.exception()
            case frames.Bye():
                raise ConnectionLost(frame.text)
            case frames.Gone():
                self._bus = 0
                raise Closed(f"the bus is gone: {frame.reason}.", reason=frame.reason)
        return frame
