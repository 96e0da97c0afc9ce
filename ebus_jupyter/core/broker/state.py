"""The broker: who is connected, which buses there are, and what each frame leads to.

`BrokerState` decides and never acts. Whoever runs it hands in what happens (``connect``, ``receive``, ``go_on``,
``disconnect``, ``blocked``, ``drained``, ``loaded``, ``commit``, ``tick``) and performs the effects that come back, in
their order. It holds no clock, no socket and no randomness: ``now`` and ``mint`` are arguments.

What a frame may do depends only on what the authenticated connection is, never on what the frame says of its sender.
A bus outside a participant's reach looks exactly like one that does not exist.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.message import Participant, public
from ebus_jupyter.core.protocol.validation import Validator
from ebus_jupyter.errors import EbusError, FilterUnavailable, ProtocolError, RateLimited, TooLarge

from .admission import Writer
from .effects import Deliver, Effect, Hangup, ListBuses, Send
from .entry import Entry, by_bus, sender_id
from .registry import BusRegistry, Conn

FRAMES_PER_SLICE = 32
"""How many frames of one message are taken at a time."""


class BrokerState(BusRegistry):
    """All buses and connections of one broker; see `BusRegistry` for what it is made of."""

    # --- connections ------------------------------------------------------------------------------------------------

    def connect(
        self, conn: int, who: Participant, now: float, *, may_write: bool = True, asks: bool = False
    ) -> list[Effect]:
        """A connection is there; ``who`` is what it authenticated as (its ``id`` comes with the hello)."""
        if len(self._conns) >= self.limits.connections:
            text = f"this server holds {self.limits.connections} connections already (its limit `connections`)."
            return [Send(conn, frames.encode(frames.Bye("too_large", text))), Hangup(conn)]
        self._conns[conn] = Conn(
            conn, who, asks, may_write, tokens=self._rate(who) * self.limits.publish_burst, refilled=now
        )
        return []

    def disconnect(self, conn: int, now: float) -> list[Effect]:
        """The connection has ended. Its participant is away, and may be back."""
        state = self._conns.get(conn)
        if state is None:
            return []
        effects: list[Effect] = []
        while state.unread:  # its last words
            effects += self.take_slice(conn, now)
        if self._conns.pop(conn, None) is None:
            return effects  # they were its end already
        replaced = self._by_participant.get(state.who.id) not in (None, conn)
        if not replaced:
            self._by_participant.pop(state.who.id, None)
        for access in list(state.open.values()):
            effects += self._part(state, access.bus, now)
            if not replaced:
                access.bus.presence.away(state.who.id, now)
                self._presence_dirty.add(access.bus)
        return effects

    def receive(self, conn: int, data: bytes, now: float) -> list[Effect]:
        """A WebSocket message from ``conn``. What is malformed ends the connection, and nothing else.

        Its first frames are taken, as `go_on` does; whoever runs the broker decides when the others are.
        """
        state = self._conns.get(conn)
        if state is None:
            return []
        try:
            state.unread[:0] = reversed(frames.from_client(data))
        except ProtocolError as error:
            return self._expel(state, error, now)
        return self.take_slice(conn, now)

    def has_more(self, conn: int) -> bool:
        """Whether frames that came from ``conn`` wait for `go_on`."""
        state = self._conns.get(conn)
        return state is not None and bool(state.unread)

    def take_slice(self, conn: int, now: float) -> list[Effect]:
        """Take the next frames of what came from ``conn``: so many that it takes a fraction of a millisecond."""
        state = self._conns.get(conn)
        if state is None:
            return []
        unread = state.unread
        effects: list[Effect] = []
        try:
            for _ in range(min(FRAMES_PER_SLICE, len(unread))):
                frame = unread.pop()
                if state.writer is None and not isinstance(frame, frames.Hello):
                    raise ProtocolError("say hello first: the first frame of a connection is [1, version, instance].")
                effects += self._frame(state, frame, now)
        except ProtocolError as error:
            effects += self._expel(state, error, now)
        return effects

    def _expel(self, state: Conn, error: ProtocolError, now: float) -> list[Effect]:
        state.unread.clear()
        bye = frames.Bye(error.code, error.text, reconnect=False)
        return [Send(state.id, frames.encode(bye)), Hangup(state.id), *self.disconnect(state.id, now)]

    def _frame(self, state: Conn, frame: frames.ClientFrame, now: float) -> list[Effect]:
        try:
            match frame:
                case frames.Publish():
                    return self._publish(state, frame, now)
                case frames.Hello():
                    return self._hello(state, frame, now)
                case frames.Open():
                    return self._open(state, frame, now)
                case frames.Subscribe():
                    return self._subscribe(state, frame)
                case frames.Unsubscribe():
                    bus = self._access(state, frame.bus).bus
                    bus.unsubscribe(state.id)
                    state.catching_up.discard(bus.number)
                    return []
                case frames.Fetch():
                    bus = self._access(state, frame.bus, read=True).bus
                    return [Send(state.id, frames.encode(bus.page(state.who, frame)))]
                case frames.SetPresence():
                    return self._set_presence(state, frame)
                case frames.FilterAnswer():
                    return self._filter_answer(state, frame)
                case frames.Delete():
                    return self._delete(state, frame)
                case frames.List():
                    return [ListBuses(state.id, frame.req)]
                case frames.Ping():
                    return [Send(state.id, frames.encode(frames.Pong(frame.n)))]
                case frames.Leave():
                    return self._leave(state, frame, now)
        except ProtocolError:
            raise
        except EbusError as error:
            answer = frames.refusal(
                error, req=getattr(frame, "req", 0), id_=getattr(frame, "id", 0), bus=getattr(frame, "bus", 0)
            )
            return [Send(state.id, frames.encode(answer))]

    def _hello(self, state: Conn, frame: frames.Hello, now: float) -> list[Effect]:
        if frame.version != frames.VERSION:
            older, newer = ("client", "server") if frame.version < frames.VERSION else ("server", "client")
            raise ProtocolError(
                f"the {newer} speaks a newer protocol than the {older} (client {frame.version}, server {frames.VERSION}): "
                f"update ebus_jupyter on the {older}'s side"
                + (" and reload the page." if older == "client" else " and restart it.")
            )
        if (
            state.writer is not None
            or len(frame.instance) != 32
            or not all(digit in "0123456789abcdef" for digit in frame.instance)
        ):
            raise ProtocolError("hello comes once, with an instance of 32 hexadecimal digits that nobody can guess.")
        # Others see the hash: who knows the instance itself can answer to its name.
        id_ = hashlib.blake2b(frame.instance.encode(), digest_size=8).hexdigest()
        state.who = msgspec.structs.replace(state.who, id=id_)
        state.writer = Writer(state.who, msgspec.msgpack.encode(public(state.who)))
        effects: list[Effect] = []
        before = self._by_participant.get(id_)
        self._by_participant[id_] = state.id
        if before is not None:
            bye = frames.Bye("closed", "this client has connected again.", reconnect=False)
            effects += [Send(before, frames.encode(bye)), Hangup(before), *self.disconnect(before, now)]
        bounds = {
            "value_bytes": self.limits.value_bytes,
            "batch_bytes": self.limits.batch_bytes,
            "pending": self.limits.pending,
        }
        welcome = frames.Welcome(frames.VERSION, public(state.who), self.name, bounds)
        return [*effects, Send(state.id, frames.encode(welcome))]

    # --- writing ----------------------------------------------------------------------------------------------------

    def _rate(self, who: Participant) -> float:
        return self.limits.kernel_publish_rate if who.kind in ("kernel", "server") else self.limits.publish_rate

    def _publish(self, state: Conn, frame: frames.Publish, now: float) -> list[Effect]:
        bus = self._access(state, frame.bus, write=True).bus
        assert state.writer is not None  # it has said hello
        admission = bus.admission
        known = admission.known((state.who.id, frame.id))
        if known is not None:  # a retry is not refused for what came after its first attempt
            return known
        rate = self._rate(state.who)
        if now > state.refilled:
            state.tokens = min(rate * self.limits.publish_burst, state.tokens + (now - state.refilled) * rate)
            state.refilled = now
        if state.tokens < 1:
            raise RateLimited(
                f"{bus.name}: more than {rate:g} writes a second from one participant (the server's limits `publish_rate`, "
                "`kernel_publish_rate`). Write less often, or let a state conflate.",
                retry_after=(1 - state.tokens) / rate,
            )
        state.tokens -= 1
        if bus.spec.filter is not None:
            self._ticking.add(bus)
        return admission.publish(state.writer, frame, now)

    def appended(self, entries: Sequence[Entry], offsets: Sequence[int]) -> list[Effect]:
        """The backend has kept these; their writers get their acks, runs of them in one frame."""
        effects: list[Effect] = []
        run: frames.Ok | None = None
        writer = None
        for entry, offset in zip(entries, offsets, strict=True):
            bus = self._buses.get(entry.bus)
            if bus is None:
                continue
            if offset > bus.log.last:  # its report is still on the way, but a retry has its answer
                bus.admission.keep((sender_id(entry.sender), entry.id), offset)
            if (
                run is not None
                and writer == entry.sender
                and run.bus == bus.number
                and (run.id + run.count, run.offset + run.count) == (entry.id, offset)
            ):
                run.count += 1
                continue
            effects += self._ack(writer, run)
            run, writer = frames.Ok(bus.number, entry.id, offset), entry.sender
        effects += self._ack(writer, run)
        return effects

    def _ack(self, writer: bytes | None, run: frames.Ok | None) -> list[Effect]:
        if run is None or writer is None:
            return []
        conn = self._by_participant.get(sender_id(writer))
        return [] if conn is None else [Send(conn, frames.encode(run))]

    def failed(self, entries: Sequence[Entry], error: EbusError) -> list[Effect]:
        """The backend could not keep these; nothing of them was kept."""
        effects: list[Effect] = []
        for entry in entries:
            bus = self._buses.get(entry.bus)
            if bus is not None:
                effects += bus.admission.refuse(sender_id(entry.sender), entry.id, error)
                effects += bus.settled()
        return effects

    def commit(self, entries: Sequence[Entry]) -> list[Effect]:
        """The backend reports these as kept, in order. This, and only this, delivers."""
        effects: list[Effect] = []
        for uri, of_bus in by_bus(entries).items():
            bus = self._buses.get(uri)
            if bus is not None:
                effects += bus.commit(of_bus)
                effects += bus.settled()
        return effects

    # --- filters ----------------------------------------------------------------------------------------------------

    def _filter_answer(self, state: Conn, frame: frames.FilterAnswer) -> list[Effect]:
        bus = self._access(state, frame.bus).bus
        if not bus.owners or bus.owners[0] != state.id:
            return []  # nobody asked this connection
        verdict: EbusError | str | None = frame.reject
        if frame.failed:
            verdict = FilterUnavailable(f"{bus.name}: its filter failed: {frame.reject}. The write was not accepted.")
        return self.filtered(bus.address, frame.ask, bytes(frame.value), verdict)

    def filtered(self, address: Address, ask: int, value: bytes, error: EbusError | str | None) -> list[Effect]:
        """A filter's verdict: a value, the reason why it refuses, or the error that kept it from deciding."""
        bus = self._buses.get(str(address))
        if bus is None:
            return []
        return [*bus.admission.filtered(ask, value, error), *bus.settled()]

    # --- reading ----------------------------------------------------------------------------------------------------

    def _subscribe(self, state: Conn, frame: frames.Subscribe) -> list[Effect]:
        bus = self._access(state, frame.bus, read=True).bus
        answer = bus.subscribe(state.id, state.who, frame)
        state.catching_up.add(bus.number)
        effects: list[Effect] = [Send(state.id, frames.encode(answer))]
        return effects if state.writing_paused else effects + self.resume_writing(state.id)

    def pause_writing(self, conn: int) -> None:
        """The connection's socket has enough to do: hand it nothing more until `drained`."""
        state = self._conns.get(conn)
        if state is None or state.writing_paused:
            return
        state.writing_paused = True
        for number, access in state.open.items():
            if access.bus.pause(conn):
                state.catching_up.add(number)

    def resume_writing(self, conn: int) -> list[Effect]:
        """The socket took what it had: serve what the connection is behind with, up to ``send_bytes``.

        Where that was not all, the shell calls again once it has handed this over (see `is_behind`).
        """
        state = self._conns.get(conn)
        if state is None:
            return []
        state.writing_paused = False
        effects: list[Effect] = []
        left = self.limits.send_bytes
        for number in list(state.catching_up):
            served, size = state.open[number].bus.serve(conn, left)
            effects += served
            left -= size
            if not state.open[number].bus.is_catching_up(conn):
                state.catching_up.discard(number)
            if left <= 0:
                break
        return effects

    def is_catching_up(self, conn: int) -> bool:
        """Whether the connection waits for messages that are in a log."""
        state = self._conns.get(conn)
        return state is not None and bool(state.catching_up)

    # --- presence and time ------------------------------------------------------------------------------------------

    def _set_presence(self, state: Conn, frame: frames.SetPresence) -> list[Effect]:
        bus = self._access(state, frame.bus).bus
        if len(bytes(frame.state)) > self.limits.presence_bytes:
            raise TooLarge(f"presence holds at most {self.limits.presence_bytes} bytes.", limit="presence_bytes")
        if frame.watch is not None:
            watches = frame.watch and state.open[bus.number].read
            bus.presence.watch(state.who.id, watches)
            if watches:
                return [Send(state.id, frames.encode(frames.Presence(bus.number, True, bus.presence.snapshot())))]
            return []
        Validator.of(None).check(frame.state, "presence")
        bus.presence.set(state.who.id, frame.state)
        self._presence_dirty.add(bus)
        return []

    def presence(self) -> list[Effect]:
        """Tell what changed since the last call. The shell decides how often."""
        effects: list[Effect] = []
        for bus in self._presence_dirty:
            diff = bus.presence.diff()
            watchers = [self._by_participant[id_] for id_ in bus.presence.watchers if id_ in self._by_participant]
            if diff is not None and watchers:
                frame = frames.encode(frames.Presence(bus.number, False, diff.here, diff.left))
                effects.append(Deliver(tuple(watchers), frame, 1))
        self._presence_dirty.clear()
        return effects

    @property
    def presence_dirty(self) -> bool:
        """Whether `presence` may have something to tell."""
        return bool(self._presence_dirty)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed: filters that did not answer, participants that did not come back, buses that nobody uses."""
        effects: list[Effect] = []
        for bus in list(self._ticking):
            effects += bus.filter_lost(now)
            effects += bus.settled()
            bus.presence.expire(now - self.limits.gone_seconds)
            if bus.presence.has_changed:
                self._presence_dirty.add(bus)
            if (
                bus.address.unnamed
                and bus.creator not in self._by_participant
                and now - bus.idle_since > self.limits.creator_seconds
            ):
                effects += self._end(bus, f"its maker has gone, and with it the unnamed bus {bus.name}")
            elif not bus.address.unnamed and not bus.in_use and now - bus.idle_since > self.limits.creator_seconds:
                self._unload(bus)  # the backend keeps it; the next to open it loads it
            elif not bus.needs_tick() and (not bus.address.unnamed or bus.creator in self._by_participant):
                self._ticking.discard(bus)
        return effects + self.presence()

    # --- for those who look -----------------------------------------------------------------------------------------

    def connection_of(self, who: Participant) -> int:
        """The connection that ``who`` has now; 0 where it has none."""
        return self._by_participant.get(who.id, 0)

    def counts(self) -> dict[str, Any]:
        return {"connections": len(self._conns), "buses": len(self._buses)}
