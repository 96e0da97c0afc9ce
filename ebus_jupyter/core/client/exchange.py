"""What a session does with the broker's frames, and how a bus opens, is left and ends; see `session`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import Closed, EbusError, RateLimited, TooLarge

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
    PresenceRefused,
    RequestSettled,
    Welcomed,
    WriteSettled,
)
from .outbox import Outbox
from .pending import Kind, PendingRequests, PendingWrites, Request, RequestFrame

FRAME_BYTES = 64
"""More than a write and its batch have besides the value, where it has no key and no recipients."""

RETRY_SECONDS = 60.0
"""The longest pause in writing that a broker can impose by one refusal."""

REOPEN_SECONDS = 1.0
"""The pause before a bus that was open, and can't be opened again just now, is tried again."""


class Exchange:
    """The part of a `Session` that answers the broker: requests out, and frames in.

    Args:
        max_pending: The most writes without an answer.

    Attributes:
        you: This participant, as the broker stamps it on messages; None before the first welcome.
        limits: The broker's bounds, from its last welcome.
        live: True once the broker has welcomed this client on the present connection.
    """

    def __init__(self, max_pending: int) -> None:
        self.you: Participant | None = None
        self.limits: dict[str, int] = {}
        self.live = False
        self._channels = Directory()
        self._reopen_at: dict[Channel, float] = {}
        self._writes = PendingWrites(max_pending)
        self._requests = PendingRequests()
        self._filter_ids: Iterator[int] = count(1)
        self._outbox = Outbox()
        self._plain_bytes = 1 << 62  # a write of no more bytes, without options, is not too large

    # --- requests ---------------------------------------------------------------------------------------------------

    def _open(self, channel: Channel) -> None:
        frame = frames.Open(0, channel.scope, channel.name, channel.given, channel.owner, channel.cap, channel.create)
        self._request("open", frame, channel, send=True)

    def _request(self, kind: Kind, frame: RequestFrame, channel: Channel | None, *, send: bool) -> int:
        """Register a request, and send it now or (``send`` False) once its connection or bus is open. Returns its number."""
        req = self._requests.add(kind, frame, channel)
        try:
            frames.encode(
                frame
            )  # what can't be encoded must not stay: it would end each connection that it is sent over
        except BaseException:
            self._requests.pop(req)
            raise
        if send:
            self._outbox.send(frame)
        return req

    def _subscribe(self, channel: Channel) -> None:
        self._request("subscribe", channel.subscription(), channel, send=True)

    # --- the end of a bus -------------------------------------------------------------------------------------------

    def _leave_idle(self) -> list[Event]:
        """Leave the buses whose writes have their answers.

        An open under way may be for one of them, under the same number: so they stay until it is answered.
        """
        events: list[Event] = []
        if self._channels.leaving and not self._requests.opening:
            for channel in [*self._channels.leaving]:
                if not channel.unacked and not self._requests.has_any(channel):
                    if self._channels.by_number.get(channel.number) is channel:
                        self._outbox.send(frames.Leave(channel.number))
                    assert channel.error is not None
                    events += self._end(channel, channel.error)
        return events

    def _end(self, channel: Channel, error: EbusError) -> list[Event]:
        """The bus is closed for this client, and everything that waits for it is settled."""
        self._channels.discard(channel)
        self._reopen_at.pop(channel, None)
        channel.number, channel.error = 0, channel.error or error
        channel.batch.clear()
        events: list[Event] = [WriteSettled(id_, 0, error) for id_ in self._writes.pop_channel(channel)]
        events += [RequestSettled(req, None, error) for req in self._requests.pop_channel(channel)]
        return [*events, BusClosed(channel, channel.error)]

    # --- the broker's frames ----------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float, events: list[Event] | None = None) -> list[Event]:
        """Take in a WebSocket message from the broker, at ``now`` (seconds, of any clock that only goes forward).

        Args:
            data: The message.
            now: The time.
            events: Is added to. Where a frame is wrong, the frames before it have had their effect, and their events are here:
                perform them all the same.

        Returns:
            The events.

        Raises:
            ProtocolError: The broker speaks something else.
        """
        events = [] if events is None else events
        for frame in frames.from_broker(data):
            if isinstance(frame, frames.Delivery):
                channel = self._channels.by_number.get(frame.bus)
                if channel is not None and channel.delivered(frame):
                    _arrived(channel, events)
            else:
                self._receive(frame, events, now)
        if self._channels.leaving:
            events += self._leave_idle()
        return events

    def _receive(self, frame: frames.BrokerFrame, events: list[Event], now: float) -> None:
        match frame:
            case frames.Ok():
                shift = frame.offset - frame.id
                events += [WriteSettled(id_, id_ + shift) for id_ in self._writes.pop(frame.id, frame.count)]
            case frames.Error():
                self._failed(frame, events, now)
            case frames.Welcome():
                first = self.you is None
                limits = {name: most for name, most in frame.limits.items() if most > 0}  # no bound is that low
                self._plain_bytes = min(
                    limits.get("value_bytes", 1 << 62), limits.get("batch_bytes", 1 << 62) - FRAME_BYTES
                )
                rate = limits.get("publish_rate", 0)
                self._outbox.pace.begin(rate, limits.get("publish_burst", rate), now)
                self.you, self.limits, self.live = frame.you, limits, True
                events.append(Welcomed(frame.you))
                for channel, write in [*self._writes]:
                    error = too_large(self.limits, channel, write, may_be_accepted=not first)
                    if error is not None:
                        events += [WriteSettled(id_, 0, error) for id_ in self._writes.pop(write.id)]
            case frames.Opened():
                self._opened(frame, events)
            case frames.Page() | frames.Done() | frames.Listed():
                if self._requests.pop(frame.req) is not None:
                    events.append(RequestSettled(frame.req, frame))
            case frames.Bye():
                events.append(ConnectionEnded(frames.Error(frame.code, frame.text).exception(), frame.reconnect))
            case frames.Pong():
                self._outbox.ponged(frame.n)
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
                events += self._end(channel, _gone(channel, frame.reason))

    def _opened(self, frame: frames.Opened, events: list[Event]) -> None:
        if not frame.req:  # the bus was altered
            altered = self._channels.by_number.get(frame.bus)
            if altered is not None:
                altered.altered(frame)
            return
        request = self._requests.pop(frame.req)
        if request is None or request.channel is None:
            return
        channel = request.channel
        if request.kind == "reopen":
            assert isinstance(request.frame, frames.Open)
            channel.granted(request.frame.spec)
            events.append(RequestSettled(frame.req, frame))
            return
        channel.opened(frame)
        self._channels.opened(channel)
        if channel.wants_messages:
            self._subscribe(channel)
        for repeated in (*channel.to_repeat(), *self._requests.to_repeat_for(channel)):
            match repeated:
                case frames.Publish():
                    self._outbox.write(repeated, channel)
                case frames.Delete():
                    self._outbox.send_behind(repeated, channel)
                case _:
                    self._outbox.send(repeated)
        events.append(BusOpened(channel))

    def _failed(self, frame: frames.Error, events: list[Event], now: float) -> None:
        error = frame.exception()
        if frame.id:
            if error.code == RateLimited.code and "retry_after" in error.details and self._outbox.pace.rate:
                again = self._writes.to_send_again(frame.id)
                delay = error.details.get("retry_after", 0.0)
                if not (isinstance(delay, int | float) and 0 <= delay <= RETRY_SECONDS):
                    delay = RETRY_SECONDS
                self._outbox.refused(again, delay, now)
                if again is not None:
                    return
            events += [WriteSettled(id_, 0, error) for id_ in self._writes.pop(frame.id)]
            return
        if not frame.req:  # presence is the only thing that has neither
            channel = self._channels.by_number.get(frame.bus)
            if channel is not None:
                channel.state = None
                events.append(PresenceRefused(channel, error))
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


