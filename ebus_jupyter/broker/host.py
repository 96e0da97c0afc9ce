"""The host: performs the effects that the state machine in `core.broker` decides on.

Frames are handled for half a millisecond at a time (`time_slice`), so that notebooks on the same server do not wait for a
busy bus. Everything that touches a log waits in one queue (`storage_queue`). What is sent is collected for each iteration
of the event loop (`connections`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from ebus_jupyter.backends.base import Backend
from ebus_jupyter.core.broker.effects import Authorize, AuthorizeList, Deliver, Effect, Filter, Hangup, Send
from ebus_jupyter.core.broker.state import BrokerState
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import ConnectionLost, EbusError

from .connections import Connections
from .figures import Figures, Timing
from .filters import Filters, ServerFilter
from .outlet import Authorizer, Connection, Outlet
from .storage_queue import JOBS, StorageQueue
from .time_slice import SLICE_SECONDS, TimeSlice

TICK_SECONDS = 0.25
PRESENCE_SECONDS = 0.05

DRAIN_SECONDS = 3.0
"""How long a broker that is closed waits for its storage: a disk that hangs does not keep a server from ending."""

GOODBYE_SECONDS = 1.0
"""How long it waits for its clients' sockets to take the last answers. A client that misses them repeats its writes."""

DRAIN_POLL_SECONDS = 0.002

SMALL_BYTES = 1 << 16
"""The size up to which a lone write is appended at once. A larger one is released before it is appended, which saves a copy."""


