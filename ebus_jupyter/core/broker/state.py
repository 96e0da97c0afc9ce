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

from .account import Accounts
from .agenda import Agenda
from .bucket import Bucket
from .bus import BusState
from .clock import WallClock
from .conn import Conn
from .effects import Deliver, Effect, Hangup, Send
from .entry import Entry, Writer, by_bus, sender_id
from .listings import Listings
from .registry import BusRegistry
from .replies import Replies
from .unread import SHORT_BYTES, Unread

FRAMES_PER_SLICE = 32
"""The number of frames that are handled at a time."""

ONE_FRAME = b"\x91"
"""How a message of one frame begins."""

UNITS: dict[type[frames.Frame], int] = {
    frames.Open: 4,
    frames.Delete: 4,
    frames.List: 4,
    frames.Fetch: 2,
    frames.Subscribe: 2,
}
"""What frames take from their user's rate of requests. Others take 1; writes and filters' answers have rates of their own."""


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
        accounts: What each user holds and may ask for.
        agenda: The connections that have left something to do, until their next turn (`take_turn`).
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
        self._silent: dict[int, float] = {}  # when the connections were made that have not said hello
        self.accounts = Accounts(self.limits)
        self.agenda: Agenda[Conn] = Agenda()
        self.registry = BusRegistry(
            self._connections,
            self._by_participant,
            self.limits,
            self.accounts,
            self._go_on,
            secret=secret,
            mint=mint,
            clock=self.clock,
            shared=shared,
            filters=filters,
        )
        self._listings = Listings(self.registry.catalogue, self.registry.buses, self.limits)
        self._replies = Replies(self._listings, self.agenda, self.limits)

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
        self._has_groups = self._has_groups or bool(who.groups)
        account = self.accounts.of(who, now)
        try:
            account.take("connections", 1)
        except EbusError as error:
            return [Send(conn_id, frames.encode(frames.Bye(error.code, error.text))), Hangup(conn_id)]
        writes = Bucket.full(self._rate(who), self.limits.publish_burst, now)
        self._connections[conn_id] = Conn(conn_id, who, account, writes, Unread(self.limits), authorize, may_write)
        self._silent[conn_id] = now
        return []

    def hung_up(self, conn_id: int) -> None:
        """A connection's line has ended: it receives nothing more. Only what it has written is still handled."""
        conn = self._connections.get(conn_id)
        if conn is not None and not conn.gone:
            conn.gone = True
            conn.requests.clear()
            if conn.unread:
                self.agenda.add(conn)

    def disconnect(self, conn_id: int, now: float) -> list[Effect]:
        """A connection has ended, once the writes that arrived before its end are handled."""
        conn = self._connections.get(conn_id)
        if conn is None:
            return []
        self.hung_up(conn_id)
        conn.ended = True
        return [] if conn.unread else self._remove(conn, now)

    def _remove(self, conn: Conn, now: float) -> list[Effect]:
        if self._connections.pop(conn.id, None) is None:
            return []
        self._silent.pop(conn.id, None)
        conn.gone = True
        conn.requests.clear()
        self._forget_unread(conn)
        self._listings.forget(conn.id)
        if self._by_participant.get(conn.who.id) in (None, conn.id):  # no newer connection has replaced it
            self._by_participant.pop(conn.who.id, None)
        effects = self.registry.disconnected(conn, now)
        conn.account.add("connections", -1)
        return effects

    # --- frames -----------------------------------------------------------------------------------------------------

    def receive(self, conn_id: int, data: bytes, now: float) -> list[Effect]:
        """A WebSocket message has arrived. Its first frames are handled; `take_turn` handles the others."""
        conn = self._connections.get(conn_id)
        if conn is None:
            return []
        try:
            if data[:1] == ONE_FRAME and len(data) <= SHORT_BYTES and not conn.unread and conn_id not in self.agenda:
                (frame,) = frames.from_client(data)
                if type(frame) is frames.Publish and conn.writer is not None and conn.account.requests.level > 0:
                    return self._handle(conn, frame, now)  # most often: a write that comes alone
            conn.unread.add(data)
        except ProtocolError as error:
            return self._expel(conn, error, now)
        effects = [] if conn_id in self.agenda else self._take_slice(conn, now)
        if conn.unread:
            try:
                conn.account.take("received", conn.unread.size - conn.counted)
                conn.counted = conn.unread.size
            except EbusError as error:
                return [*effects, *self._expel(conn, error, now, reconnect=True)]
        return effects

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
        """True if frames of this connection wait. Until then it is not to be read from."""
        conn = self._connections.get(conn_id)
        return conn is not None and bool(conn.unread)

    def take_turn(self, now: float) -> tuple[int, list[Effect]]:
        """Let the connection whose turn it is do a fraction of a millisecond of what it has left to do.

        Returns:
            The connection's number, 0 where none may do anything now; and the effects.
        """
        conn = self.agenda.next(now)
        if conn is None:
            return 0, []
        if self._connections.get(conn.id) is not conn:
            return conn.id, []
        effects = self._take_slice(conn, now)
        if not conn.gone:
            effects += self._replies.serve(conn, now)
        elif conn.ended and not conn.unread:
            effects += self._remove(conn, now)
        return conn.id, effects

    def _take_slice(self, conn: Conn, now: float) -> list[Effect]:
        unread, budget = conn.unread, conn.account.requests
        effects: list[Effect] = []
        blocked = False
        if budget.level <= 0:
            budget.refill(now)
        try:
            left = FRAMES_PER_SLICE
            while unread and left and budget.level > 0:
                left -= 1
                try:
                    frame = unread.pop()
                except TooLarge as error:
                    budget.level -= 1
                    effects.append(Send(conn.id, frames.encode(_refusal_of_part(error))))
                    continue
                if conn.writer is None and not isinstance(frame, frames.Hello):
                    raise ProtocolError("say hello first: the first frame of a connection is [1, version, instance].")
                if type(frame) is not frames.Publish and not isinstance(frame, frames.FilterAnswer):
                    if conn.gone and not isinstance(frame, frames.Delete | frames.Leave):
                        continue  # nobody is there for the answer
                    if self._replies.must_wait(conn, frame):
                        unread.put_back(frame)
                        blocked = True
                        break
                    budget.level -= UNITS.get(type(frame), 1)
                effects += self._handle(conn, frame, now)
        except ProtocolError as error:
            return effects + self._expel(conn, error, now)
        if not unread:
            if conn.counted:
                self._forget_unread(conn)
        elif not blocked:
            self.agenda.add(conn)
        return effects

    def _forget_unread(self, conn: Conn) -> None:
        conn.unread.clear()
        conn.account.add("received", -conn.counted)
        conn.counted = 0

    def _go_on(self, conn: Conn) -> None:
        """What a connection had to wait for is there."""
        if conn.unread:
            self.agenda.add(conn)

    def _expel(self, conn: Conn, error: EbusError, now: float, *, reconnect: bool = False) -> list[Effect]:
        bye = frames.Bye(error.code, error.text, reconnect=reconnect)
        return [Send(conn.id, frames.encode(bye)), Hangup(conn.id), *self._remove(conn, now)]

    def _handle(self, conn: Conn, frame: frames.ClientFrame, now: float) -> list[Effect]:
        try:
            match frame:
                case frames.Publish():
                    return self._publish(conn, frame, now)
                case frames.Hello():
                    return self._hello(conn, frame, now)
                case frames.Open():
                    return self._open(conn, frame, now)
                case frames.Subscribe():
                    return self._subscribe(conn, frame, now)
                case frames.Unsubscribe():
                    bus = conn.access(frame.bus)
                    bus.unsubscribe(conn.id)
                    conn.catching_up.discard(frame.bus)
                    return []
                case frames.Fetch() | frames.List():
                    return self._replies.ask(conn, frame, now)
                case frames.SetPresence():
                    return self._set_presence(conn, frame, now)
                case frames.FilterAnswer():
                    return self._filter_answer(conn, frame)
                case frames.Delete():
                    return self.registry.delete(conn, frame)
                case frames.Ping():
                    if frame.n:
                        conn.refuses = False
                    return [Send(conn.id, frames.encode(frames.Pong(frame.n)))]
                case frames.Leave():
                    return self.registry.leave(conn, frame.bus, now)
        except ProtocolError:
            raise
        except EbusError as error:
            if isinstance(frame, frames.Publish):
                conn.account.requests.level -= 1  # what is refused costs, too
            answer = frames.refusal(
                error, req=getattr(frame, "req", 0), id_=getattr(frame, "id", 0), bus=getattr(frame, "bus", 0)
            )
            return [Send(conn.id, frames.encode(answer))]

    def _open(self, conn: Conn, frame: frames.Open, now: float) -> list[Effect]:
        effects = self.registry.open(conn, frame, now)
        if effects and isinstance(effects[0], Send):
            self._replies.count(conn, len(effects[0].frame))
        return effects

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
        conn.writer = Writer(conn.who, msgspec.msgpack.encode(public(conn.who)), conn.account)
        self._silent.pop(conn.id, None)
        effects: list[Effect] = []
        previous = self._by_participant.get(id_)
        self._by_participant[id_] = conn.id
        if previous is not None:
            bye = frames.Bye("closed", "this client has connected again.", reconnect=False)
            effects += [
                Send(previous, frames.encode(bye)),
                Hangup(previous),
                *self._remove(self._connections[previous], now),
            ]
        limits = {
            "value_bytes": self.limits.value_bytes,
            "batch_bytes": self.limits.batch_bytes,
            "batch_frames": self.limits.batch_frames,
            "presence_bytes": self.limits.presence_bytes,
            "pending": self.limits.pending,
            "publish_rate": max(1, int(conn.writes.rate)),
            "publish_burst": max(1, int(conn.writes.burst)),
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
            raise RateLimited("an earlier write of this connection was refused.", retry_after=0.0, limit="publish_rate")
        writes = conn.writes
        writes.refill(now)
        if writes.level < 1:
            conn.refuses = conn.resends
            raise RateLimited(
                f"{bus.info.name}: more than {writes.rate:g} writes a second from one participant (the server's limits "
                "`publish_rate`, `kernel_publish_rate`). Write less often, or let a state conflate.",
                retry_after=(1 - writes.level) / writes.rate,
                limit="publish_rate",
            )
        if conn.who.kind in ("page", "client"):
            self._spend_write(conn, bus, now)
        writes.level -= 1
        if admission.filter is not None:
            self.registry.needs_tick.add(bus)
        try:
            return admission.publish(conn.writer, frame, now)
        except RateLimited:
            conn.refuses = conn.resends
            raise

    def _spend_write(self, conn: Conn, bus: BusState, now: float) -> None:
        """Take a write from what the pages and clients of its user may write together."""
        bucket = conn.account.writes
        if bucket.level < 1:
            bucket.refill(now)
            if bucket.level < 1:
                conn.refuses = conn.resends
                raise RateLimited(
                    f"{bus.info.name}: more than {bucket.rate:g} writes a second from the pages and clients of "
                    f"{conn.who.user or 'one user'} together (the server's limit `user_publish_rate`). Write less "
                    "often, or let a state conflate.",
                    retry_after=bucket.wait(),
                    limit="user_publish_rate",
                )
        bucket.level -= 1

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

    def _subscribe(self, conn: Conn, frame: frames.Subscribe, now: float) -> list[Effect]:
        bus = conn.access(frame.bus, read=True)
        answer = bus.subscribe(conn.id, conn.who, frame)
        conn.catching_up.add(frame.bus)
        return [Send(conn.id, frames.encode(answer)), *self._replies.serve(conn, now)]

    def pause_writing(self, conn_id: int) -> None:
        """The connection's socket is full: deliver nothing more to it until `resume_writing`."""
        conn = self._connections.get(conn_id)
        if conn is None or conn.writing_paused:
            return
        conn.writing_paused = True
        for number, access in conn.open.items():
            if access.bus.pause(conn_id):
                conn.catching_up.add(number)

    def resume_writing(self, conn_id: int) -> None:
        """The connection's socket has drained: in its turns, it is sent what it has not received."""
        conn = self._connections.get(conn_id)
        if conn is not None:
            conn.writing_paused = False
            for number in conn.missed_presence:  # it is told all participants anew
                self._replies.ask_later(conn, frames.SetPresence(number, watch=True))
            conn.missed_presence.clear()
            self.agenda.add(conn)

    def flushed(self) -> None:
        """Everything that was to be sent was handed to the sockets: there is room for answers again."""
        self._replies.flushed()

    @property
    def awaits_flush(self) -> bool:
        """True if a connection waits for `flushed`."""
        return self._replies.awaits_flush

    def is_catching_up(self, conn_id: int) -> bool:
        """True if there are messages in a log that the connection has not received."""
        conn = self._connections.get(conn_id)
        return conn is not None and bool(conn.catching_up)

    def list_authorized(self, conn_id: int, frame: frames.List, allowed: dict[str, bool], now: float) -> list[Effect]:
        """The authorizer has answered an `AuthorizeList`: which of its buses the connection may know of."""
        conn = self._connections.get(conn_id)
        if conn is None:
            return []
        conn.opening -= 1
        self._go_on(conn)
        return self._replies.listed(conn, self._listings.authorized(conn, frame, allowed, now))

    # --- presence and time ------------------------------------------------------------------------------------------

    def _set_presence(self, conn: Conn, frame: frames.SetPresence, now: float) -> list[Effect]:
        # To watch takes no right, and shows nothing without the right to read; to say something takes that to write.
        bus = conn.access(frame.bus, write=frame.watch is None)
        if len(bytes(frame.state)) > self.limits.presence_bytes:
            raise TooLarge(f"presence holds at most {self.limits.presence_bytes} bytes.", limit="presence_bytes")
        if frame.watch is not None:
            watches = frame.watch and conn.open[frame.bus].read
            bus.presence.watch(conn.who.id, watches)
            return self._replies.ask(conn, frame, now) if watches else []
        Validator.of(None).check(frame.state, "presence")
        bus.presence.set(conn.who.id, frame.state, conn.account)
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
            budget = presence.budget(now, self.limits.presence_rate)
            if budget.level <= 0 and watchers:
                continue
            diff = presence.diff(budget.level / len(watchers) if watchers else math.inf)
            if diff is not None and watchers:
                frame = frames.encode(frames.Presence(number, False, diff.here, diff.left))
                budget.level -= len(frame) * len(watchers)
                effects.append(Deliver(tuple(watchers), frame, 1))
            if not presence.has_changed:
                self.registry.presence_dirty.discard(bus)
        return effects

    @property
    def presence_dirty(self) -> bool:
        """True if there are changes to presence to send."""
        return bool(self.registry.presence_dirty)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed: filters may be overdue, participants gone, buses unused."""
        effects: list[Effect] = []
        while self._silent and now - next(iter(self._silent.values())) > self.limits.hello_seconds:
            conn = self._connections[next(iter(self._silent))]
            seconds = self.limits.hello_seconds
            silent = ProtocolError(f"no hello within {seconds:g} s (the server's limit `hello_seconds`).")
            effects += self._expel(conn, silent, now)
        self.accounts.tick(now)
        for conn_id, frame in self._listings.due(now):
            conn = self._connections[conn_id]
            if not any(waiting is frame for waiting in conn.requests):
                conn.account.requests.level -= UNITS[frames.List]
                self._replies.ask_later(conn, frame)
        return effects + self.registry.tick(now) + self.presence(now)

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


def _refusal_of_part(error: TooLarge) -> frames.Error:
    """The answer to a frame that was too long to be decoded; see `Unread.pop`."""
    facts = {name: error.details.pop(name, 0) for name in ("req", "id", "bus")}
    return frames.refusal(error, req=facts["req"], id_=facts["id"], bus=facts["bus"])
