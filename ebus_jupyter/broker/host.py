"""Performs the effects that `core.broker` decides on.

Frames are taken half a millisecond at a time (`turn`), so that notebooks on the same server don't wait for a busy bus.
What touches a log waits in one queue (`storage_queue`); what goes out is gathered for each round of the loop (`connections`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ebus_jupyter.backends.base import Backend
from ebus_jupyter.core.broker.effects import Authorize, DeleteLog, Deliver, Effect, Filter, Hangup, ListBuses, Send
from ebus_jupyter.core.broker.state import BrokerState
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import BusSpec, Participant
from ebus_jupyter.errors import ConnectionLost

from .connections import Connections
from .filters import Filters, ServerFilter
from .outlet import Authorizer, Connection, Outlet
from .storage_queue import JOBS, StorageQueue
from .time_slice import SLICE_SECONDS, TimeSlice

TICK_SECONDS = 0.25
PRESENCE_SECONDS = 0.05

SMALL_BYTES = 1 << 16
"""A message up to which a lone write is appended at once. What is larger is let go first: there is a copy less of it."""


class Broker:
    """All buses of one process.

    Args:
        durable: Keeps the named buses. Default: memory, until the process ends.
        limits: The bounds.
        secret: Makes capabilities; keep it over a restart, and those that pages hold stay good. Default: a fresh one.
        clock: Seconds since the epoch.
        shared: Whether ``durable`` is shared by all servers of a hub.
        filters: The server's filters, by name.
        log: Where the broker says what went wrong.
        slice_seconds: How much of each turn of the event loop frames may take, from all connections together.
    """

    def __init__(
        self,
        durable: Backend | None = None,
        *,
        limits: Limits | None = None,
        secret: bytes | None = None,
        clock: Callable[[], float] = time.time,
        shared: bool = False,
        filters: Mapping[str, ServerFilter] | None = None,
        log: logging.Logger | None = None,
        slice_seconds: float = SLICE_SECONDS,
    ) -> None:
        self.limits = limits or Limits()
        self._clock = clock
        self._log = log or logging.getLogger("ebus_jupyter")
        self.state = BrokerState(
            broker=secrets.token_hex(8),
            secret=secret or secrets.token_bytes(32),
            mint=lambda digits: secrets.token_hex((digits + 1) // 2)[:digits],
            limits=self.limits,
            shared=shared,
            filters=filters or {},
        )
        self._filters = Filters(filters or {}, self.limits.filter_seconds, self._log)
        self._connections = Connections(self.state, self.limits, self._log, self._perform, self.detach)
        self._storage = StorageQueue(
            self.state,
            durable,
            self.limits,
            self._log,
            self._clock,
            self._perform,
            self._connections.flush,
            self._found,
        )
        self._next_id = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._presence_due: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn_seconds = slice_seconds
        self._turn: TimeSlice | None = None
        self._closing = False

    def keep_in(self, durable: Backend) -> None:
        """Keep the named buses there. Before `start`."""
        self._storage.durable = durable

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin. Connections may be attached from here on."""
        self._loop = asyncio.get_running_loop()
        self._turn = TimeSlice(self._loop, self._turn_seconds)
        self._connections.start(self._loop, self._turn)
        self._storage.start()
        for uri in await self._storage.durable.buses():
            if Address.parse(uri).scope == "kernel":  # its kernel ended with the server before this one
                await self._storage.durable.delete(uri)
        self._spawn(self._storage.work(self._turn))
        self._spawn(self._tick())

    async def aclose(self) -> None:
        """Finish what was accepted, say goodbye, let go. Safe to call twice."""
        if self._closing:
            return
        self._closing = True
        bye = frames.encode(frames.Bye("closed", "the server is shutting down; the client comes back when it does."))
        for conn in list(self._connections.conns.values()):
            self._perform([Send(conn.id, bye), Hangup(conn.id)])
        await self._storage.finish()
        self._connections.flush()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._storage.aclose()

    def _spawn(self, job: Any) -> asyncio.Task[None]:
        assert self._loop is not None, "start() comes first"
        task = self._loop.create_task(job)
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
            self._perform(self.state.tick(self._clock()))

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
            who: What the connection is; its ``id`` is left empty.
            outlet: The way out to the client.
            may_write: False for one who may only look on.
            authorize: Asked for each bus that the connection opens.
            ip: Where it comes from; filters in the server are told.

        Raises:
            ConnectionLost: This broker has ended, or is about to.
        """
        if self._closing:  # it has said goodbye to all, and nobody would ever answer this one
            raise ConnectionLost("the server is shutting down.")
        self._next_id += 1
        conn = Connection(self, self._next_id, outlet, authorize, ip)
        self._connections.conns[conn.id] = conn
        self._perform(self.state.connect(conn.id, who, self._clock(), may_write=may_write, asks=authorize is not None))
        return conn

    def receive(self, conn: int, data: bytes) -> Awaitable[None] | None:
        turn = self._turn
        assert turn is not None, "start() comes first"
        is_quiet, is_over = turn.is_quiet(), turn.is_over()
        self._perform(self.state.receive(conn, data, self._clock()))
        if not is_over:
            self._take(conn, turn)
        if self.state.has_more(conn):
            return self._spawn(self._go_on(conn, turn))
        if is_quiet and len(data) <= SMALL_BYTES:
            self._storage.append_now()
        return turn.next() if turn.is_over() else None

    def _take(self, conn: int, turn: TimeSlice) -> None:
        while self.state.has_more(conn):
            self._perform(self.state.take_slice(conn, self._clock()))
            if turn.is_over():
                return

    async def _go_on(self, conn: int, turn: TimeSlice) -> None:
        while self.state.has_more(conn):
            if turn.is_over():
                await asyncio.shield(turn.next())
            self._take(conn, turn)

    def detach(self, conn: int) -> None:
        if self._connections.conns.pop(conn, None) is not None:
            self._perform(self.state.disconnect(conn, self._clock()))

    def kernel_stopped(self, kernel_id: str) -> None:
        """A kernel was shut down: its scope, and what it kept there, is reclaimed."""
        self._perform(self.state.end_kernel(kernel_id))
        self._spawn(self._forget_kernel(kernel_id))

    async def _forget_kernel(self, kernel_id: str) -> None:
        for uri in await self._storage.durable.buses():
            address = Address.parse(uri)
            if address.scope == "kernel" and address.owner == kernel_id:
                self._perform([DeleteLog(address)])

    def kernel_activity(self, kernel_id: str, activity: str) -> None:
        """A kernel is "idle", "busy", "restarting" or "dead"."""
        self._perform(self.state.kernel_activity(kernel_id, activity))

    # --- effects ----------------------------------------------------------------------------------------------------

    def _perform(self, effects: list[Effect]) -> None:
        connections, jobs = self._connections, self._storage.jobs
        for effect in effects:
            if isinstance(effect, JOBS):  # the most, by far: one for each write
                jobs.append(effect)
            elif isinstance(effect, Deliver):
                connections.deliver(effect)
            elif isinstance(effect, Send):
                connections.send(effect.conn, effect.frame)
            elif isinstance(effect, Authorize):
                self._spawn(self._authorize(effect))
            elif isinstance(effect, Filter):
                self._spawn(self._filter(effect))
            else:
                connections.hangup(effect.conn)
        if jobs:
            self._storage.wake()
        connections.schedule()
        if self.state.presence_dirty and self._presence_due is None and self._loop is not None:
            self._presence_due = self._loop.call_later(PRESENCE_SECONDS, self._tell_presence)

    def _tell_presence(self) -> None:
        self._presence_due = None
        self._perform(self.state.presence())

    # --- other people's code ----------------------------------------------------------------------------------------

    async def _authorize(self, effect: Authorize) -> None:
        conn = self._connections.conns.get(effect.conn)
        if conn is None or conn.authorize is None:
            return
        read = write = False
        try:
            read = await conn.authorize(effect.address, "read")
            write = await conn.authorize(effect.address, "write")
        except Exception:
            read = write = False
            self._log.exception("ebus: the authorizer failed; %s stays closed", effect.address)
        self._perform(self.state.authorized(effect.conn, effect.question, effect.address, read, write, self._clock()))

    def _found(self, asked: ListBuses, kept: dict[str, BusSpec]) -> None:
        self._spawn(self._list(asked, kept))

    async def _list(self, asked: ListBuses, kept: dict[str, BusSpec]) -> None:
        conn = self._connections.conns.get(asked.conn)
        if conn is not None and conn.authorize is not None:  # what it may not open, it may not know of
            within_reach = {uri: kept[uri] for uri in self.state.within_reach(asked.conn, kept)}
            kept = {}
            for uri, spec in within_reach.items():
                address = Address.parse(uri)
                try:
                    if await conn.authorize(address, "read") or await conn.authorize(address, "write"):
                        kept[uri] = spec
                except Exception:
                    self._log.exception("ebus: the authorizer failed; %s stays closed", address)
        self._perform(self.state.listed(asked.conn, asked.req, kept))

    async def _filter(self, effect: Filter) -> None:
        conn = self._connections.conns.get(self.state.connection_of(effect.sender))
        value, verdict = await self._filters.judge(effect, conn.ip if conn is not None else "")
        self._perform(self.state.filtered(effect.address, effect.ask, value, verdict))