class Broker:
    """All buses of one process.

    Args:
        durable: Keeps the named buses. Default: memory, until the process ends.
        limits: The bounds.
        secret: The key of capabilities. Where it stays the same over a restart, the capabilities that pages hold stay valid.
            Default: a new one.
        clock: Seconds, of any clock that only goes forward.
        wall: Seconds since the epoch.
        shared: Whether ``durable`` is shared by all servers of a hub.
        filters: The server's filters, by name.
        log: Where failures are reported.
        slice_seconds: How long frames of all connections together are handled before other users of the event loop run.

    Attributes:
        state: The state machine.
    """

    def __init__(
        self,
        durable: Backend | None = None,
        *,
        limits: Limits | None = None,
        secret: bytes | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        shared: bool = False,
        filters: Mapping[str, ServerFilter] | None = None,
        log: logging.Logger | None = None,
        slice_seconds: float = SLICE_SECONDS,
    ) -> None:
        self.limits = limits or Limits()
        self._clock = clock
        self._wall = wall
        self._log = log or logging.getLogger("ebus_jupyter")
        self.state = BrokerState(
            broker=secrets.token_hex(8),
            secret=secret or secrets.token_bytes(32),
            mint=lambda digits: secrets.token_hex((digits + 1) // 2)[:digits],
            limits=self.limits,
            shared=shared,
            filters=filters or {},
        )
        self._read_wall_clock()
        self._filters = Filters(filters or {}, self.limits.filter_seconds, self._log)
        self._connections = Connections(self.state, self, self.limits, clock, self._log)
        self._storage = StorageQueue(self.state, self, durable, self.limits, clock, self._log)
        self._last_id = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._presence_timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slice_seconds = slice_seconds
        self._slice: TimeSlice | None = None
        self._closing = False
        self._is_receiving = False
        self._received_bytes = 0
        self._receiving = Timing()
        self._unread: dict[int, asyncio.Future[None]] = {}  # done when a connection may be read from again
        self._has_work = asyncio.Event()

    def keep_in(self, durable: Backend) -> None:
        """Keep the named buses in ``durable``. Before `start`."""
        self._storage.durable = durable

    # --- lifecycle --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to work. Connections may be attached from here on."""
        self._loop = asyncio.get_running_loop()
        self._slice = TimeSlice(self._loop, self._slice_seconds, time.monotonic)
        self._connections.start(self._loop, self._slice)
        self._storage.start()
        for uri, spec in (await self._storage.durable.buses()).items():
            address = Address.parse(uri)
            if address.scope == "kernel":  # its kernel ended with the previous server
                await self._storage.durable.delete(uri)
            else:
                self.state.registry.catalogue.add(address, spec, self._clock())
        self._spawn(self._storage.work(self._slice))
        self._spawn(self._work(self._slice))
        self._spawn(self._tick())

    async def aclose(self) -> None:
        """Drain, say goodbye to the clients, and release everything. Safe to call twice.

        Whatever has arrived is handled, committed and answered before its connection is closed, within `DRAIN_SECONDS`. What
        arrives from now on is not taken in: its client has no answer, and repeats it to the next broker, which has not seen
        it.
        """
        if self._closing:
            return
        self._closing = True
        outlets = self._connections.outlets()
        await self._until(DRAIN_SECONDS, lambda: not self._storage.has_work and not self._has_unread())
        bye = frames.encode(frames.Bye("closed", "the server is shutting down; the client comes back when it does."))
        for conn_id in self._connections.ids():
            self.perform([Send(conn_id, bye), Hangup(conn_id)])
        self.flush()
        await self._until(GOODBYE_SECONDS, lambda: not any(outlet.buffered() for outlet in outlets))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._storage.aclose()

    def _has_unread(self) -> bool:
        return any(self.state.has_more(conn_id) for conn_id in self._connections.ids())

    async def _until(self, seconds: float, is_done: Callable[[], bool]) -> None:
        """Wait until ``is_done()``, at most so many seconds."""
        deadline = time.monotonic() + seconds
        while not is_done() and time.monotonic() < deadline:
            await asyncio.sleep(DRAIN_POLL_SECONDS)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._loop is not None, "start() comes first"
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("ebus: a broker task failed; please report this", exc_info=task.exception())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._read_wall_clock()
            self.perform(self.state.tick(self._clock()))

    def _read_wall_clock(self) -> None:
        self.state.clock.offset = self._wall() - self._clock()

    # --- connections ------------------------------------------------------------------------------------------------

    def attach(
        self,
        who: Participant,
        outlet: Outlet,
        *,
        may_write: bool = True,
        authorize: Authorizer | None = None,
        ip: str = "",
    ) -> Connection:
        """A client has connected and authenticated as ``who``.

        Args:
            who: What the client has authenticated as; its ``id`` is left empty.
            outlet: The way out to the client.
            may_write: False for a client that may only read.
            authorize: Asked about each bus that the client opens.
            ip: The address that the client connects from, for the server's filters.

        Raises:
            ConnectionLost: The broker has closed, or is about to.
        """
        if self._closing:  # all clients were told goodbye, and nothing would ever answer this one
            raise ConnectionLost("the server is shutting down.")
        self._last_id += 1
        conn = Connection(self, self._last_id, outlet, authorize, ip)
        self._connections.add(conn)
        self.perform(
            self.state.connect(conn.id, who, self._clock(), may_write=may_write, authorize=authorize is not None)
        )
        return conn

    def receive(self, conn_id: int, data: bytes) -> Awaitable[None] | None:
        """See `Connection.receive`."""
        time_slice = self._slice
        assert time_slice is not None, "start() comes first"
        if self._closing:
            return None
        began = time_slice.clock()
        is_quiet = time_slice.begin()
        self._received_bytes += len(data)
        self._is_receiving = True  # most often, nothing is left for a later iteration of the event loop
        try:
            self.perform(self.state.receive(conn_id, data, self._clock()))
            if self.state.agenda and not time_slice.is_over():
                self._take_turns(time_slice)
            has_more = self.state.has_more(conn_id)
            if is_quiet and not has_more and len(data) <= SMALL_BYTES:
                self._storage.append_now()
        finally:
            self._is_receiving = False
            self._schedule_rest()
            self._receiving.add(time_slice.clock() - began)
        if has_more:
            assert self._loop is not None
            return self._unread.setdefault(conn_id, self._loop.create_future())
        return time_slice.next_slice() if time_slice.is_over() else None

    def _take_turns(self, time_slice: TimeSlice) -> bool:
        """Work on the agenda until the time slice is over. Returns whether there is anything left that can be done now."""
        while True:
            conn_id, effects = self.state.take_turn(self._clock())
            if not conn_id:
                return False
            self.perform(effects)
            if conn_id in self._unread and not self.state.has_more(conn_id):
                self._read_on(conn_id)
            if time_slice.is_over():
                return bool(self.state.agenda)

    def _read_on(self, conn_id: int) -> None:
        waits = self._unread.pop(conn_id, None)
        if waits is not None and not waits.done():
            waits.set_result(None)

    async def _work(self, time_slice: TimeSlice) -> None:
        """Work on the agenda, a time slice at a time. What waits for a user's rate is tried again when that is refilled."""
        assert self._loop is not None
        while True:
            if not self.state.agenda:
                self._has_work.clear()
                await self._has_work.wait()
            if time_slice.is_over():
                await asyncio.shield(time_slice.next_slice())
            began = time_slice.clock()
            try:
                can_go_on = self._take_turns(time_slice)
            except Exception:  # a bug of ours: the other connections go on
                self._log.exception("ebus: a job of the broker failed; please report this")
                can_go_on = False
            self._receiving.add(time_slice.clock() - began)
            self._schedule_rest()
            if not can_go_on:
                self._has_work.clear()
                wait = self.state.agenda.wait() if self.state.agenda else None
                timer = None if wait is None else self._loop.call_later(max(wait, 0.001), self._has_work.set)
                await self._has_work.wait()
                if timer is not None:
                    timer.cancel()

    def hung_up(self, conn_id: int) -> None:
        """See `Connection.hung_up`."""
        self.state.hung_up(conn_id)
        self.perform([])

    def detach(self, conn_id: int) -> None:
        """See `Connection.close`."""
        self._connections.remove(conn_id)
        self._read_on(conn_id)

    def kick(self, who: str, text: str) -> int:
        """End all connections of a user, or one connection by its participant's id; see `BrokerState.kick`.

        Returns:
            How many were ended.
        """
        count, effects = self.state.kick(who, text, self._clock())
        self.perform(effects)
        return count

    @property
    def durable(self) -> Backend:
        """What keeps the named buses."""
        return self._storage.durable

    # --- kernels ----------------------------------------------------------------------------------------------------

    def kernel_stopped(self, kernel_id: str) -> None:
        """A kernel was shut down: its scope ends, and the logs in it are deleted."""
        self.perform(self.state.registry.end_kernel(kernel_id))

    def kernel_activity(self, kernel_id: str, activity: str) -> None:
        """A kernel is "idle", "busy", "restarting" or "dead"."""
        self.state.registry.kernel_activity(kernel_id, activity)
        self._schedule_presence()

    # --- inspection -------------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """True from `start` to `aclose`, while its tasks run."""
        return bool(self._tasks) and not self._closing

    @property
    def storage_failure(self) -> EbusError | None:
        """Why the last commit of named buses failed; None where it did not."""
        return self._storage.failure

    def figures(self) -> Figures:
        """What the broker has done since its start, and what it has now."""
        connections, storage = self._connections, self._storage
        return Figures(
            connections=self.state.connections_by_kind(),
            buses=len(self.state.registry.buses),
            subscriptions=sum(len(bus.subscribers) for bus in self.state.registry.buses.values()),
            writes=storage.writes,
            refusals=connections.refusals,
            lags=connections.lags,
            received_bytes=self._received_bytes,
            sent_bytes=connections.sent_bytes,
            receiving=self._receiving,
            committing=storage.committing,
            delivering=connections.delivering,
        )

    # --- effects ----------------------------------------------------------------------------------------------------

    def perform(self, effects: list[Effect]) -> None:
        """Perform ``effects``, in order."""
        connections, jobs = self._connections, self._storage.jobs
        for effect in effects:
            if isinstance(effect, JOBS):  # by far the most frequent: one for each write
                jobs.append(effect)
            elif isinstance(effect, Deliver):
                connections.deliver(effect)
            elif isinstance(effect, Send):
                connections.send(effect.conn, effect.frame)
            elif isinstance(effect, Authorize):
                self._spawn(self._authorize(effect))
            elif isinstance(effect, AuthorizeList):
                self._spawn(self._authorize_list(effect))
            elif isinstance(effect, Filter):
                self._spawn(self._filter(effect))
            else:
                connections.hang_up(effect.conn)
                self._read_on(effect.conn)
        if not self._is_receiving:
            self._schedule_rest()

    def _schedule_rest(self) -> None:
        """Have everything that was queued done in the next iteration of the event loop."""
        if self._storage.jobs:
            self._storage.wake()
        if self.state.agenda and not self._has_work.is_set():
            self._has_work.set()
        self._connections.schedule_flush()
        if self.state.registry.presence_dirty:
            self._schedule_presence()

    def flush(self) -> None:
        """Send what waits to be sent, now."""
        self._connections.flush()
        if self.state.agenda:
            self._has_work.set()

    def _schedule_presence(self) -> None:
        if self.state.presence_dirty and self._presence_timer is None and self._loop is not None:
            self._presence_timer = self._loop.call_later(PRESENCE_SECONDS, self._send_presence)

    def _send_presence(self) -> None:
        self._presence_timer = None
        self.perform(self.state.presence(self._clock()))

    # --- code of others: authorizers and filters --------------------------------------------------------------------

    async def _permit(self, conn_id: int, authorize: Authorizer, address: Address) -> tuple[bool, bool]:
        """Whether the authorizer allows to read a bus, and to write to it."""
        try:
            return await authorize(address, "read"), await authorize(address, "write")
        except Exception:
            self._log.exception("ebus: authorizer_failed connection=%d bus=%s: it stays closed", conn_id, address)
            return False, False

    async def reassess(self, conn_id: int, who: Participant, may_write: bool) -> None:
        """See `Connection.reassess`."""
        conn = self._connections.get(conn_id)
        permits: dict[Address, tuple[bool, bool]] = {}
        if conn is not None and conn.authorize is not None:
            for address in self.state.registry.opened_by(conn_id):
                permits[address] = await self._permit(conn.id, conn.authorize, address)
        self.perform(self.state.registry.reassess(conn_id, who, may_write, permits, self._clock()))

    async def _authorize(self, effect: Authorize) -> None:
        conn = self._connections.get(effect.conn)
        if conn is None or conn.authorize is None:
            return
        address = effect.address
        read, write = await self._permit(conn.id, conn.authorize, address)
        self.perform(self.state.registry.authorized(effect.conn, effect.frame, address, read, write, self._clock()))

    async def _authorize_list(self, effect: AuthorizeList) -> None:
        conn = self._connections.get(effect.conn)
        if conn is None or conn.authorize is None:
            return
        allowed = dict.fromkeys(effect.buses, False)
        for uri in effect.buses:
            address = Address.parse(uri)
            try:
                allowed[uri] = await conn.authorize(address, "read") or await conn.authorize(address, "write")
            except Exception:
                self._log.exception(
                    "ebus: authorizer_failed connection=%d bus=%s: it stays closed", effect.conn, address
                )
        self.perform(self.state.list_authorized(effect.conn, effect.frame, allowed, self._clock()))

    async def _filter(self, effect: Filter) -> None:
        conn = self._connections.get(self.state.connection_of(effect.sender))
        value, error = await self._filters.run(effect, "" if conn is None else conn.ip)
        self.perform(self.state.filtered(effect.address, effect.request, value, error))
