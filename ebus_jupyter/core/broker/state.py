"""The broker's state machine: its connections, and the effects of each frame that they send.

`BrokerState` decides and never acts. Its host reports what happens (``connect``, ``receive``, ``take_slice``,
``disconnect``, ``pause_writing``, ``resume_writing``, ``commit``, ``tick``; on ``registry``: ``log_opened``, …) and performs
the effects that are returned, in order. There is no clock, no socket and no randomness here: ``now`` and ``mint`` are
arguments.

What a frame may do depends only on what its connection has authenticated as, never on what the frame says of its sender.
A malformed frame ends its connection and affects nothing else.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import GROUP, Participant, public
from ebus_jupyter.core.protocol.validation import Validator
from ebus_jupyter.errors import Closed, EbusError, FilterUnavailable, Forbidden, ProtocolError, RateLimited, TooLarge

from .clock import WallClock
from .conn import Conn
from .effects import Deliver, Effect, Hangup, ListBuses, Send
from .entry import Entry, Writer, by_bus, sender_id
from .registry import BusRegistry

FRAMES_PER_SLICE = 32
"""The number of frames that are handled at a time."""


class BrokerState:
    """All connections and buses of one broker.

    Args:
        broker: Identifies this run of the broker.
        secret: The key of capabilities; its holder can enter every bus.
        mint: Returns the given number of fresh, unguessable hexadecimal digits.
        limits: The bounds.
        shared: Whether all servers of a hub share the backend. Only then the scope "hub" exists.
        filters: The names of the filters that this server can run.

    Attributes:
        registry: The buses.
        clock: The time of day. Every ``now`` is of a clock that only goes forward.
    """

    def __init__(
        self,
        *,
        broker: str,
        secret: bytes,
        mint: Callable[[int], str],
        limits: Limits | None = None,
        shared: bool = False,
        filters: Iterable[str] = (),
    ) -> None:
        self.name = broker
        self.limits = limits or Limits()
        self._connections: dict[int, Conn] = {}
        self._by_participant: dict[str, int] = {}
        self.clock = WallClock()
        self._has_groups = False  # a participant with groups was here
        self.registry = BusRegistry(
            self._connections,
            self._by_participant,
            self.limits,
            secret=secret,
            mint=mint,
            clock=self.clock,
            shared=shared,
            filters=filters,
        )

    # --- connections ------------------------------------------------------------------------------------------------

    def connect(
        self, conn_id: int, who: Participant, now: float, *, may_write: bool = True, authorize: bool = False
    ) -> list[Effect]:
        """A client has connected.

        Args:
            conn_id: The connection's number, never used before.
            who: What it has authenticated as. Its ``id`` comes with the hello.
            now: The time, in seconds of a clock that only goes forward.
            may_write: False for a connection that may only read.
            authorize: Whether the authorizer is asked about each bus that it opens.
        """
        if len(self._connections) >= self.limits.connections:
            text = f"this server holds {self.limits.connections} connections already (its limit `connections`)."
            return [Send(conn_id, frames.encode(frames.Bye("too_large", text))), Hangup(conn_id)]
        self._has_groups = self._has_groups or bool(who.groups)
        tokens = self._rate(who) * self.limits.publish_burst
        self._connections[conn_id] = Conn(conn_id, who, authorize, may_write, tokens=tokens, refilled_at=now)
        return []

    def disconnect(self, conn_id: int, now: float) -> list[Effect]:
        """A connection has ended. The frames that arrived before its end are still handled."""
        conn = self._connections.get(conn_id)
        if conn is None:
            return []
        effects: list[Effect] = []
        while conn.unread:
            effects += self.take_slice(conn_id, now)
        if self._connections.pop(conn_id, None) is None:
            return effects  # one of those frames has ended it
        if self._by_participant.get(conn.who.id) in (None, conn_id):  # no newer connection has replaced it
            self._by_participant.pop(conn.who.id, None)
        return effects + self.registry.disconnected(conn, now)

    def receive(self, conn_id: int, data: bytes, now: float) -> list[Effect]:
        """A WebSocket message has arrived. Its first frames are handled; `take_slice` handles the others."""
        conn = self._connections.get(conn_id)
        if conn is None:
            return []
        try:
            conn.unread[:0] = reversed(frames.from_client(data))
        except ProtocolError as error:
            return self._expel(conn, error, now)
        return self.take_slice(conn_id, now)

    def kick(self, who: str, text: str, now: float) -> tuple[int, list[Effect]]:
        """End connections. Their clients are told why, and do not come back by themselves.

        Args:
            who: A user, all of whose connections are meant, or a participant's id.
            text: The reason.
            now: The time.

        Returns:
            How many were ended, and the effects.
        """
        meant = [conn for conn in self._connections.values() if who and who in (conn.who.user, conn.who.id)]
        effects: list[Effect] = []
        for conn in meant:
            effects += self._expel(conn, Closed(text, reason="kicked"), now)
        return len(meant), effects

    def has_more(self, conn_id: int) -> bool:
        """True if frames of this connection wait for `take_slice`."""
        conn = self._connections.get(conn_id)
        return conn is not None and bool(conn.unread)

    def take_slice(self, conn_id: int, now: float) -> list[Effect]:
        """Handle the next frames of a connection: as many as take a fraction of a millisecond."""
        conn = self._connections.get(conn_id)
        if conn is None:
            return []
        unread = conn.unread
        effects: list[Effect] = []
        try:
            for _ in range(min(FRAMES_PER_SLICE, len(unread))):
                frame = unread.pop()
                if conn.writer is None and not isinstance(frame, frames.Hello):
                    raise ProtocolError("say hello first: the first frame of a connection is [1, version, instance].")
                effects += self._handle(conn, frame, now)
        except ProtocolError as error:
            effects += self._expel(conn, error, now)
        return effects

    def _expel(self, conn: Conn, error: EbusError, now: float) -> list[Effect]:
        conn.unread.clear()
        bye = frames.Bye(error.code, error.text, reconnect=False)
        return [Send(conn.id, frames.encode(bye)), Hangup(conn.id), *self.disconnect(conn.id, now)]

    def _handle(self, conn: Conn, frame: frames.ClientFrame, now: float) -> list[Effect]:
        try:
            match frame:
                case frames.Publish():
                    return self._publish(conn, frame, now)
                case frames.Hello():
                    return self._hello(conn, frame, now)
                case frames.Open():
                    return self.registry.open(conn, frame, now)
                case frames.Subscribe():
                    return self._subscribe(conn, frame)
                case frames.Unsubscribe():
                    bus = conn.access(frame.bus)
                    bus.unsubscribe(conn.id)
                    conn.catching_up.discard(frame.bus)
                    return []
                case frames.Fetch():
                    bus = conn.access(frame.bus, read=True)
                    return [Send(conn.id, frames.encode(bus.page(conn.who, frame)))]
                case frames.SetPresence():
                    return self._set_presence(conn, frame)
                case frames.FilterAnswer():
                    return self._filter_answer(conn, frame)
                case frames.Delete():
                    return self.registry.delete(conn, frame)
                case frames.List():
                    return [ListBuses(conn.id, frame.req)]
                case frames.Ping():
                    if frame.n:
                        conn.refuses = False
                    return [Send(conn.id, frames.encode(frames.Pong(frame.n)))]
                case frames.Leave():
                    return self.registry.leave(conn, frame.bus, now)
        except ProtocolError:
            raise
        except EbusError as error:
            answer = frames.refusal(
                error, req=getattr(frame, "req", 0), id_=getattr(frame, "id", 0), bus=getattr(frame, "bus", 0)
            )
            return [Send(conn.id, frames.encode(answer))]

    def _hello(self, conn: Conn, frame: frames.Hello, now: float) -> list[Effect]:
        if frame.version != frames.VERSION:
            older, newer = ("client", "server") if frame.version < frames.VERSION else ("server", "client")
            raise ProtocolError(
                f"the {newer} speaks a newer protocol than the {older} (client {frame.version}, server {frames.VERSION}): "
                f"update ebus_jupyter on the {older}'s side"
                + (" and reload the page." if older == "client" else " and restart it.")
            )
        if (
            conn.writer is not None
            or len(frame.instance) != 32
            or not all(digit in "0123456789abcdef" for digit in frame.instance)
        ):
            raise ProtocolError("hello comes once, with an instance of 32 hexadecimal digits that nobody can guess.")
        # Others see only the hash: a client that knew the instance could take this one's place.
        id_ = hashlib.blake2b(frame.instance.encode(), digest_size=8).hexdigest()
        conn.who = msgspec.structs.replace(conn.who, id=id_)
        conn.resends = frame.resends
        conn.writer = Writer(conn.who, msgspec.msgpack.encode(public(conn.who)))
        effects: list[Effect] = []
        previous = self._by_participant.get(id_)
        self._by_participant[id_] = conn.id
        if previous is not None:
            bye = frames.Bye("closed", "this client has connected again.", reconnect=False)
            effects += [Send(previous, frames.encode(bye)), Hangup(previous), *self.disconnect(previous, now)]
        limits = {
            "value_bytes": self.limits.value_bytes,
            "batch_bytes": self.limits.batch_bytes,
            "presence_bytes": self.limits.presence_bytes,
            "pending": self.limits.pending,
            "publish_rate": max(1, int(self._rate(conn.who))),
            "publish_burst": max(1, int(self._rate(conn.who) * self.limits.publish_burst)),
        }
        welcome = frames.Welcome(frames.VERSION, public(conn.who), self.name, limits)
        return [*effects, Send(conn.id, frames.encode(welcome))]

    # --- writing ----------------------------------------------------------------------------------------------------

    def _rate(self, who: Participant) -> float:
        return self.limits.kernel_publish_rate if who.kind in ("kernel", "server") else self.limits.publish_rate

    def _publish(self, conn: Conn, frame: frames.Publish, now: float) -> list[Effect]:
        bus = conn.access(frame.bus, write=True)
        assert conn.writer is not None  # it has said hello
        if frame.to is not None and not self._has_groups and any(name.startswith(GROUP) for name in frame.to):
            raise Forbidden(
                f"{bus.info.name}: to= names a group, and this server's identity provider has put nobody in a group: the "
                "message would reach no one. Name users."
            )
        admission = bus.admission
        answer = admission.answer_retry(conn.who.id, frame)
        if answer is not None:  # before the rate is looked at: a retry is not refused for what came after it
            return answer
        if conn.refuses:
            raise RateLimited("an earlier write was refused for its rate.", retry_after=0.0, limit="publish_rate")
        rate = self._rate(conn.who)
        if now > conn.refilled_at:
            conn.tokens = min(rate * self.limits.publish_burst, conn.tokens + (now - conn.refilled_at) * rate)
            conn.refilled_at = now
        if conn.tokens < 1:
            conn.refuses = conn.resends
            raise RateLimited(
                f"{bus.info.name}: more than {rate:g} writes a second from one participant (the server's limits "
                "`publish_rate`, `kernel_publish_rate`). Write less often, or let a state conflate.",
                retry_after=(1 - conn.tokens) / rate,
                limit="publish_rate",
            )
        conn.tokens -= 1
        if admission.filter is not None:
            self.registry.needs_tick.add(bus)
        return admission.publish(conn.writer, frame, now)

    def commit(self, entries: Sequence[Entry]) -> list[Effect]:
        """The backend has committed these entries, in order. Nothing else delivers messages."""
        effects: list[Effect] = []
        for uri, of_bus in by_bus(entries).items():
            bus = self.registry.buses.get(uri)
            if bus is not None:
                effects += bus.commit(of_bus)
        return effects

    def appended(self, entries: Sequence[Entry]) -> list[Effect]:
        """The backend has accepted these entries and assigned their offsets: acknowledge them to their writers.

        A run of one writer's entries is acknowledged in one frame. A shared engine may report the entries to `commit` later
        than this, or earlier.
        """
        effects: list[Effect] = []
        run: frames.Ok | None = None
        writer = None
        for entry in entries:
            bus = self.registry.buses.get(entry.bus)
            if bus is None:
                continue
            number, offset = bus.info.number, entry.offset
            if offset > bus.log.last:  # not committed here yet, but a retry can be answered
                bus.admission.accepted((sender_id(entry.sender), entry.id), offset, entry.sender)
            if (
                run is not None
                and writer == entry.sender
                and run.bus == number
                and (run.id + run.count, run.offset + run.count) == (entry.id, offset)
            ):
                run.count += 1
                continue
            if run is not None:
                effects += self._acknowledge(writer, run)
            run, writer = frames.Ok(number, entry.id, offset), entry.sender
        effects += self._acknowledge(writer, run)
        return effects

    def _acknowledge(self, writer: bytes | None, run: frames.Ok | None) -> list[Effect]:
        if run is None or writer is None:
            return []
        conn = self._by_participant.get(sender_id(writer))
        return [] if conn is None else [Send(conn, frames.encode(run))]

    def failed(self, entries: Sequence[Entry], error: EbusError) -> list[Effect]:
        """The backend could not append these entries, and has kept nothing of them."""
        effects: list[Effect] = []
        for entry in entries:
            bus = self.registry.buses.get(entry.bus)
            if bus is not None:
                effects += bus.admission.refuse(sender_id(entry.sender), entry.id, error)
                effects += bus.admission.resume_waiting()
        return effects

    # --- filters ----------------------------------------------------------------------------------------------------

    def _filter_answer(self, conn: Conn, frame: frames.FilterAnswer) -> list[Effect]:
        bus = conn.access(frame.bus)
        if bus.filter_owner != conn.id:
            return []  # this connection was not asked
        error: EbusError | str | None = frame.reject
        if frame.failed:
            error = FilterUnavailable(
                f"{bus.info.name}: its filter failed: {frame.reject}. The write was not accepted."
            )
        return self.filtered(bus.info.address, frame.ask, bytes(frame.value), error)

    def filtered(self, address: Address, request: int, value: bytes, error: EbusError | str | None) -> list[Effect]:
        """A filter has answered.

        Args:
            address: The bus.
            request: The number of the request.
            value: The encoded value to keep.
            error: The filter's reason for refusing the write, as text; or the error that kept it from deciding.
        """
        bus = self.registry.buses.get(str(address))
        if bus is None:
            return []
        return [*bus.admission.filtered(request, value, error), *bus.admission.resume_waiting()]

    # --- reading ----------------------------------------------------------------------------------------------------

    def _subscribe(self, conn: Conn, frame: frames.Subscribe) -> list[Effect]:
        bus = conn.access(frame.bus, read=True)
        answer = bus.subscribe(conn.id, conn.who, frame)
        conn.catching_up.add(frame.bus)
        effects: list[Effect] = [Send(conn.id, frames.encode(answer))]
        return effects if conn.writing_paused else effects + self.resume_writing(conn.id)

    def pause_writing(self, conn_id: int) -> None:
        """The connection's socket is full: deliver nothing more to it until `resume_writing`."""
        conn = self._connections.get(conn_id)
        if conn is None or conn.writing_paused:
            return
        conn.writing_paused = True
        for number, access in conn.open.items():
            if access.bus.pause(conn_id):
                conn.catching_up.add(number)

    def resume_writing(self, conn_id: int) -> list[Effect]:
        """The connection's socket has drained: send it what it has not received, up to ``Limits.send_bytes``.

        Where that was not all (see `is_catching_up`), the host calls this again once it has handed over the effects.
        """
        conn = self._connections.get(conn_id)
        if conn is None:
            return []
        conn.writing_paused = False
        effects = self._presence_snapshots(conn) if conn.missed_presence else []
        left = self.limits.send_bytes
        for number in list(conn.catching_up):
            bus = conn.open[number].bus
            served, size = bus.serve(conn_id, left)
            effects += served
            left -= size
            if not bus.is_catching_up(conn_id):
                conn.catching_up.discard(number)
            if left <= 0:
                break
        return effects

    def is_catching_up(self, conn_id: int) -> bool:
        """True if there are messages in a log that the connection has not received."""
        conn = self._connections.get(conn_id)
        return conn is not None and bool(conn.catching_up)

    # --- presence and time ------------------------------------------------------------------------------------------

    def _set_presence(self, conn: Conn, frame: frames.SetPresence) -> list[Effect]:
        # To watch takes no right, and shows nothing without the right to read; to say something takes that to write.
        bus = conn.access(frame.bus, write=frame.watch is None)
        if len(bytes(frame.state)) > self.limits.presence_bytes:
            raise TooLarge(f"presence holds at most {self.limits.presence_bytes} bytes.", limit="presence_bytes")
        if frame.watch is not None:
            watches = frame.watch and conn.open[frame.bus].read
            bus.presence.watch(conn.who.id, watches)
            if watches:
                return [Send(conn.id, frames.encode(frames.Presence(frame.bus, True, bus.presence.snapshot())))]
            return []
        Validator.of(None).check(frame.state, "presence")
        bus.presence.set(conn.who.id, frame.state)
        self.registry.presence_dirty.add(bus)
        return []

    def presence(self, now: float) -> list[Effect]:
        """Send the changes to presence since the last call, as far as `Limits.presence_rate` allows; the others stay dirty.

        The host decides how often. A connection whose socket is full is sent all participants once it has drained.
        """
        effects: list[Effect] = []
        for bus in list(self.registry.presence_dirty):
            presence, number = bus.presence, bus.info.number
            watchers: list[int] = []
            for id_ in presence.watchers:
                conn = self._connections.get(self._by_participant.get(id_, 0))
                if conn is not None and not conn.writing_paused:
                    watchers.append(conn.id)
                elif conn is not None:
                    conn.missed_presence.add(number)
            room = presence.refill(now, self.limits.presence_rate)
            if room <= 0 and watchers:
                continue
            diff = presence.diff(room / len(watchers) if watchers else math.inf)
            if diff is not None and watchers:
                frame = frames.encode(frames.Presence(number, False, diff.here, diff.left))
                presence.spend(len(frame) * len(watchers))
                effects.append(Deliver(tuple(watchers), frame, 1))
            if not presence.has_changed:
                self.registry.presence_dirty.discard(bus)
        return effects

    def _presence_snapshots(self, conn: Conn) -> list[Effect]:
        """All participants of the buses whose changes ``conn`` has missed."""
        effects: list[Effect] = []
        for number in conn.missed_presence:
            access = conn.open.get(number)
            if access is not None and access.read:
                snapshot = frames.Presence(number, True, access.bus.presence.snapshot())
                effects.append(Send(conn.id, frames.encode(snapshot)))
        conn.missed_presence.clear()
        return effects

    @property
    def presence_dirty(self) -> bool:
        """True if there are changes to presence to send."""
        return bool(self.registry.presence_dirty)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed: filters may be overdue, participants gone, buses unused."""
        return self.registry.tick(now) + self.presence(now)

    # --- inspection -------------------------------------------------------------------------------------------------

    def connection_of(self, who: Participant) -> int:
        """The number of the participant's connection; 0 where it has none."""
        return self._by_participant.get(who.id, 0)

    def connections_by_kind(self) -> dict[str, int]:
        """The number of connections of each kind of participant."""
        return dict(Counter(conn.who.kind for conn in self._connections.values()))

    def counts(self) -> dict[str, Any]:
        """The number of connections and of loaded buses."""
        return {"connections": len(self._connections), "buses": len(self.registry.buses)}
