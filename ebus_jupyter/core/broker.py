"""The broker: who is connected, which buses there are, and what each frame leads to.

`BrokerState` decides and never acts. Whoever runs it hands in what happens (``connect``, ``receive``, ``disconnect``,
``blocked``, ``drained``, ``loaded``, ``commit``, ``tick``) and performs the effects that come back, in their order. It
holds no clock, no socket and no randomness: ``now`` and ``mint`` are arguments.

What a frame may do depends only on what the authenticated connection is, never on what the frame says of its sender.
A bus outside a participant's reach looks exactly like one that does not exist.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

import msgspec

from ebus_jupyter.errors import (
    EbusError,
    FilterUnavailable,
    Forbidden,
    NoSuchBus,
    ProtocolError,
    RateLimited,
    SpecConflict,
    TooLarge,
)

from . import frames
from .address import UNNAMED, Address, check_name, check_scope, may_enter, resolve
from .bus import BusState, Writer, error_frame, public
from .effects import Append, Authorize, Catalogue, Deliver, Effect, Filter, Forget, Hangup, Load, Send
from .entry import Entry, Kept, sender_id
from .limits import Limits
from .message import OWNER, BusSpec, Participant, allows
from .schema import Validator

__all__ = [
    "Append",
    "Authorize",
    "BrokerState",
    "Catalogue",
    "Deliver",
    "Effect",
    "Filter",
    "Forget",
    "Hangup",
    "Load",
    "Send",
]


class Access(msgspec.Struct):
    """What one connection may do on one bus that it has opened."""

    bus: BusState
    read: bool
    write: bool


class Conn(msgspec.Struct):
    """One connection. ``asks``: an authorizer is to be asked for each bus. ``may_write`` False: it only looks on."""

    id: int
    who: Participant
    asks: bool = False
    may_write: bool = True
    writer: Writer | None = None
    is_blocked: bool = False
    open: dict[int, Access] = {}
    behind: set[int] = set()
    permits: dict[Address, tuple[bool, bool]] = {}
    tokens: float = 0.0
    refilled: float = 0.0

    def permit(self, address: Address) -> tuple[bool, bool]:
        """What the authorizer lets it do there: read, write. Nothing is remembered of a bus that it does not hold open."""
        return self.permits.get(address, (not self.asks, not self.asks))


class BrokerState:
    """All buses and connections of one broker.

    Args:
        broker: Names this life of the broker.
        secret: Makes capabilities; whoever holds it can enter every bus.
        mint: Returns that many fresh, unguessable hexadecimal digits.
        limits: The bounds.
        shared: Whether the backend is one that all servers of a hub share (scope "hub" exists).
        filters: Names of the filters that this server can run.
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
        self.shared = shared
        self.filters = set(filters)
        self._secret = secret
        self._mint = mint
        self._conns: dict[int, Conn] = {}
        self._by_participant: dict[str, int] = {}
        self._buses: dict[Address, BusState] = {}
        self._by_uri: dict[str, BusState] = {}
        self._numbers: set[int] = set()
        self._loading: dict[Address, list[tuple[int, frames.Open]]] = {}
        self._activity: dict[str, str] = {}
        self._stirred: set[BusState] = set()

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
        state = self._conns.pop(conn, None)
        if state is None:
            return []
        effects: list[Effect] = []
        replaced = self._by_participant.get(state.who.id) not in (None, conn)
        if not replaced:
            self._by_participant.pop(state.who.id, None)
        for access in list(state.open.values()):
            effects += self._part(state, access.bus, now)
            if not replaced:
                access.bus.presence.away(state.who.id, now)
                self._stirred.add(access.bus)
        return effects

    def receive(self, conn: int, data: bytes, now: float) -> list[Effect]:
        """A WebSocket message from ``conn``. What is malformed ends the connection, and nothing else."""
        state = self._conns.get(conn)
        if state is None:
            return []
        effects: list[Effect] = []
        try:
            for frame in frames.from_client(data):
                if state.writer is None and not isinstance(frame, frames.Hello):
                    raise ProtocolError("say hello first: the first frame of a connection is [1, version, instance].")
                effects += self._frame(state, frame, now)
        except ProtocolError as error:
            bye = frames.Bye(error.code, error.text, reconnect=False)
            effects += [Send(conn, frames.encode(bye)), Hangup(conn), *self.disconnect(conn, now)]
        return effects

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
                    state.behind.discard(bus.number)
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
                    return [Catalogue(state.id, frame.req)]
                case frames.Ping():
                    return [Send(state.id, frames.encode(frames.Pong(frame.n)))]
                case frames.Leave():
                    return self._leave(state, frame, now)
        except ProtocolError:
            raise
        except EbusError as error:
            answer = error_frame(
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

    def _access(self, state: Conn, number: int, *, read: bool = False, write: bool = False) -> Access:
        access = state.open.get(number)
        if access is None:
            raise NoSuchBus("this connection has opened no such bus; open it first.")
        if (read and not access.read) or (write and not access.write):
            may, wish = ("write to", "read") if read else ("read", "write to")
            raise Forbidden(
                f"{state.who.user or 'this participant'} may {may} {access.bus.name} but not {wish} it; its maker decides with "
                "readers= and writers=, the server with its Authorizer."
            )
        return access

    # --- opening and closing ----------------------------------------------------------------------------------------

    def _open(self, state: Conn, frame: frames.Open, now: float) -> list[Effect]:
        check_scope(frame.scope)
        if frame.name is None:
            address = resolve(frame.scope, UNNAMED + self._mint(32), state.who, shared_engine=self.shared)
        else:
            check_name(frame.name.removeprefix(UNNAMED), self.limits.name_chars)
            address = resolve(frame.scope, frame.name, state.who, owner=frame.owner, shared_engine=self.shared)
        if not may_enter(address, state.who, frame.cap, self._secret) and frame.name is not None:
            raise self._unseen(address)
        if state.asks and address not in state.permits:
            return [Authorize(state.id, frame, address)]
        return self._enter(state, frame, address, now)

    def authorized(
        self, conn: int, question: frames.Open, address: Address, read: bool, write: bool, now: float
    ) -> list[Effect]:
        """The authorizer's answer."""
        state = self._conns.get(conn)
        if state is None:
            return []
        state.permits[address] = (read, write)
        return self._try_enter(state, question, address, now)

    def _try_enter(self, state: Conn, frame: frames.Open, address: Address, now: float) -> list[Effect]:
        try:
            return self._enter(state, frame, address, now)
        except EbusError as error:
            state.permits.pop(address, None)
            return [Send(state.id, frames.encode(error_frame(error, req=frame.req)))]

    def _enter(self, state: Conn, frame: frames.Open, address: Address, now: float) -> list[Effect]:
        bus = self._buses.get(address)
        read, write = state.permit(address)
        write = write and state.may_write
        if bus is None:
            if not read and not write:
                raise self._unseen(address)
            spec = None
            if frame.create and write and (frame.name is None or not address.unnamed):
                spec = self._new_spec(frame, state.who)
            self._check_room(state)
            waiting = self._loading.setdefault(address, [])
            waiting.append((state.id, frame))
            return [Load(address, spec, self._mint(16))] if len(waiting) == 1 else []
        read = read and allows(bus.spec.readers, state.who)
        write = write and allows(bus.spec.writers, state.who)
        if not read and not write:
            raise self._unseen(address)
        bus.spec.join(frame.spec, bus.name)
        if bus.number not in state.open:
            self._check_room(state, joins=True)
        if frame.spec.get("filter") == OWNER:
            self._offer_filter(state, bus)
        state.open[bus.number] = Access(bus, read, write)
        bus.presence.join(public(state.who), now)
        self._stirred.add(bus)
        if state.who.kernel_id in self._activity:
            bus.presence.kernel(state.who.kernel_id, self._activity[state.who.kernel_id])
        cap = address.capability(self._secret) if address.guarded else ""
        spec_fields = msgspec.to_builtins(bus.spec)
        answer = frames.Opened(frame.req, bus.number, str(address), bus.epoch, bus.log.last, spec_fields, cap)
        return [Send(state.id, frames.encode(answer))]

    def _check_room(self, state: Conn, *, joins: bool = False) -> None:
        # Before a bus is begun, not after: what is refused must leave nothing behind.
        if len(state.open) >= self.limits.buses_per_participant:
            raise TooLarge(
                f"this connection has {self.limits.buses_per_participant} buses open (the server's limit "
                "`buses_per_participant`).",
                limit="buses_per_participant",
            )
        if not joins and len(self._buses) + len(self._loading) >= self.limits.buses:
            raise TooLarge(f"this server has {self.limits.buses} buses open (its limit `buses`).", limit="buses")

    def _new_spec(self, frame: frames.Open, who: Participant) -> BusSpec:
        spec = BusSpec.create(frame.spec, self.limits)
        for schema in (spec.schema, spec.emits):
            Validator(schema)  # raises where nothing could be held to it
        if spec.filter not in (None, OWNER) and spec.filter not in self.filters:
            known = ", ".join(sorted(self.filters)) or "none"
            raise SpecConflict(
                f"this server has no filter {spec.filter!r} (it has: {known}). Filters in the server are installed, not sent."
            )
        if spec.filter == OWNER:
            spec = msgspec.structs.replace(spec, maker=who.user)
        return spec

    def _offer_filter(self, state: Conn, bus: BusState) -> None:
        if bus.spec.maker != state.who.user:
            raise Forbidden(f"{bus.name} is filtered by {bus.spec.maker or 'another user'}; open it without filter=.")
        if state.id not in bus.owners:
            bus.owners.append(state.id)

    def loaded(self, address: Address, kept: Kept | None, error: EbusError | None, now: float) -> list[Effect]:
        """The backend has opened the bus, or found none (``kept`` None), or failed."""
        waiting = self._loading.pop(address, [])
        effects: list[Effect] = []
        if kept is not None and error is None:
            try:
                bus = BusState(address, self._number(), kept, self.limits, self._by_participant)
            except EbusError as unusable:  # kept by another version
                error = unusable
            else:
                self._buses[address] = self._by_uri[str(address)] = bus
                bus.idle_since = now
                first = self._conns.get(waiting[0][0]) if waiting else None
                if address.unnamed and first is not None:
                    bus.creator = first.who.id
        for conn, frame in waiting:
            state = self._conns.get(conn)
            if state is None:
                continue
            if error is not None:
                state.permits.pop(address, None)
                effects.append(Send(conn, frames.encode(error_frame(error, req=frame.req))))
            elif kept is None and frame.create and state.may_write and state.permit(address)[1] and not address.unnamed:
                effects += self._try_enter(
                    state, frame, address, now
                )  # who came first could not create it; this one can
            elif kept is None:
                state.permits.pop(address, None)
                effects.append(Send(conn, frames.encode(error_frame(self._unseen(address), req=frame.req))))
            else:
                effects += self._try_enter(state, frame, address, now)
        return effects

    def _number(self) -> int:
        # Random, so that a number tells nobody how many buses others have.
        while (number := int(self._mint(8), 16) & 0x7FFFFFFF) in self._numbers:
            continue
        self._numbers.add(number)
        return number

    def _unseen(self, address: Address) -> NoSuchBus:
        return NoSuchBus(
            f"no bus {address.name!r} in scope {address.scope!r} within your reach. Check the name and the scope; a kernel's "
            "bus and an unnamed one are entered with the handle that their maker gives you."
        )

    def _part(self, state: Conn, bus: BusState, now: float) -> list[Effect]:
        """A connection has no more to do with a bus."""
        bus.unsubscribe(state.id)
        bus.watchers.discard(state.id)
        state.open.pop(bus.number, None)
        state.behind.discard(bus.number)
        state.permits.pop(bus.address, None)
        if not bus.creator or bus.creator == state.who.id:
            bus.idle_since = now
        if state.id not in bus.owners:
            return []
        was_first = bus.owners[0] == state.id
        bus.owners.remove(state.id)
        return [*bus.expire_filters(now, "has lost its kernel"), *bus.settled()] if was_first else []

    def _leave(self, state: Conn, frame: frames.Leave, now: float) -> list[Effect]:
        bus = self._access(state, frame.bus).bus
        effects = self._part(state, bus, now)
        bus.presence.leave(state.who.id)
        self._stirred.add(bus)
        if bus.creator == state.who.id:
            effects += self._end(bus, f"its maker has closed {bus.name}")
        return effects

    def _delete(self, state: Conn, frame: frames.Delete) -> list[Effect]:
        bus = self._access(state, frame.bus, write=True).bus
        done = Send(state.id, frames.encode(frames.Done(frame.req)))
        return [done, *self._end(bus, f"{state.who.user or 'someone'} has deleted {bus.name}")]

    def _end(self, bus: BusState, reason: str) -> list[Effect]:
        """A bus is gone, for everyone."""
        self._unload(bus)
        gone = frames.encode(frames.Gone(bus.number, reason))
        conns = []
        for state in self._conns.values():
            if state.open.pop(bus.number, None) is not None:
                state.behind.discard(bus.number)
                state.permits.pop(bus.address, None)
                conns.append(state.id)
        return [*([Deliver(tuple(conns), gone, 1)] if conns else []), Forget(bus.address)]

    def _unload(self, bus: BusState) -> None:
        self._buses.pop(bus.address, None)
        self._by_uri.pop(str(bus.address), None)
        self._numbers.discard(bus.number)
        self._stirred.discard(bus)

    def end_kernel(self, kernel_id: str) -> list[Effect]:
        """A kernel was shut down: its scope ends."""
        self._activity.pop(kernel_id, None)
        ended = [
            bus for bus in self._buses.values() if bus.address.scope == "kernel" and bus.address.owner == kernel_id
        ]
        return [effect for bus in ended for effect in self._end(bus, "its kernel was shut down")]

    def kernel_activity(self, kernel_id: str, activity: str) -> list[Effect]:
        """The server knows that a kernel is "idle", "busy", "restarting" or "dead"."""
        self._activity[kernel_id] = activity
        for bus in self._buses.values():
            bus.presence.kernel(kernel_id, activity)
            if bus.presence.has_changed:
                self._stirred.add(bus)
        return []

    def within_reach(self, conn: int, kept: dict[str, BusSpec]) -> list[str]:
        """Which of these buses a connection may know of, as far as scopes and access lists say."""
        state = self._conns.get(conn)
        return [
            uri
            for uri, spec in sorted(kept.items())
            if state is not None
            and may_enter(Address.parse(uri), state.who, "", self._secret)
            and (allows(spec.readers, state.who) or allows(spec.writers, state.who))
        ]

    def listed(self, conn: int, req: int, kept: dict[str, BusSpec]) -> list[Effect]:
        """What the backends keep; the connection learns of what is within its reach."""
        found = []
        for uri in self.within_reach(conn, kept):
            address, spec = Address.parse(uri), kept[uri]
            live = self._buses.get(address)
            facts = (
                {"participants": len(live.presence), "last": live.log.last}
                if live
                else {"participants": 0, "last": None}
            )
            found.append(
                {
                    "address": uri,
                    "scope": address.scope,
                    "name": address.name,
                    "spec": msgspec.to_builtins(spec),
                    **facts,
                }
            )
        return [Send(conn, frames.encode(frames.Listed(req, found)))]

    # --- writing ----------------------------------------------------------------------------------------------------

    def _rate(self, who: Participant) -> float:
        return self.limits.kernel_publish_rate if who.kind in ("kernel", "server") else self.limits.publish_rate

    def _publish(self, state: Conn, frame: frames.Publish, now: float) -> list[Effect]:
        bus = self._access(state, frame.bus, write=True).bus
        assert state.writer is not None  # it has said hello
        known = bus.known((state.who.id, frame.id))
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
        return bus.publish(state.writer, frame, now)

    def appended(self, entries: Sequence[Entry], offsets: Sequence[int]) -> list[Effect]:
        """The backend has kept these; their writers get their acks, runs of them in one frame."""
        effects: list[Effect] = []
        run: frames.Ok | None = None
        writer = None
        for entry, offset in zip(entries, offsets, strict=True):
            bus = self._by_uri.get(entry.bus)
            if bus is None:
                continue
            bus.accepted(sender_id(entry.sender), entry.id, offset)
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
            bus = self._by_uri.get(entry.bus)
            if bus is not None:
                effects += bus.refuse(sender_id(entry.sender), entry.id, error)
                effects += bus.settled()
        return effects

    def commit(self, entries: Sequence[Entry]) -> list[Effect]:
        """The backend reports these as kept, in order. This, and only this, delivers."""
        effects: list[Effect] = []
        for uri, of_bus in groupby(entries, key=lambda entry: entry.bus):
            bus = self._by_uri.get(uri)
            if bus is not None:
                effects += bus.commit(list(of_bus))
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
        bus = self._buses.get(address)
        if bus is None:
            return []
        return [*bus.filtered(ask, value, error), *bus.settled()]

    # --- reading ----------------------------------------------------------------------------------------------------

    def _subscribe(self, state: Conn, frame: frames.Subscribe) -> list[Effect]:
        bus = self._access(state, frame.bus, read=True).bus
        answer = bus.subscribe(state.id, state.who, frame)
        state.behind.add(bus.number)
        effects: list[Effect] = [Send(state.id, frames.encode(answer))]
        return effects if state.is_blocked else effects + self.drained(state.id)

    def blocked(self, conn: int) -> None:
        """The connection's socket has enough to do: hand it nothing more until `drained`."""
        state = self._conns.get(conn)
        if state is None or state.is_blocked:
            return
        state.is_blocked = True
        for number, access in state.open.items():
            if conn in access.bus.readers:
                access.bus.hold(conn)
                state.behind.add(number)

    def drained(self, conn: int) -> list[Effect]:
        """The socket took what it had: serve what the connection is behind with, up to ``send_bytes``.

        Where that was not all, the shell calls again once it has handed this over (see `is_behind`).
        """
        state = self._conns.get(conn)
        if state is None:
            return []
        state.is_blocked = False
        effects: list[Effect] = []
        left = self.limits.send_bytes
        for number in list(state.behind):
            served, size = state.open[number].bus.serve(conn, left)
            effects += served
            left -= size
            if conn not in state.open[number].bus.behind:
                state.behind.discard(number)
            if left <= 0:
                break
        return effects

    def is_behind(self, conn: int) -> bool:
        """Whether the connection waits for messages that are in a log."""
        state = self._conns.get(conn)
        return state is not None and bool(state.behind)

    # --- presence and time ------------------------------------------------------------------------------------------

    def _set_presence(self, state: Conn, frame: frames.SetPresence) -> list[Effect]:
        bus = self._access(state, frame.bus).bus
        if len(bytes(frame.state)) > self.limits.presence_bytes:
            raise TooLarge(f"presence holds at most {self.limits.presence_bytes} bytes.", limit="presence_bytes")
        if frame.watch is not None:
            if not frame.watch:
                bus.watchers.discard(state.id)
            elif state.open[bus.number].read:
                bus.watchers.add(state.id)
                return [Send(state.id, frames.encode(frames.Presence(bus.number, True, bus.presence.snapshot())))]
            return []
        _any_value.check(frame.state, "presence")
        bus.presence.set(state.who.id, frame.state)
        self._stirred.add(bus)
        return []

    def presence(self) -> list[Effect]:
        """Tell what changed since the last call. The shell decides how often."""
        effects: list[Effect] = []
        for bus in self._stirred:
            diff = bus.presence.diff()
            if diff is not None and bus.watchers:
                frame = frames.encode(frames.Presence(bus.number, False, diff.here, diff.left))
                effects.append(Deliver(tuple(bus.watchers), frame, 1))
        self._stirred.clear()
        return effects

    @property
    def is_stirred(self) -> bool:
        """Whether `presence` may have something to tell."""
        return bool(self._stirred)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed: filters that did not answer, participants that did not come back, buses that nobody uses."""
        effects: list[Effect] = []
        for bus in list(self._buses.values()):
            effects += bus.expire_filters(now)
            effects += bus.settled()
            bus.presence.expire(now - self.limits.gone_seconds)
            if bus.presence.has_changed:
                self._stirred.add(bus)
            if (
                bus.address.unnamed
                and bus.creator not in self._by_participant
                and now - bus.idle_since > self.limits.creator_seconds
            ):
                effects += self._end(bus, f"its maker has gone, and with it the unnamed bus {bus.name}")
            elif not bus.address.unnamed and not bus.in_use and now - bus.idle_since > self.limits.creator_seconds:
                self._unload(bus)  # the backend keeps it; the next to open it loads it
        return effects + self.presence()

    # --- for those who look -----------------------------------------------------------------------------------------

    def connection_of(self, who: Participant) -> int:
        """The connection that ``who`` has now; 0 where it has none."""
        return self._by_participant.get(who.id, 0)

    def counts(self) -> dict[str, Any]:
        return {"connections": len(self._conns), "buses": len(self._buses)}


_any_value = Validator(None)
