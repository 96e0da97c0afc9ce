"""Which buses there are, who is on them, and how a connection comes to one and leaves it.

A bus begins when its backend has opened it (`loaded`), for all who asked meanwhile. A named one is unloaded when nobody
has used it for a while: its backend keeps it. An unnamed one ends with its maker, a kernel's with its kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import UNNAMED, Address, check_name, check_scope, may_enter, resolve
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import OWNER, BusSpec, Participant, allows, public
from ebus_jupyter.core.protocol.validation import Validator
from ebus_jupyter.errors import EbusError, Forbidden, NoSuchBus, SpecConflict, TooLarge

from .admission import Writer
from .bus import BusState
from .effects import Authorize, DeleteLog, Deliver, Effect, OpenLog, Send
from .entry import Kept


class Access(msgspec.Struct):
    """What one connection may do on one bus that it has opened."""

    bus: BusState
    read: bool
    write: bool


class Conn(msgspec.Struct):
    """One connection. ``asks``: an authorizer is to be asked for each bus. ``may_write`` False: it only looks on.

    ``unread``: frames that came and were not taken yet, the next one last.
    """

    id: int
    who: Participant
    asks: bool = False
    may_write: bool = True
    writer: Writer | None = None
    writing_paused: bool = False
    open: dict[int, Access] = {}
    catching_up: set[int] = set()
    unread: list[frames.ClientFrame] = []
    permits: dict[Address, tuple[bool, bool]] = {}
    tokens: float = 0.0
    refilled: float = 0.0

    def permit(self, address: Address) -> tuple[bool, bool]:
        """What the authorizer lets it do there: read, write. Nothing is remembered of a bus that it does not hold open."""
        return self.permits.get(address, (not self.asks, not self.asks))


class BusRegistry:
    """The broker's tables, and the part of it that opens and closes buses; `BrokerState` is the rest.

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
        self._buses: dict[str, BusState] = {}  # by URI
        self._numbers: set[int] = set()
        self._loading: dict[Address, list[tuple[int, frames.Open]]] = {}
        self._activity: dict[str, str] = {}
        self._presence_dirty: set[BusState] = set()
        self._ticking: set[BusState] = set()  # those in which time may change something
        self._visited: dict[str, set[BusState]] = {}  # by kernels

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
            return [Send(state.id, frames.encode(frames.refusal(error, req=frame.req)))]

    def _enter(self, state: Conn, frame: frames.Open, address: Address, now: float) -> list[Effect]:
        bus = self._buses.get(str(address))
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
            return [OpenLog(address, spec, self._mint(16))] if len(waiting) == 1 else []
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
        self._presence_dirty.add(bus)
        if state.who.kernel_id:
            self._visited.setdefault(state.who.kernel_id, set()).add(bus)
            bus.presence.kernel(state.who.kernel_id, self._activity.get(state.who.kernel_id, ""))
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
            bus.owners += (state.id,)

    def log_opened(self, address: Address, kept: Kept | None, error: EbusError | None, now: float) -> list[Effect]:
        """The backend has opened the bus, or found none (``kept`` None), or failed."""
        waiting = self._loading.pop(address, [])
        effects: list[Effect] = []
        if kept is not None and error is None:
            try:
                bus = BusState(address, self._number(), kept, self.limits, self._by_participant)
            except EbusError as unusable:  # kept by another version
                error = unusable
            else:
                self._buses[bus.uri] = bus
                self._ticking.add(bus)
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
                effects.append(Send(conn, frames.encode(frames.refusal(error, req=frame.req))))
            elif kept is None and frame.create and state.may_write and state.permit(address)[1] and not address.unnamed:
                effects += self._try_enter(
                    state, frame, address, now
                )  # who came first could not create it; this one can
            elif kept is None:
                state.permits.pop(address, None)
                effects.append(Send(conn, frames.encode(frames.refusal(self._unseen(address), req=frame.req))))
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
        bus.presence.watch(state.who.id, False)
        self._ticking.add(bus)
        state.open.pop(bus.number, None)
        state.catching_up.discard(bus.number)
        state.permits.pop(bus.address, None)
        if not bus.creator or bus.creator == state.who.id:
            bus.idle_since = now
        if state.id not in bus.owners:
            return []
        was_first = bus.owners[0] == state.id
        bus.owners = tuple(owner for owner in bus.owners if owner != state.id)
        return [*bus.filter_lost(now, "has lost its kernel"), *bus.settled()] if was_first else []

    def _leave(self, state: Conn, frame: frames.Leave, now: float) -> list[Effect]:
        bus = self._access(state, frame.bus).bus
        effects = self._part(state, bus, now)
        bus.presence.leave(state.who.id)
        self._presence_dirty.add(bus)
        if bus.creator == state.who.id:
            effects += self._end(bus, f"its maker has closed {bus.name}")
        return effects

    def _delete(self, state: Conn, frame: frames.Delete) -> list[Effect]:
        bus = self._access(state, frame.bus, write=True).bus
        return self._end(bus, f"{state.who.user or 'someone'} has deleted {bus.name}", (state.id, frame.req))

    def _end(self, bus: BusState, reason: str, asked: tuple[int, int] | None = None) -> list[Effect]:
        """A bus is gone, for everyone."""
        self._unload(bus)
        gone = frames.encode(frames.Gone(bus.number, reason))
        conns = []
        for state in self._conns.values():
            if state.open.pop(bus.number, None) is not None:
                state.catching_up.discard(bus.number)
                state.permits.pop(bus.address, None)
                conns.append(state.id)
        return [DeleteLog(bus.address, Deliver(tuple(conns), gone, 1) if conns else None, asked)]

    def log_deleted(self, of: DeleteLog, error: EbusError | None) -> list[Effect]:
        """The backend has deleted the bus, or could not."""
        effects: list[Effect] = []
        if of.asked is not None:
            conn, req = of.asked
            answer = frames.Done(req) if error is None else frames.refusal(error, req=req)
            effects.append(Send(conn, frames.encode(answer)))
        return effects if of.told is None else [*effects, of.told]

    def _unload(self, bus: BusState) -> None:
        self._buses.pop(bus.uri, None)
        self._numbers.discard(bus.number)
        self._presence_dirty.discard(bus)
        self._ticking.discard(bus)

    def end_kernel(self, kernel_id: str) -> list[Effect]:
        """A kernel was shut down: its scope ends."""
        self._activity.pop(kernel_id, None)
        self._visited.pop(kernel_id, None)
        ended = [
            bus for bus in self._buses.values() if bus.address.scope == "kernel" and bus.address.owner == kernel_id
        ]
        return [effect for bus in ended for effect in self._end(bus, "its kernel was shut down")]

    def kernel_activity(self, kernel_id: str, activity: str) -> list[Effect]:
        """The server knows that a kernel is "idle", "busy", "restarting" or "dead"."""
        self._activity[kernel_id] = activity
        visited = self._visited.pop(kernel_id, set())
        here = {bus for bus in visited if bus.presence.kernel(kernel_id, activity)}
        if here:
            self._visited[kernel_id] = here
        self._presence_dirty |= {bus for bus in here if bus.presence.has_changed}
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
            live = self._buses.get(uri)
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
