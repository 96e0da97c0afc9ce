"""The registry: which buses are loaded, and how a connection opens and leaves one.

A bus is loaded once its backend has opened its log, for every connection that asked for it meanwhile. A named bus is
unloaded when nobody has used it for a while; its backend keeps it. An unnamed bus ends with the participant that made it,
a kernel's bus with its kernel.

A bus outside a participant's reach looks exactly like one that does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from math import inf, nextafter
from weakref import WeakSet

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import UNNAMED, Address, check_name, check_scope, resolve
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import GIVEN, OWNER, BusSpec, Participant, public
from ebus_jupyter.core.protocol.validation import Validator
from ebus_jupyter.errors import EbusError, Forbidden, NoSuchBus, SpecConflict, TooLarge

from .account import Account, Accounts
from .bus import BusState
from .bus_info import BusInfo
from .bus_log import Older
from .capabilities import Capabilities
from .catalogue import Catalogue, spec_size
from .clock import WallClock
from .conn import Access, Conn
from .effects import AlterLog, Authorize, DeleteLog, Deliver, Effect, OpenLog, Send, SendQueued
from .kept import Kept
from .rights import ensure_may_delete, reassess, rights

BUSES_PER_TICK = 500
"""The most buses that one tick looks at: a few milliseconds."""


class BusRegistry:
    """The loaded buses, and the connections' access to them.

    Args:
        connections: The broker's connections, by number.
        by_participant: The number of each participant's connection, by the participant's id.
        limits: The bounds.
        accounts: What each user holds.
        go_on: Called with a connection whose request to open a bus was answered later.
        secret: The key of capabilities; its holder can enter every bus.
        mint: Returns the given number of fresh, unguessable hexadecimal digits.
        clock: The time of day.
        shared: Whether all servers of a hub share the backend. Only then the scope "hub" exists.
        filters: The names of the filters that this server can run.

    Attributes:
        buses: The loaded buses, by URI.
        catalogue: The named buses that the backend keeps.
        presence_dirty: The buses with changes to presence that were not sent yet.
        needs_tick: The buses that have to say anew when time alone changes something in them. The next `tick` asks.
    """

    def __init__(
        self,
        connections: Mapping[int, Conn],
        by_participant: Mapping[str, int],
        limits: Limits,
        accounts: Accounts,
        go_on: Callable[[Conn], None],
        *,
        secret: bytes,
        mint: Callable[[int], str],
        clock: WallClock,
        shared: bool = False,
        filters: Iterable[str] = (),
    ) -> None:
        self.buses: dict[str, BusState] = {}
        self.presence_dirty: set[BusState] = set()
        self.needs_tick: set[BusState] = set()
        self._connections = connections
        self._by_participant = by_participant
        self.catalogue = Catalogue(accounts)
        self._accounts = accounts
        self._go_on = go_on
        self._reserved: dict[Address, tuple[Account, int]] = {}  # for the buses that are being created
        self._limits = limits
        self._capabilities = Capabilities(secret, mint)
        self._mint = mint
        self._clock = clock
        self._deadlines: list[tuple[float, str]] = []  # a heap of times, and of the buses that are due then
        self._shared = shared
        self._filters = frozenset(filters)
        self._numbers: set[int] = set()
        self._loading: dict[Address, list[tuple[int, frames.Open]]] = {}
        self._altering: dict[Address, list[tuple[int, frames.Open]]] = {}
        self._activity: dict[str, str] = {}  # by kernel
        self._opened_by_kernel: dict[str, WeakSet[BusState]] = {}

    # --- opening ----------------------------------------------------------------------------------------------------

    def open(self, conn: Conn, frame: frames.Open, now: float) -> list[Effect]:
        """A connection asks for a bus.

        Raises:
            EbusError: It is refused.
        """
        check_scope(frame.scope)
        if frame.name is None:
            address = resolve(frame.scope, UNNAMED + self._mint(32), conn.who, shared_engine=self._shared)
        else:
            check_name(frame.name.removeprefix(UNNAMED), self._limits.name_chars)
            address = resolve(frame.scope, frame.name, conn.who, owner=frame.owner, shared_engine=self._shared)
        if frame.name is not None and not self._capabilities.admit(address, conn.who, frame.cap):
            raise _out_of_reach(address)
        if conn.authorize and address not in conn.permits:
            conn.opening += 1
            return [Authorize(conn.id, frame, address)]
        return self._enter(conn, frame, address, now)

    def authorized(
        self, conn_id: int, frame: frames.Open, address: Address, read: bool, write: bool, now: float
    ) -> list[Effect]:
        """The authorizer has answered an `Authorize`."""
        conn = self._connections.get(conn_id)
        if conn is None:
            return []
        conn.permits[address] = (read, write)
        conn.opening -= 1
        self._go_on(conn)
        return self._try_enter(conn, frame, address, now)

    def log_opened(
        self, address: Address, kept: Kept | None, error: EbusError | None, now: float, older: Older | None = None
    ) -> list[Effect]:
        """The backend has performed an `OpenLog`.

        Args:
            address: The bus.
            kept: What the backend keeps of it; None where it keeps nothing and was given no spec.
            error: The reason why the log could not be opened.
            now: The time.
            older: Reads what ``kept`` leaves out; None: nothing is left out.
        """
        waiting = self._loading.pop(address, [])
        reserved = self._reserved.pop(address, None)
        if reserved is not None:
            account, size = reserved
            account.add("buses", -1)
            account.add("specs", -size)
        if kept is not None and error is None:
            try:
                bus = self._load(address, kept, now, older)
            except EbusError as unusable:  # it was stored by another version
                error = unusable
            else:
                first = self._connections.get(waiting[0][0]) if waiting else None
                if address.unnamed and first is not None:
                    bus.creator, bus.creator_kernel = first.who.id, first.who.kernel_id
        effects: list[Effect] = []
        for conn_id, frame in waiting:
            conn = self._connections.get(conn_id)
            if conn is None:
                continue
            conn.opening -= 1
            self._go_on(conn)
            may_create = frame.create and conn.may_write and conn.permit(address)[1] and not address.unnamed
            if kept is not None and not any(rights(conn, conn.permit(address), kept.spec)):
                conn.permits.pop(address, None)  # answered here, as where there is no log
                effects.append(Send(conn_id, frames.encode(frames.refusal(_out_of_reach(address), req=frame.req))))
            elif error is None and (kept is not None or may_create):
                # Where there is no log, the first connection in the queue could not create the bus; this one can.
                effects += self._try_enter(conn, frame, address, now)
            else:
                conn.permits.pop(address, None)
                refusal = frames.refusal(error or _out_of_reach(address), req=frame.req)
                effects.append(Send(conn_id, frames.encode(refusal)))
        return effects

    def _load(self, address: Address, kept: Kept, now: float, older: Older | None) -> BusState:
        info = BusInfo.of(address, self._new_number(), kept.spec, self._limits)
        account = self._accounts.of_user(kept.spec.maker, now)
        bus = BusState(info, kept, self._by_participant, self._clock, account, older)
        bus.idle_since = now
        if address.unnamed:
            bus.account.add("buses", 1)
            bus.account.add("specs", spec_size(kept.spec))
        else:
            self.catalogue.add(address, kept.spec, now)
        self.buses[info.uri] = bus
        self.needs_tick.add(bus)
        return bus

    def _new_number(self) -> int:
        # Random, so that a number does not tell how many buses there are.
        while (number := int(self._mint(8), 16) & 0x7FFFFFFF) in self._numbers:
            continue
        self._numbers.add(number)
        return number

    def _try_enter(self, conn: Conn, frame: frames.Open, address: Address, now: float) -> list[Effect]:
        try:
            return self._enter(conn, frame, address, now)
        except EbusError as error:
            conn.permits.pop(address, None)
            return [Send(conn.id, frames.encode(frames.refusal(error, req=frame.req)))]

    def _enter(self, conn: Conn, frame: frames.Open, address: Address, now: float) -> list[Effect]:
        bus = self.buses.get(str(address))
        read, write = rights(conn, conn.permit(address), BusSpec())
        if not read and not write:
            raise _out_of_reach(address)
        if bus is None:
            return self._request_log(conn, frame, address, may_create=write)
        info = bus.info
        may_create = write
        read, write = rights(conn, conn.permit(address), info.spec)
        if not read and not write:
            return self._hide(conn, frame, address, may_create=may_create)
        spec = info.spec.join(frame.spec, info.name)
        if spec is not info.spec:
            if info.number not in conn.open:
                self._check_limits(conn)
            return self._request_change(conn, frame, bus, spec, self._clock.stamp(now), may_alter=write)
        if info.number not in conn.open:
            self._check_limits(conn)
            bus.came_again(conn.who.id)
        if frame.spec.get("filter") == OWNER:
            self._offer_filter(conn, bus)
        if info.number not in conn.open:
            conn.account.take("opened", 1)
        conn.open[info.number] = Access(bus, read, write)
        bus.presence.join(public(conn.who), self._clock.stamp(now))
        self.presence_dirty.add(bus)
        if conn.who.kernel_id:
            self._opened_by_kernel.setdefault(conn.who.kernel_id, WeakSet()).add(bus)
            bus.presence.kernel(conn.who.kernel_id, self._activity.get(conn.who.kernel_id, ""))
        cap = self._capabilities.of(address)
        spec_fields = msgspec.to_builtins(info.spec)
        answer = frames.Opened(frame.req, info.number, info.uri, bus.epoch, bus.log.last, spec_fields, cap)
        return [Send(conn.id, frames.encode(answer))]

    def _hide(self, conn: Conn, frame: frames.Open, address: Address, *, may_create: bool) -> list[Effect]:
        """Answer as if the bus did not exist and could not be made: after the same checks, and in the same order."""
        if frame.create and may_create:
            self._new_spec(frame, conn.who)
        self._check_limits(conn, loads=True)
        conn.permits.pop(address, None)
        refusal = frames.refusal(_out_of_reach(address), req=frame.req)
        return [SendQueued(conn.id, frames.encode(refusal))]

    def _request_log(self, conn: Conn, frame: frames.Open, address: Address, *, may_create: bool) -> list[Effect]:
        spec = None
        if frame.create and may_create and (frame.name is None or not address.unnamed):
            spec = self._new_spec(frame, conn.who)
        self._check_limits(conn, loads=True)
        if spec is not None and str(address) not in self.catalogue and address not in self._loading:
            size = spec_size(spec)
            conn.account.check("specs", size)
            conn.account.take("buses", 1)
            conn.account.add("specs", size)
            self._reserved[address] = conn.account, size
        conn.opening += 1
        waiting = self._loading.setdefault(address, [])
        waiting.append((conn.id, frame))
        return [OpenLog(address, spec, self._mint(16))] if len(waiting) == 1 else []

    # --- altering ---------------------------------------------------------------------------------------------------

    def _request_change(
        self, conn: Conn, frame: frames.Open, bus: BusState, spec: BusSpec, when: float, *, may_alter: bool
    ) -> list[Effect]:
        """An opener asks for a compatible change: the log gets the new ``spec`` before anyone hears of it."""
        info = bus.info
        if not may_alter or (info.spec.filter == OWNER and info.spec.maker != conn.who.user):
            raise SpecConflict(
                f"{info.name} has another specification, and who may not write to it, or whose filter it is not, can't alter "
                "it. Open it without a type and a size."
            )
        BusSpec.create(msgspec.to_builtins({field: getattr(spec, field) for field in GIVEN}), self._limits)
        for schema in (spec.schema, spec.emits):
            Validator.of(schema)
        waiting = self._altering.setdefault(info.address, [])
        waiting.append((conn.id, frame))
        if len(waiting) > 1:
            return []
        return [AlterLog(info.address, msgspec.structs.replace(spec, version=info.spec.version + 1, altered=when))]

    def log_altered(self, change: AlterLog, error: EbusError | None, now: float) -> list[Effect]:
        """The backend has performed an `AlterLog`, or failed with ``error``. All who have the bus open are told."""
        address, spec = change.address, change.spec
        waiting = self._altering.pop(address, [])
        effects: list[Effect] = []
        bus = self.buses.get(str(address))
        if error is None and not address.unnamed and str(address) in self.catalogue:
            self.catalogue.add(address, spec, now)
        if bus is not None and error is None:
            if address.unnamed:
                bus.account.add("specs", spec_size(spec) - spec_size(bus.info.spec))
            bus.alter(spec)
            conns = tuple(conn.id for conn in self._connections.values() if bus.info.number in conn.open)
            if conns:
                fields = msgspec.to_builtins(spec)
                told = frames.Opened(0, bus.info.number, bus.info.uri, bus.epoch, bus.log.last, fields)
                effects.append(Deliver(conns, frames.encode(told), 1))
        for conn_id, frame in waiting:
            conn = self._connections.get(conn_id)
            if conn is None:
                continue
            if error is None:
                effects += self._try_enter(conn, frame, address, now)
            else:
                effects.append(Send(conn_id, frames.encode(frames.refusal(error, req=frame.req))))
        return effects

    def _check_limits(self, conn: Conn, *, loads: bool = False) -> None:
        # Before a bus is created, not after: a refused request must leave nothing behind.
        limits = self._limits
        conn.account.check("opened", 1)
        if len(conn.open) >= limits.buses_per_participant:
            raise TooLarge(
                f"this connection has {limits.buses_per_participant} buses open (the server's limit "
                "`buses_per_participant`).",
                limit="buses_per_participant",
            )
        if loads and len(self.buses) + len(self._loading) >= limits.buses:
            raise TooLarge(f"this server has {limits.buses} buses open (its limit `buses`).", limit="buses")

    def _new_spec(self, frame: frames.Open, who: Participant) -> BusSpec:
        spec = BusSpec.create(frame.spec, self._limits)
        for schema in (spec.schema, spec.emits):
            Validator.of(schema)  # raises where the schema cannot be used
        if spec.filter not in (None, OWNER) and spec.filter not in self._filters:
            known = ", ".join(sorted(self._filters)) or "none"
            raise SpecConflict(
                f"this server has no filter {spec.filter!r} (it has: {known}). Filters in the server are installed, not sent."
            )
        return msgspec.structs.replace(spec, maker=who.user)

    def _offer_filter(self, conn: Conn, bus: BusState) -> None:
        maker = bus.info.spec.maker
        if maker != conn.who.user:
            raise Forbidden(f"{bus.info.name} is filtered by {maker or 'another user'}; open it without filter=.")
        bus.add_filter_owner(conn.id)

    # --- leaving and ending -----------------------------------------------------------------------------------------

    def leave(self, conn: Conn, number: int, now: float) -> list[Effect]:
        """A participant leaves a bus. An unnamed bus ends when its creator leaves."""
        bus = conn.access(number)
        effects = self._release(conn, bus, now)
        bus.presence.leave(conn.who.id)
        self.presence_dirty.add(bus)
        if bus.creator == conn.who.id:
            effects += self._end(bus, f"its maker has closed {bus.info.name}")
        return effects

    def disconnected(self, conn: Conn, now: float) -> list[Effect]:
        """A connection has ended. Its participant is away from each bus, until it opens the bus on a newer connection.

        To be called before a newer connection of the participant opens anything: it need not open what this one had.
        """
        effects: list[Effect] = []
        for access in list(conn.open.values()):
            effects += self._release(conn, access.bus, now)
            access.bus.presence.away(conn.who.id, now)
            self.presence_dirty.add(access.bus)
        return effects

    def opened_by(self, conn_id: int) -> list[Address]:
        """The buses that a connection has open."""
        conn = self._connections.get(conn_id)
        return [] if conn is None else [access.bus.info.address for access in conn.open.values()]

    def reassess(
        self,
        conn_id: int,
        who: Participant,
        may_write: bool,
        permits: Mapping[Address, tuple[bool, bool]],
        now: float,
    ) -> list[Effect]:
        """The rights of a connection were looked at again: what it may no longer do ends.

        A bus that it may no longer read is closed for it. Its presence on one that it may no longer write to is empty.

        Args:
            conn_id: The connection.
            who: What it is authenticated as now: the same user, perhaps with another display name or other groups.
            may_write: Whether it may write at all.
            permits: The authorizer's answers about the buses that it has open. Those that it was not asked about stay.
            now: The time.
        """
        conn = self._connections.get(conn_id)
        if conn is None:
            return []
        lost, silenced = reassess(conn, who, may_write, permits, self._capabilities.admit)
        effects: list[Effect] = []
        for bus in lost:
            gone = frames.Gone(bus.info.number, f"{conn.who.user or 'this participant'} may no longer read it")
            effects += [*self._release(conn, bus, now), Send(conn.id, frames.encode(gone))]
            bus.presence.leave(conn.who.id)
        for bus in silenced:
            bus.presence.set(conn.who.id, frames.NIL)
        self.presence_dirty.update(lost, silenced)
        return effects

    def _release(self, conn: Conn, bus: BusState, now: float) -> list[Effect]:
        """A connection no longer has the bus open."""
        bus.unsubscribe(conn.id)
        bus.presence.watch(conn.who.id, False)
        self.needs_tick.add(bus)
        conn.forget(bus)
        if not bus.creator or bus.creator == conn.who.id:
            bus.idle_since = now
        return bus.remove_filter_owner(conn.id, now)

    def delete(self, conn: Conn, frame: frames.Delete) -> list[Effect]:
        """A connection deletes a bus, for everyone."""
        bus = conn.access(frame.bus)
        ensure_may_delete(conn.who, conn.open[frame.bus])
        return self._end(bus, f"{conn.who.user or 'someone'} has deleted {bus.info.name}", (conn.id, frame.req))

    def _end(self, bus: BusState, reason: str, request: tuple[int, int] | None = None) -> list[Effect]:
        self._unload(bus)
        conns = tuple(conn.id for conn in self._connections.values() if conn.forget(bus))
        gone = frames.encode(frames.Gone(bus.info.number, reason))
        return [DeleteLog(bus.info.address, Deliver(conns, gone, 1) if conns else None, request)]

    def log_deleted(self, deletion: DeleteLog, error: EbusError | None) -> list[Effect]:
        """The backend has performed a `DeleteLog`, or failed with ``error``."""
        effects: list[Effect] = []
        if error is None:
            self.catalogue.remove(str(deletion.address))
        if deletion.request is not None:
            conn, req = deletion.request
            answer = frames.Done(req) if error is None else frames.refusal(error, req=req)
            effects.append(Send(conn, frames.encode(answer)))
        if deletion.notice is not None:
            effects.append(deletion.notice)
        return effects

    def _unload(self, bus: BusState) -> None:
        if self.buses.pop(bus.info.uri, None) is not None:
            bus.release()
            if bus.info.address.unnamed:
                bus.account.add("buses", -1)
                bus.account.add("specs", -spec_size(bus.info.spec))
        self._numbers.discard(bus.info.number)
        self.presence_dirty.discard(bus)
        self.needs_tick.discard(bus)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed: end the unnamed buses whose creator is gone, and unload the buses that nobody uses.

        Only the buses that are due are looked at, `BUSES_PER_TICK` of them at most; the others follow in the next tick.
        """
        effects: list[Effect] = []
        left = BUSES_PER_TICK
        while self.needs_tick and left:
            effects += self._tick_bus(self.needs_tick.pop(), now)
            left -= 1
        while self._deadlines and self._deadlines[0][0] <= now and left:
            at, uri = heappop(self._deadlines)
            bus = self.buses.get(uri)
            if bus is not None and bus.due == at:
                bus.due = None
                effects += self._tick_bus(bus, now)
                left -= 1
        return effects

    def _tick_bus(self, bus: BusState, now: float) -> list[Effect]:
        effects = bus.tick(now)
        if bus.presence.has_changed:
            self.presence_dirty.add(bus)
        due = bus.next_deadline()
        is_named = not bus.info.address.unnamed
        if bus.creator not in self._by_participant if not is_named else not bus.in_use:
            expires = bus.idle_since + self._limits.creator_seconds
            if now > expires and is_named:
                self._unload(bus)  # the backend keeps it, and it is loaded again when it is next opened
                return effects
            if now > expires:
                return [*effects, *self._end(bus, f"its maker has gone, and with it the unnamed bus {bus.info.name}")]
            due = expires if due is None else min(due, expires)
        elif due is None and not bus.presence:
            due = now + self._limits.creator_seconds  # in use by writes in flight alone
        if due is not None and (bus.due is None or due < bus.due or bus.due <= now):
            bus.due = max(due, nextafter(now, inf))
            heappush(self._deadlines, (bus.due, bus.info.uri))
        return effects

    # --- kernels ----------------------------------------------------------------------------------------------------

    def end_kernel(self, kernel_id: str) -> list[Effect]:
        """A kernel was shut down. The buses in its scope end with it, and its unnamed ones, and all capabilities for them."""
        self._activity.pop(kernel_id, None)
        self._opened_by_kernel.pop(kernel_id, None)
        self._capabilities.end_kernel(kernel_id)
        ended = [
            bus
            for bus in self.buses.values()
            if bus.creator_kernel == kernel_id
            or (bus.info.address.scope == "kernel" and bus.info.address.owner == kernel_id)
        ]
        effects = [effect for bus in ended for effect in self._end(bus, "its kernel was shut down")]
        effects += [
            DeleteLog(self.catalogue[uri].address)
            for uri in self.catalogue.in_scope("kernel", kernel_id)
            if uri not in {bus.info.uri for bus in ended}
        ]
        return effects

    def kernel_activity(self, kernel_id: str, activity: str) -> None:
        """A kernel is "idle", "busy", "restarting" or "dead", as the server knows."""
        self._activity[kernel_id] = activity
        opened = self._opened_by_kernel.pop(kernel_id, ())
        present = [bus for bus in opened if bus.presence.kernel(kernel_id, activity)]
        if present:
            self._opened_by_kernel[kernel_id] = WeakSet(present)
        self.presence_dirty.update(bus for bus in present if bus.presence.has_changed)


def _out_of_reach(address: Address) -> NoSuchBus:
    return NoSuchBus(
        f"no bus {address.name!r} in scope {address.scope!r} within your reach. Check the name and the scope; a kernel's "
        "bus and an unnamed one are entered with the handle that their maker gives you."
    )