def too_large(
    limits: Mapping[str, int], channel: Channel, frame: frames.Publish, *, may_be_accepted: bool = False
) -> TooLarge | None:
    """The error if the broker takes no such write; None before its first welcome, and where it takes it.

    Args:
        limits: The broker's bounds, as far as they are known.
        channel: The bus.
        frame: The write.
        may_be_accepted: It was sent already, perhaps to a broker with other limits: only what can't be sent is an error.
    """
    name, error = channel.name or "the bus", None
    size = len(frame.value)
    if not may_be_accepted:
        error = over_bound(limits, "value_bytes", size, f"{name}: the value")
    if frame.key is not None or frame.to is not None or frame.expect is not None:
        size = len(frames.encode(frame))  # raises here, not later on the connection, where one can't be encoded
    return error or over_bound(limits, "batch_bytes", size + FRAME_BYTES, f"{name}: the write")


def over_bound(limits: Mapping[str, float], limit: str, size: int, what: str) -> TooLarge | None:
    """The error if ``what`` has more bytes than the server's ``limit``; None where it has not, or the limit is not known."""
    most = limits.get(limit)
    if most is None or size <= most:
        return None
    return TooLarge(
        f"{what} has {size} bytes, and the server's limit `{limit}` is {most:.0f}. Make it smaller, or write it in pieces, or "
        f"have the limit raised (c.EBus.{limit}).",
        limit=limit,
    )


def _gone(channel: Channel, reason: str) -> Closed:
    return Closed(
        f"{channel.name} is gone: {reason}. A bus that is opened under its name from now on is a new one.",
        reason=reason,
    )


def _arrived(channel: Channel, events: list[Event]) -> None:
    arrived = MessagesArrived(channel)
    if not events or events[-1] != arrived:
        events.append(arrived)
