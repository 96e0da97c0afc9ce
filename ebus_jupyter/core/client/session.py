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

What the broker's frames cause is in `exchange`. The session keeps its records in `channel` (one bus), `directory` (all of
them), `pending` (writes and requests without an answer) and `outbox` (frames to send), and reports `events`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.errors import Closed, ConnectionLost, EbusError, RateLimited, shorten

from .channel import Channel
from .events import BusClosed, Event, RequestSettled, WriteSettled
from .exchange import FRAME_BYTES, Exchange, over_bound, too_large

EARLY_BYTES = 64 << 10
"""The size of a message before the server's limits are known, as for ``max_bytes`` of `Session.data_to_send`."""

REASON_CHARS = 2000
"""The most characters of a filter's reason that the writer is told."""

_DEFAULTS = msgspec.structs.asdict(Limits())
_NIL = b"\xc0"


class Session(Exchange):
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
        super().__init__(max_pending)
        self.instance = instance
        self.client = client
        self.max_pending = max_pending
        self.closed: EbusError | None = None
        self._greeted = False  # hello was sent: the broker reads what follows, welcomed or not yet

    # --- the connection ---------------------------------------------------------------------------------------------

    def connection_made(self) -> None:
        """There is a new connection: greet the broker, and ask for everything again."""
        self._outbox.clear()
        self._outbox.send(frames.Hello(frames.VERSION, self.instance, self.client, resends=True))
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
            "the connection was lost before the answer: the bus may be deleted or not. List the buses (client.buses()) to see."
        )
        return [RequestSettled(req, None, unknown) for req in self._requests.connection_lost()]

    def close(self, error: EbusError) -> list[Event]:
        """End this client: every write, request and bus is settled with ``error``."""
        self.closed = error
        for channel in self._channels:  # first: whatever fails here, nobody waits for a bus of a client that has ended
            channel.error = channel.error or error
        events = self.connection_lost()
        events += [WriteSettled(id_, 0, error) for id_ in self._writes.pop_all()]
        events += [RequestSettled(req, None, error) for req in self._requests.pop_all()]
        events += [BusClosed(channel, channel.error or error) for channel in self._channels]
        self._channels.clear()
        return events

    def tick(self, now: float) -> None:
        """Time has passed: batches that are full or due are to be sent, and buses that could not be opened asked for again.

        Args:
            now: Seconds, of the clock that `publish` and `receive_data` are given.
        """
        self._outbox.tick(now)
        if self._reopen_at:
            for channel in [channel for channel, at in self._reopen_at.items() if now >= at]:
                del self._reopen_at[channel]
                self._open(channel)

    def next_deadline(self) -> float | None:
        """The time of the next `tick` that is needed if nothing else happens; None where nothing is waiting."""
        if not self._reopen_at and not self._outbox.waits:
            return None
        return min([*self._outbox.deadlines(), *self._reopen_at.values()], default=None)

    @property
    def needs_sender(self) -> bool:
        """True if there may be data to send, or a new deadline."""
        return bool(self._outbox or self._reopen_at)

    def data_to_send(self, max_bytes: int = 1 << 20) -> bytes | None:
        """Take the next WebSocket message to send; None where there is nothing to send.

        Args:
            max_bytes: The size above which no further frame is added. One frame may be larger. The server's limit
                ``batch_bytes`` counts, too; before it is known, `EARLY_BYTES`.
        """
        known = self.limits.get("batch_bytes", max_bytes) if self.limits else EARLY_BYTES
        return self._outbox.take(min(max_bytes, known))

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
            TooLarge: The server takes no such frame.
            TypeError, ValueError: An argument can't be encoded. Nothing is opened.
        """
        if self.closed is not None:
            raise self.closed.anew()
        # Encoded before it is kept: what can't be sent would end this connection and each one after it.
        given = self._checked(frames.Open(0, scope, name, given, owner, cap, create)).spec
        channel = Channel(scope, name, given, owner, cap, create)
        self._channels.add(channel, self.you)
        if self._greeted:
            self._open(channel)
        return channel

    def find(self, scope: str, name: str, owner: str = "", cap: str = "") -> Channel | None:
        """The bus that is open here already, or being opened, whichever arguments it was opened with.

        None, too, where entering takes a capability and ``cap`` is not the right one: then the broker is to refuse it.
        """
        return None if self.you is None else self._channels.find(scope, name, owner, cap, self.you)

    def reopen(self, channel: Channel, given: dict[str, Any]) -> int:
        """Open a bus that is open here once more, with spec fields of its own; answered by `frames.Opened`.

        The bus is as it was until the broker has granted them, and where it refuses them.

        Raises:
            TooLarge: The server takes no such frame.
            TypeError, ValueError: A field can't be encoded.
        """
        frame = self._checked(frames.Open(0, channel.scope, channel.name, given, channel.owner, channel.cap))
        return self._request("reopen", frame, channel, send=self._greeted)

    def cancel(self, req: int) -> None:
        """Forget a request that nobody waits for any more: it is not sent again, and its reply changes nothing."""
        self._requests.pop(req)

    def leave(self, channel: Channel) -> list[Event]:
        """Close a bus on this client. Nothing more is read or written, and requests are settled with `Closed`.

        Its writes and deletions are still sent, and settled by the broker's answers. Then the bus is left (`BusClosed`).
        """
        if channel.error is not None:
            return []
        error = channel.error = Closed(
            f"{channel.name or 'the bus'} was closed here; open it again with ebus.bus().", reason="closed"
        )
        self.flush(channel)
        if channel.wants_messages and channel.number:
            self._outbox.send(frames.Unsubscribe(channel.number))
        channel.wants_messages = channel.wants_presence = False
        self._channels.leave(channel)
        events: list[Event] = [RequestSettled(req, None, error) for req in self._requests.leave(channel)]
        return [*events, *self._leave_idle()]

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
        wait: bool = True,
    ) -> int:
        """Write a value; returns the id that its `WriteSettled` will carry.

        Args:
            channel: The bus.
            value: The value, encoded.
            now: Seconds, of any clock that only goes forward.
            key, deleted, echo, to, expect: The fields of `frames.Publish`.
            wait: False: the write is refused, rather than held back or sent again, where the broker's rate is reached.

        Raises:
            RateLimited: ``max_pending`` writes, or `MAX_PENDING_BYTES` bytes of them, have no answer yet.
            TooLarge: The broker takes no such write.
            TypeError, ValueError: An argument can't be encoded.
            EbusError: The error that the bus was closed with.
        """
        if channel.error is not None:
            raise channel.error.anew()
        users = None if to is None else list(to)
        frame = frames.Publish(channel.number, 0, msgspec.Raw(value), key, deleted, echo, users, expect)
        if len(value) > self._plain_bytes or key is not None or to is not None or expect is not None:
            error = too_large(self.limits, channel, frame)
            if error is not None:
                raise error
        if not wait and (delay := self._outbox.delay(now)):
            raise RateLimited(
                f"{channel.name or 'the bus'}: the server takes {self._outbox.pace.rate:g} writes a second from this client "
                "(its limits `publish_rate`, `kernel_publish_rate`). Write less often, or leave out wait=False.",
                retry_after=delay,
                limit="publish_rate",
            )
        try:
            id_ = self._writes.add(channel, frame)
            if not wait:
                self._writes.impatient.add(id_)
            if channel.number:
                self._outbox.publish(frame, channel, now)
        except BaseException:  # a KeyboardInterrupt: a write that is pending and not queued would never get its answer
            self._writes.take_back(channel, frame)
            raise
        return id_

    def has_room(self, size: int = 0) -> bool:
        """Whether `publish` takes one more write, of a value with ``size`` bytes."""
        return self._writes.has_room(size)

    def flush_all(self) -> None:
        """Send the writes that wait in the batches of all buses."""
        for channel in self._channels:
            self.flush(channel)

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
        frame = frames.Delete(0, channel.number)
        req = self._request("delete", frame, channel, send=False)
        if channel.is_open:
            self._outbox.send_behind(frame, channel)
        return req

    def list_buses(self, after: str = "", limit: int = 0, find: str = "") -> int:
        """Ask which buses are within reach, as `frames.List` does; answered by `frames.Listed`, one page."""
        return self._request("list", frames.List(0, after, limit, find), None, send=self._greeted)

    # --- presence and filters ---------------------------------------------------------------------------------------

    def set_presence(self, channel: Channel, state: bytes) -> None:
        """Set this participant's own state (an encoded value), now and after every reconnect.

        Raises:
            TooLarge: The server takes no such state.
        """
        limits = self.limits or _DEFAULTS  # a state that is set this early is to be no larger than any server takes
        error = over_bound(limits, "presence_bytes", len(state), f"{channel.name or 'the bus'}: the presence state")
        if error is not None:
            raise error
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
        """Answer a `FilterRequested`. Ignored once its connection has ended. A value that can't be sent is a failure.

        Args:
            channel, id_: Those of the event.
            value, reject, failed: The fields of `frames.FilterAnswer`.
        """
        ask = channel.filter_requests.pop(id_, None)
        if ask is not None and channel.number:
            reject = None if reject is None else shorten(reject, REASON_CHARS)
            error = over_bound(self.limits, "batch_bytes", len(value) + FRAME_BYTES, "the value")
            if error is not None:
                value, reject, failed = _NIL, error.text, True
            self._outbox.send(frames.FilterAnswer(channel.number, ask, msgspec.Raw(value), reject, failed))

    def _checked(self, frame: frames.Open) -> frames.Open:
        """``frame`` as it travels; raises where it can't be encoded or sent."""
        data = frames.encode(frame)
        limits = self.limits or _DEFAULTS
        what = f"{frame.name or 'the bus'}: the specification"
        error = over_bound(limits, "batch_bytes", len(data) + FRAME_BYTES, what)
        if error is not None:
            raise error
        return msgspec.msgpack.decode(data, type=frames.Open)
