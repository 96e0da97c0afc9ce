"""The client's state machine: it keeps a participant's buses, subscriptions and writes through every reconnect.

`Session` turns the program's calls (open, publish, subscribe) into frames, and the broker's frames into events. It holds
no socket and no clock; its shell (`ebus_jupyter.client`) carries the bytes:

    session.connection_made()
    session.tick(now), then send session.data_to_send() until that is None
    perform each event of session.receive_data(data, now)
    session.connection_lost()

Reconnecting
    The instance id stays the same. Every bus is opened again, every subscription resumes after the last message seen,
    and every write without an answer is sent again, in order, with its first id: a broker that had accepted it answers
    with its first offset. So an unknown outcome always becomes a known one.

Every decision is in this module. It keeps its records in `channel` (one bus), `directory` (all of them), `pending` (writes
and requests without an answer) and `outbox` (frames to send), and reports `events`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import Closed, ConnectionLost, EbusError

from .channel import Channel
from .directory import Directory
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
from .outbox import Outbox
from .pending import Kind, PendingRequests, PendingWrites, Request, RequestFrame

REOPEN_SECONDS = 1.0
"""The pause before a bus that was open, and can't be opened again just now, is tried again."""


class Session:
    """A client of one broker.

    Args:
        instance: 32 hexadecimal digits that nobody can guess; kept for the client's life.
        client: The kind of client, for the broker's log.
        max_pending: The most writes without an answer. A bus must remember as many (`Limits.dedupe`). Default: 10,000.

    Attributes:
        you: This participant, as the broker stamps it on messages; None before the first welcome.
        limits: The broker's bounds, from its last welcome.
        live: True once the broker has welcomed this client on the present connection.
        closed: The error that ended this client, once it has ended.
    """

    def __init__(self, instance: str, *, client: str = "", max_pending: int = 10_000) -> None:
        self.instance = instance
        self.client = client
        self.max_pending = max_pending
        self.you: Participant | None = None
        self.limits: dict[str, int] = {}
        self.live = False
        self.closed: EbusError | None = None
        self._greeted = False  # hello was sent: the broker reads what follows, welcomed or not yet
        self._channels = Directory()
        self._reopen_at: dict[Channel, float] = {}
        self._writes = PendingWrites(max_pending)
        self._requests = PendingRequests()
        self._filter_ids: Iterator[int] = count(1)
        self._outbox = Outbox()

    # --- the connection ---------------------------------------------------------------------------------------------

    def connection_made(self) -> None:
        """There is a new connection: greet the broker, and ask for everything again."""
        self._outbox.clear()
        self._outbox.send(frames.Hello(frames.VERSION, self.instance, self.client))
        self._greeted = True
        for channel in self._channels:
            self._open(channel)
        for frame in self._requests.to_repeat():
            self._outbox.send(frame)

    def connection_lost(self) -> list[Event]:
        """The connection has ended. The next one repeats what has no answer, except deletions: they fail here."""
        self.live = self._greeted = False
        self._channels.by_number.clear()
        self._outbox.clear()
        self._reopen_at.clear()
        for channel in self._channels:
            channel.connection_lost()
        unknown = ConnectionLost(
            "the connection was lost before the answer: the bus may be deleted or not. List the buses."
        )
        return [RequestSettled(req, None, unknown) for req in self._requests.connection_lost()]

    def close(self, error: EbusError) -> list[Event]:
        """End this client: every write, request and bus is settled with ``error``."""
        self.closed = error
        events = self.connection_lost()
        events += [WriteSettled(id_, 0, error) for id_ in self._writes.pop_all()]
        events += [RequestSettled(req, None, error) for req in self._requests.pop_all()]
        for channel in self._channels:
            channel.error = channel.error or error
            events.append(BusClosed(channel, channel.error))
        self._channels.clear()
        return events

    def tick(self, now: float) -> None:
        """Time has passed: batches that are full or due are to be sent, and buses that could not be opened asked for again.

        Args:
            now: Seconds, of the clock that `publish` and `receive_data` are given.
        """
        self._outbox.flush_due(self._channels, now)
        for channel in [channel for channel, at in self._reopen_at.items() if now >= at]:
            del self._reopen_at[channel]
            self._open(channel)

    def next_deadline(self) -> float | None:
        """The time of the next `tick` that is needed if nothing else happens; None where nothing is waiting."""
        times = [channel.batch_deadline for channel in self._channels if channel.batch]
        times += self._reopen_at.values()
        return min(times, default=None)

    @property
    def needs_sender(self) -> bool:
        """True if there may be data to send, or a new deadline."""
        return bool(self._outbox or self._reopen_at)

    def data_to_send(self, max_bytes: int = 1 << 20) -> bytes | None:
        """Take the next WebSocket message to send; None where there is nothing to send.

        Args:
            max_bytes: The size above which no further frame is added. One frame may be larger.
        """
        return self._outbox.take(max_bytes)

    # --- opening and leaving ----------------------------------------------------------------------------------------

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
        """Open a bus, now and after every reconnect; settled by `BusOpened` or `BusClosed`.

        The arguments are the fields of `frames.Open`, where ``given`` is ``spec``.

        Raises:
            EbusError: The error that this client was closed with.
        """
        if self.closed is not None:
            raise self.closed.anew()
        channel = Channel(scope, name, given, owner, cap, create)
        self._channels.add(channel, self.you)
        if self._greeted:
            self._open(channel)
        return channel

    def _open(self, channel: Channel) -> None:
        frame = frames.Open(0, channel.scope, channel.name, channel.given, channel.owner, channel.cap, channel.create)
        self._request("open", frame, channel, send=True)

    def find(self, scope: str, name: str, owner: str = "", cap: str = "") -> Channel | None:
        """The bus that is open here already, or being opened, whichever arguments it was opened with.

        None, too, where entering takes a capability and ``cap`` is not the right one: then the broker is to refuse it.
        """
        return None if self.you is None else self._channels.find(scope, name, owner, cap, self.you)

    def reopen(self, channel: Channel, given: dict[str, Any]) -> int:
        """Open a bus that is open here once more, with spec fields of its own; answered by `frames.Opened`."""
        channel.given = {**channel.given, **given}
        frame = frames.Open(0, channel.scope, channel.name, given, channel.owner, channel.cap)
        return self._request("reopen", frame, channel, send=self._greeted)

    def _request(self, kind: Kind, frame: RequestFrame, channel: Channel | None, *, send: bool) -> int:
        """Register a request, and send it now or (``send`` False) once its connection or bus is open. Returns its number."""
        req = self._requests.add(kind, frame, channel)
        if send:
            self._outbox.send(frame)
        return req

    def leave(self, channel: Channel) -> list[Event]:
        """Close a bus on this client. Its batch is still sent; its writes and requests are settled with `Closed`."""
        if channel.number:
            self.flush(channel)
            self._outbox.send(frames.Leave(channel.number))
        return self._end(channel, Closed(f"{channel.name or 'the bus'} was closed here.", reason="closed"))

    def _end(self, channel: Channel, error: EbusError) -> list[Event]:
        """The bus is closed for this client, and everything that waits for it is settled."""
        self._channels.discard(channel)
        self._reopen_at.pop(channel, None)
        channel.number, channel.error = 0, error
        channel.batch.clear()
        events: list[Event] = [WriteSettled(id_, 0, error) for id_ in self._writes.pop_channel(channel)]
        events += [RequestSettled(req, None, error) for req in self._requests.pop_channel(channel)]
        return [*events, BusClosed(channel, error)]

    # --- writing ----------------------------------------------------------------------------------------------------

    def publish(
        self,
        channel: Channel,
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

        Args:
            channel: The bus.
            value: The value, encoded.
            now: Seconds, of any clock that only goes forward.
            key, deleted, echo, to, expect: The fields of `frames.Publish`.

        Raises:
            RateLimited: ``max_pending`` writes have no answer yet.
            EbusError: The error that the bus was closed with.
        """
        if channel.error is not None:
            raise channel.error.anew()
        id_ = self._writes.new_id(channel)
        channel.unacked[id_] = frame = frames.Publish(
            channel.number, id_, msgspec.Raw(value), key, deleted, echo, to, expect
        )
        if channel.number:
            self._outbox.publish(frame, channel, now)
        return id_

    def flush(self, channel: Channel) -> None:
        """Send the writes that wait in the bus's batch."""
        self._outbox.flush(channel)

    # --- reading ----------------------------------------------------------------------------------------------------

    def subscribe(self, channel: Channel) -> None:
        """Ask for live messages, now and after every reconnect."""
        if not channel.wants_messages:
            channel.wants_messages = True
            if channel.number:
                self._subscribe(channel)

    def _subscribe(self, channel: Channel) -> None:
        frame = frames.Subscribe(0, channel.number, *channel.resume_position())
        self._request("subscribe", frame, channel, send=True)

    def fetch(self, channel: Channel, after: int, until: int = 0) -> int:
        """Ask for history, as `frames.Fetch` does; answered by `frames.Page`.

        Raises:
            EbusError: The error that the bus was closed with.
        """
        if channel.error is not None:
            raise channel.error.anew()
        return self._request("fetch", frames.Fetch(0, channel.number, after, until), channel, send=channel.is_open)

    def delete(self, channel: Channel) -> int:
        """Delete the bus for everyone; answered by `frames.Done`."""
        return self._request("delete", frames.Delete(0, channel.number), channel, send=channel.is_open)

    def list_buses(self) -> int:
        """Ask which buses are within reach; answered by `frames.Listed`."""
        return self._request("list", frames.List(0), None, send=self._greeted)

    # --- presence and filters ---------------------------------------------------------------------------------------

    def set_presence(self, channel: Channel, state: bytes) -> None:
        """Set this participant's own state (an encoded value), now and after every reconnect."""
        channel.state = msgspec.Raw(state)
        if channel.number:
            self._outbox.send(frames.SetPresence(channel.number, channel.state))

    def watch_presence(self, channel: Channel) -> None:
        """Ask for the participants of the bus and every change of them, now and after every reconnect."""
        if not channel.wants_presence:
            channel.wants_presence = True
            if channel.number:
                self._outbox.send(frames.SetPresence(channel.number, watch=True))

    def answer_filter(
        self, channel: Channel, id_: int, value: bytes, reject: str | None = None, *, failed: bool = False
    ) -> None:
        """Answer a `FilterRequested`. Ignored once its connection has ended.

        Args:
            channel, id_: Those of the event.
            value, reject, failed: The fields of `frames.FilterAnswer`.
        """
        ask = channel.filter_requests.pop(id_, None)
        if ask is not None and channel.number:
            self._outbox.send(frames.FilterAnswer(channel.number, ask, msgspec.Raw(value), reject, failed))

    # --- the broker's frames ----------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Take in a WebSocket message from the broker, at ``now`` (seconds, of any clock that only goes forward).

        Raises:
            ProtocolError: The broker speaks something else.
        """
        events: list[Event] = []
        for frame in frames.from_broker(data):
            if isinstance(frame, frames.Delivery):
                channel = self._channels.by_number.get(frame.bus)
                if channel is not None and channel.delivered(frame):
                    _arrived(channel, events)
            else:
                self._receive(frame, events, now)
        return events

    def _receive(self, frame: frames.BrokerFrame, events: list[Event], now: float) -> None:
        match frame:
            case frames.Ok():
                shift = frame.offset - frame.id
                events += [WriteSettled(id_, id_ + shift) for id_ in self._writes.pop(frame.id, frame.count)]
            case frames.Error():
                self._failed(frame, events, now)
            case frames.Welcome():
                self.you, self.limits, self.live = frame.you, frame.limits, True
                events.append(Welcomed(frame.you))
            case frames.Opened():
                self._opened(frame, events)
            case frames.Page() | frames.Done() | frames.Listed():
                if self._requests.pop(frame.req) is not None:
                    events.append(RequestSettled(frame.req, frame))
            case frames.Bye():
                events.append(ConnectionEnded(frames.Error(frame.code, frame.text).exception(), frame.reconnect))
            case frames.Pong():
                pass
            case _:  # all others are about one bus
                channel = self._channels.by_number.get(frame.bus)
                if channel is not None:
                    self._receive_on(channel, frame, events)

    def _receive_on(self, channel: Channel, frame: frames.BrokerFrame, events: list[Event]) -> None:
        """Take in a frame about one bus."""
        match frame:
            case frames.Subscribed():
                # One that answers no request (0) begins a snapshot: the reader was too far behind for anything else.
                if not frame.req or self._requests.pop(frame.req) is not None:
                    channel.subscribed(frame)
                    _arrived(channel, events)
            case frames.Advance():
                if channel.advanced(frame.offset):
                    _arrived(channel, events)
            case frames.Lag():
                channel.missed(frame.resume_after, frame.skipped)
                _arrived(channel, events)
            case frames.Presence():
                channel.presence_received(frame)
                events.append(PresenceChanged(channel))
            case frames.FilterAsk():
                id_ = next(self._filter_ids)
                channel.filter_requests[id_] = frame.ask
                events.append(FilterRequested(channel, id_, frame.value, frame.sender))
            case frames.Gone():
                events += self._end(channel, Closed(f"{channel.name} is gone: {frame.reason}.", reason=frame.reason))

    def _opened(self, frame: frames.Opened, events: list[Event]) -> None:
        request = self._requests.pop(frame.req)
        if request is None or request.channel is None or request.channel.error is not None:
            return
        channel = request.channel
        if request.kind == "reopen":
            events.append(RequestSettled(frame.req, frame))
            return
        channel.opened(frame)
        self._channels.opened(channel)
        if channel.wants_messages:
            self._subscribe(channel)
        for repeated in (*channel.to_repeat(), *self._requests.to_repeat_for(channel)):
            self._outbox.send(repeated)
        events.append(BusOpened(channel))

    def _failed(self, frame: frames.Error, events: list[Event], now: float) -> None:
        error = frame.exception()
        if frame.id:
            events += [WriteSettled(id_, 0, error) for id_ in self._writes.pop(frame.id)]
            return
        request = self._requests.pop(frame.req)
        if request is None:
            return
        match request:
            case Request("open", _, Channel() as channel):
                if channel.epoch and error.temporary:
                    self._reopen_at[channel] = now + REOPEN_SECONDS
                else:
                    events += self._end(channel, error)
            case Request("subscribe", _, Channel() as channel):
                channel.unreadable = error
                _arrived(channel, events)
            case _:
                events.append(RequestSettled(frame.req, None, error))


def _arrived(channel: Channel, events: list[Event]) -> None:
    arrived = MessagesArrived(channel)
    if not events or events[-1] != arrived:
        events.append(arrived)
