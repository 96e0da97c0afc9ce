"""The client's half: what a participant knows, through every reconnect.

`Session` turns what the program wants (open, publish, read) into frames, and the broker's frames into events. It holds
no socket and no clock; its shell (`ebus_jupyter.client`) carries the bytes.

Reconnecting
    The instance id stays the same. Every bus is opened again, every subscription resumes after the last message seen,
    and every write without an answer is sent again, in order, with its first id: the broker answers with its first
    offset if it had accepted it. So an unknown outcome always becomes a known one.

What a client knows of one bus is in `core.client.channel`, what its program is told in `core.client.events`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address, may_enter, resolve
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import Closed, ConnectionLost, EbusError, RateLimited

from .channel import Channel
from .events import (
    BusClosed,
    BusOpened,
    ConnectionEnded,
    Event,
    FilterRequested,
    MessagesArrived,
    PresenceChanged,
    RequestSettled,
    Welcomed,
    WriteSettled,
)

REOPEN_SECONDS = 1.0
"""When a bus that was open, and can't be opened again just now, is asked for once more."""


class Session:
    """A client of one broker.

    Args:
        instance: 32 hexadecimal digits that nobody can guess; kept for the client's life.
        client: What the client is, for the broker's log.
        max_pending: Writes without an answer; `publish` refuses one more. No more than a bus remembers (`Limits.dedupe`).
    """

    def __init__(self, instance: str, *, client: str = "", max_pending: int = 10_000) -> None:
        self.instance = instance
        self.client = client
        self.max_pending = max_pending
        self.you: Participant | None = None
        self.limits: dict[str, int] = {}
        self.live = False
        self._greeted = False  # hello was said: what is said next is heard, welcomed or not yet
        self.closed: EbusError | None = None
        self._buses: list[Channel] = []
        self._by_number: dict[int, Channel] = {}
        self._by_uri: dict[str, Channel] = {}
        self._questions: dict[int, tuple[str, Channel | None, frames.Frame | None]] = {}
        self._reqs: Iterator[int] = count(1)
        self._ids: Iterator[int] = count(1)
        self._asks: Iterator[int] = count(1)
        self._writes: dict[int, Channel] = {}
        self._postponed: dict[Channel, float] = {}  # could not be opened again just now; when to ask once more
        self._out: list[bytes] = []

    # --- the connection ---------------------------------------------------------------------------------------------

    def connection_made(self) -> None:
        """A new connection is there: greet, and ask for everything again."""
        self._out.clear()
        self._say(frames.Hello(frames.VERSION, self.instance, self.client))
        self._greeted = True
        self._questions = {
            req: asked for req, asked in self._questions.items() if asked[0] not in ("open", "subscribe")
        }
        for bus in self._buses:
            self._ask_open(bus)
        for kind, _, question in self._questions.values():
            if kind in ("join", "catalogue") and question is not None:
                self._say(question)

    def connection_lost(self) -> list[Event]:
        """The connection has ended. What has no answer is asked again on the next one, except to delete a bus: by then
        another one may have its name."""
        self.live = self._greeted = False
        self._by_number.clear()
        self._out.clear()
        self._postponed.clear()
        for bus in self._buses:
            bus.connection_lost()
        deletions = [req for req, (kind, _, _) in self._questions.items() if kind == "delete"]
        for req in deletions:
            del self._questions[req]
        unknown = ConnectionLost("the connection was lost before the answer; nobody knows whether the bus was deleted.")
        return [RequestSettled(req, None, unknown) for req in deletions]

    def close(self, error: EbusError) -> list[Event]:
        """This client ends. Everything that waits is told ``error``."""
        self.closed = error
        events = self.connection_lost()
        events += [WriteSettled(id_, 0, error) for id_ in self._writes]
        events += [RequestSettled(req, None, error) for req in self._questions]
        for bus in self._buses:
            bus.error = bus.error or error
            bus.unacked.clear()
            events.append(BusClosed(bus, bus.error))
        self._writes.clear()
        self._questions.clear()
        self._buses.clear()
        self._by_uri.clear()
        return events

    def data_to_send(self, now: float, max_bytes: int = 1 << 20) -> bytes | None:
        """The next WebSocket message to send; None where there is nothing to say."""
        for bus in self._buses:
            if bus.batch and (len(bus.batch) >= bus.flush_size or now - bus.batch_since >= bus.flush_interval):
                self._release(bus)
        for bus in [bus for bus, at in self._postponed.items() if now >= at]:
            del self._postponed[bus]
            self._ask_open(bus)
        if not self._out:
            return None
        size = 0
        for n, frame in enumerate(self._out):
            size += len(frame)
            if n and size > max_bytes:
                batch, self._out = self._out[:n], self._out[n:]
                return frames.join(batch)
        batch, self._out = self._out, []
        return frames.join(batch)

    @property
    def has_outgoing(self) -> bool:
        """Whether `outgoing` and `due` are to be asked."""
        return bool(self._out or self._postponed)

    def next_deadline(self) -> float | None:
        """When `outgoing` is next to be asked, though nothing happens till then."""
        times = [bus.batch_since + bus.flush_interval for bus in self._buses if bus.batch]
        times += self._postponed.values()
        return min(times) if times else None

    def _say(self, frame: frames.Frame) -> None:
        self._out.append(frames.encode(frame))

    # --- opening ----------------------------------------------------------------------------------------------------

    def open(
        self,
        scope: str,
        name: str | None,
        given: dict[str, Any],
        *,
        owner: str = "",
        cap: str = "",
        create: bool = True,
    ) -> Channel:
        """Open a bus. The answer is an `BusOpened` or a `BusClosed`."""
        if self.closed is not None:
            raise self.closed
        bus = Channel(scope, name, given, owner, cap, create)
        self._buses.append(bus)
        bus.uri = self._uri(scope, name, owner)
        if bus.uri:  # it is found from now on: two links to one bus would take each other's messages
            self._by_uri.setdefault(bus.uri, bus)
        if self._greeted:
            self._ask_open(bus)
        return bus

    def find(self, scope: str, name: str, owner: str = "", cap: str = "") -> Channel | None:
        """The bus that is open here already, or being opened, however it was named then.

        None, too, where it takes a capability to enter and this is not the one: that is for the broker to refuse.
        """
        uri = self._uri(scope, name, owner)
        link = self._by_uri.get(uri)
        if link is None or self.you is None:
            return None
        return link if cap == link.cap or may_enter(Address.parse(uri), self.you, "", b"") else None

    def _uri(self, scope: str, name: str | None, owner: str) -> str:
        """What the broker will call the bus; empty where only the broker knows: it has not said who this client is, it
        gives the name, or it will refuse."""
        if self.you is None or name is None:
            return ""
        try:
            return str(resolve(scope, name, self.you, owner=owner, shared_engine=True))
        except EbusError:
            return ""

    def _ask_open(self, bus: Channel) -> None:
        req = self._ask("open", bus)
        self._say(frames.Open(req, bus.scope, bus.name, bus.given, bus.owner, bus.cap, bus.create))

    def reopen(self, bus: Channel, given: dict[str, Any]) -> int:
        """Open a bus that is open here once more, with its own wishes; answered by `frames.Opened`."""
        bus.given = {**bus.given, **given}
        question = frames.Open(0, bus.scope, bus.name, given, bus.owner, bus.cap)
        question.req = req = self._ask("join", bus, question)
        if self._greeted:
            self._say(question)
        return req

    def _ask(self, kind: str, bus: Channel | None, question: frames.Frame | None = None) -> int:
        req = next(self._reqs)
        self._questions[req] = (kind, bus, question)
        return req

    def leave(self, bus: Channel) -> list[Event]:
        """Close a bus on this client: its writes that wait are told, its readers end."""
        if bus.number:
            self._release(bus)
            self._say(frames.Leave(bus.number))
        return self._end(bus, Closed(f"{bus.name or 'the bus'} was closed here.", reason="closed"))

    def _end(self, bus: Channel, error: EbusError) -> list[Event]:
        self._by_number.pop(bus.number, None)
        if self._by_uri.get(bus.uri) is bus:
            del self._by_uri[bus.uri]
        self._postponed.pop(bus, None)
        if bus in self._buses:
            self._buses.remove(bus)
        bus.number, bus.error = 0, error
        events: list[Event] = [WriteSettled(id_, 0, error) for id_ in bus.unacked]
        for id_ in bus.unacked:
            self._writes.pop(id_, None)
        bus.unacked.clear()
        bus.batch.clear()
        for req, (_, of, _) in list(self._questions.items()):
            if of is bus:
                del self._questions[req]
                events.append(RequestSettled(req, None, error))
        return [*events, BusClosed(bus, error)]

    # --- writing ----------------------------------------------------------------------------------------------------

    def publish(
        self,
        bus: Channel,
        value: bytes,
        now: float,
        *,
        key: str | None = None,
        deleted: bool = False,
        echo: bool = True,
        to: list[str] | None = None,
        expect: int | None = None,
    ) -> int:
        """Write a value; returns the id that its `WriteSettled` will carry.

        Raises:
            RateLimited: ``max_pending`` writes wait for an answer.
            Closed, or what else ended the bus.
        """
        if bus.error is not None:
            raise bus.error
        if len(self._writes) >= self.max_pending:
            raise RateLimited(
                f"{self.max_pending} writes wait for an answer. Await acks as you write.",
                limit="max_pending",
                retry_after=0.1,
            )
        id_ = next(self._ids)
        frame = frames.Publish(bus.number, id_, msgspec.Raw(value), key, deleted, echo, to, expect)
        bus.unacked[id_] = frame
        self._writes[id_] = bus
        if bus.number:
            if bus.flush_size == 1 and not bus.batch:
                self._out.append(frames.encode(frame))
            else:
                if not bus.batch:
                    bus.batch_since = now
                bus.batch.append(id_)
        return id_

    def flush(self, bus: Channel) -> None:
        """Send what waits for company."""
        self._release(bus)

    def _release(self, bus: Channel) -> None:
        while bus.batch:
            frame = bus.unacked.get(bus.batch.popleft())
            if frame is not None:
                self._say(frame)

    # --- reading ----------------------------------------------------------------------------------------------------

    def subscribe(self, bus: Channel) -> None:
        """Ask for live messages, now and after every reconnect."""
        if not bus.wants_messages:
            bus.wants_messages = True
            if bus.number:
                self._subscribe(bus)

    def _subscribe(self, bus: Channel) -> None:
        req = self._ask("subscribe", bus)
        self._say(frames.Subscribe(req, bus.number, *bus.resume_position()))

    def fetch(self, bus: Channel, after: int, until: int = 0) -> int:
        """Ask for history; the `RequestSettled` with this number carries a `frames.Page`."""
        if bus.error is not None:
            raise bus.error
        question = frames.Fetch(0, bus.number, after, until)
        question.req = req = self._ask("fetch", bus, question)
        if bus.number:
            self._say(question)
        return req

    def delete(self, bus: Channel) -> int:
        """Delete the bus for everyone; answered by `frames.Done`."""
        question = frames.Delete(0, bus.number)
        question.req = req = self._ask("delete", bus, question)
        if bus.number:
            self._say(question)
        return req

    def list_buses(self) -> int:
        """Ask which buses are within reach; answered by `frames.Listed`."""
        question = frames.List(0)
        question.req = req = self._ask("catalogue", None, question)
        if self._greeted:
            self._say(question)
        return req

    # --- presence and filters ---------------------------------------------------------------------------------------

    def set_presence(self, bus: Channel, state: bytes) -> None:
        """Say something of oneself, now and after every reconnect."""
        bus.state = msgspec.Raw(state)
        if bus.number:
            self._say(frames.SetPresence(bus.number, bus.state))

    def watch_presence(self, bus: Channel) -> None:
        """Be told who is there, now and after every reconnect."""
        if not bus.wants_presence:
            bus.wants_presence = True
            if bus.number:
                self._say(frames.SetPresence(bus.number, watch=True))

    def answer_filter(
        self, bus: Channel, ask: int, value: bytes, reject: str | None = None, *, failed: bool = False
    ) -> None:
        """Answer a `FilterRequested`; too late where its connection has ended."""
        question = bus.filter_requests.pop(ask, None)
        if question is not None and bus.number:
            self._say(frames.FilterAnswer(bus.number, question, msgspec.Raw(value), reject, failed))

    # --- what the broker says ---------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """A WebSocket message from the broker, at ``now`` (seconds, of any clock that only goes forward).

        Raises:
            ProtocolError: The broker speaks something else.
        """
        events: list[Event] = []
        for frame in frames.from_broker(data):
            if isinstance(frame, frames.Delivery):
                bus = self._by_number.get(frame.bus)
                if bus is not None and bus.delivered(frame):
                    _arrived(bus, events)
            else:
                self._frame(frame, events, now)
        return events

    def _frame(self, frame: frames.BrokerFrame, events: list[Event], now: float) -> None:
        match frame:
            case frames.Ok():
                for n in range(frame.count):
                    bus = self._writes.pop(frame.id + n, None)
                    if bus is not None:
                        bus.unacked.pop(frame.id + n, None)
                        events.append(WriteSettled(frame.id + n, frame.offset + n))
            case frames.Error():
                self._error(frame, events, now)
            case frames.Welcome():
                self.you, self.limits, self.live = frame.you, frame.limits, True
                events.append(Welcomed(frame.you))
            case frames.Opened():
                self._opened(frame, events)
            case frames.Subscribed():
                bus = self._by_number.get(frame.bus)
                # One that answers nothing (0) begins a snapshot, for a reader that was too far behind for anything else.
                if bus is not None and (not frame.req or self._questions.pop(frame.req, None) is not None):
                    bus.subscribed(frame)
                    _arrived(bus, events)
            case frames.Advance():
                bus = self._by_number.get(frame.bus)
                if bus is not None and bus.advanced(frame.offset):
                    _arrived(bus, events)
            case frames.Lag():
                bus = self._by_number.get(frame.bus)
                if bus is not None:
                    bus.missed(frame.resume_after, frame.skipped)
                    _arrived(bus, events)
            case frames.Page() | frames.Done() | frames.Listed():
                if self._questions.pop(frame.req, None) is not None:
                    events.append(RequestSettled(frame.req, frame))
            case frames.Presence():
                bus = self._by_number.get(frame.bus)
                if bus is not None:
                    bus.presence_received(frame)
                    events.append(PresenceChanged(bus))
            case frames.FilterAsk():
                bus = self._by_number.get(frame.bus)
                if bus is not None:
                    ask = next(self._asks)
                    bus.filter_requests[ask] = frame.ask
                    events.append(FilterRequested(bus, ask, frame.value, frame.sender))
            case frames.Gone():
                bus = self._by_number.get(frame.bus)
                if bus is not None:
                    events += self._end(bus, Closed(f"{bus.name} is gone: {frame.reason}.", reason=frame.reason))
            case frames.Bye():
                error = frames.Error(frame.code, frame.text).exception()
                events.append(ConnectionEnded(error, frame.reconnect))
            case _:
                pass

    def _opened(self, frame: frames.Opened, events: list[Event]) -> None:
        kind, bus, _ = self._questions.pop(frame.req, ("", None, None))
        if bus is None or bus.error is not None:
            return
        if kind == "join":
            events.append(RequestSettled(frame.req, frame))
            return
        bus.opened(frame)
        self._by_number[bus.number] = self._by_uri[bus.uri] = bus
        if bus.wants_messages:
            self._subscribe(bus)
        if bus.wants_presence:
            self._say(frames.SetPresence(bus.number, watch=True))
        if bus.state is not None:
            self._say(frames.SetPresence(bus.number, bus.state))
        bus.batch.clear()
        for publish in bus.unacked.values():
            publish.bus = bus.number
            self._say(publish)
        for _, of, question in self._questions.values():
            if of is bus and isinstance(question, frames.Fetch | frames.Delete):
                question.bus = bus.number
                self._say(question)
        events.append(BusOpened(bus))

    def _error(self, frame: frames.Error, events: list[Event], now: float) -> None:
        error = frame.exception()
        if frame.id:
            bus = self._writes.pop(frame.id, None)
            if bus is not None:
                bus.unacked.pop(frame.id, None)
                events.append(WriteSettled(frame.id, 0, error))
            return
        kind, bus, _ = self._questions.pop(frame.req, ("", None, None))
        if bus is not None and kind == "open" and bus.epoch and error.temporary:
            self._postponed[bus] = now + REOPEN_SECONDS
        elif bus is not None and kind == "open":
            events += self._end(bus, error)
        elif bus is not None and kind == "subscribe":
            bus.unreadable = error
            _arrived(bus, events)
        elif kind:
            events.append(RequestSettled(frame.req, None, error))


def _arrived(bus: Channel, events: list[Event]) -> None:
    arrived = MessagesArrived(bus)
    if not events or events[-1] != arrived:
        events.append(arrived)
