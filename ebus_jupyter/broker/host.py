"""Performs the effects that `core.broker` decides on.

Cheap fan-out rests on three habits. A frame is encoded once and its bytes are shared by all who get it. What one turn
of the event loop has for a connection goes out as one WebSocket message, and connections that get the same frames get
the same message, built once. And a connection whose socket is full is handed nothing: the broker serves it from the log
when it has drained.

Frames are taken a millisecond at a time (`turn`), so that notebooks on the same server don't wait for a busy bus.

Everything that touches a backend goes through one queue, in order, so that a bus is open before its first append and
gone after its last; appends that wait together are one batch.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

from ebus_jupyter.backends.base import Backend
from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.core import frames
from ebus_jupyter.core.address import Address
from ebus_jupyter.core.broker import BrokerState
from ebus_jupyter.core.effects import (
    Append,
    Authorize,
    Catalogue,
    Deliver,
    Effect,
    Filter,
    Forget,
    Hangup,
    Load,
    Send,
)
from ebus_jupyter.core.entry import Entry, by_bus
from ebus_jupyter.core.limits import Limits
from ebus_jupyter.core.message import BusSpec, Participant
from ebus_jupyter.core.schema import Codec
from ebus_jupyter.errors import BackendError, ConnectionLost, EbusError, FilterUnavailable, Reject, Rejected

from .filters import Context, ServerFilter, adapted
from .turn import TURN_SECONDS, Turn

TICK_SECONDS = 0.25
PRESENCE_SECONDS = 0.05

SMALL_BYTES = 1 << 16
"""A message up to which a lone write is appended at once. What is larger is let go first: there is a copy less of it."""

_JOBS = (Append, Load, Forget, Catalogue)  # a tuple made once: a union would be built anew for each effect

Authorizer = Callable[[Address, str], Awaitable[bool]]
"""May this connection do "read" or "write" on that bus?"""


class Outlet(Protocol):
    """What a connection gives the broker: the way out to its client."""

    @staticmethod
    def pack(parts: list[bytes]) -> bytes:
        """The message that ``parts`` are, as it goes over the wire. Called once, however many connections it goes to."""

    def send_packed(self, packed: bytes) -> None:
        """Hand over what `pack` made. Never blocks, never raises: a connection that has ended says so by itself."""

    def buffered(self) -> int:
        """Bytes handed over that the socket has not taken yet."""

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, soon after the socket has taken everything."""

    def close(self, code: int, reason: str) -> None:
        """End the connection, after what was handed over. Safe to call twice."""


class Connection:
    """One client, as the broker's shell holds it."""

    __slots__ = ("_broker", "authorize", "count", "held", "id", "ip", "out", "outlet")

    def __init__(self, broker: Broker, id_: int, outlet: Outlet, authorize: Authorizer | None, ip: str) -> None:
        self._broker = broker
        self.id = id_
        self.outlet = outlet
        self.authorize = authorize
        self.ip = ip
        self.out: list[bytes] = []
        self.count = 0
        self.held = False

    def receive(self, data: bytes) -> Awaitable[None] | None:
        """One WebSocket message has come in. Where an awaitable comes back, hand over the next one when it is done."""
        return self._broker.receive(self.id, data)

    def close(self) -> None:
        """The socket has ended. Safe to call twice."""
        self._broker.detach(self.id)


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
        turn_seconds: How much of each turn of the event loop frames may take, from all connections together.
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
        turn_seconds: float = TURN_SECONDS,
    ) -> None:
        self.limits = limits or Limits()
        memory = partial(
            MemoryBackend,
            max_bytes=self.limits.log_bytes,
            dedupe=self.limits.dedupe,
            max_buses=self.limits.kept_buses,
        )
        self._volatile = memory()
        self._durable: Backend = durable or memory()
        self._filters = {name: adapted(function) for name, function in (filters or {}).items()}
        self._clock = clock
        self._log = log or logging.getLogger("ebus_jupyter")
        self.state = BrokerState(
            broker=secrets.token_hex(8),
            secret=secret or secrets.token_bytes(32),
            mint=lambda digits: secrets.token_hex((digits + 1) // 2)[:digits],
            limits=self.limits,
            shared=shared,
            filters=self._filters,
        )
        self._conns: dict[int, Connection] = {}
        self._next_id = 0
        self._dirty: dict[Connection, None] = {}
        self._hangups: list[Connection] = []
        self._flush_scheduled = False
        self._jobs: deque[Effect] = deque()
        self._wake = asyncio.Event()
        self._is_busy = False  # with a job: what comes now comes after it
        self._tasks: set[asyncio.Task[None]] = set()
        self._presence_due: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn_seconds = turn_seconds
        self._turn: Turn | None = None
        self._closing = False

    def keep_in(self, durable: Backend) -> None:
        """Keep the named buses there. Before `start`."""
        self._durable = durable

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin. Connections may be attached from here on."""
        self._loop = asyncio.get_running_loop()
        self._turn = Turn(self._loop, self._turn_seconds)
        self._durable.follow(self._committed)
        self._volatile.follow(self._committed)
        for uri in await self._durable.buses():
            if Address.parse(uri).scope == "kernel":  # its kernel ended with the server before this one
                await self._durable.delete(uri)
        self._spawn(self._work())
        self._spawn(self._tick())

    async def aclose(self) -> None:
        """Finish what was accepted, say goodbye, let go. Safe to call twice."""
        if self._closing:
            return
        self._closing = True
        self._wake.set()
        bye = frames.encode(frames.Bye("closed", "the server is shutting down; the client comes back when it does."))
        for conn in list(self._conns.values()):
            self._perform([Send(conn.id, bye), Hangup(conn.id)])
        while self._jobs:
            await asyncio.sleep(0)
        self._flush()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._volatile.aclose()
        await self._durable.aclose()

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
        self._conns[conn.id] = conn
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
            self._append_now()
        return turn.next() if turn.is_over() else None

    def _take(self, conn: int, turn: Turn) -> None:
        while self.state.has_more(conn):
            self._perform(self.state.go_on(conn, self._clock()))
            if turn.is_over():
                return

    async def _go_on(self, conn: int, turn: Turn) -> None:
        while self.state.has_more(conn):
            if turn.is_over():
                await asyncio.shield(turn.next())
            self._take(conn, turn)

    def detach(self, conn: int) -> None:
        if self._conns.pop(conn, None) is not None:
            self._perform(self.state.disconnect(conn, self._clock()))

    def kernel_stopped(self, kernel_id: str) -> None:
        """A kernel was shut down: its scope, and what it kept there, is reclaimed."""
        self._perform(self.state.end_kernel(kernel_id))
        self._spawn(self._forget_kernel(kernel_id))

    async def _forget_kernel(self, kernel_id: str) -> None:
        for uri in await self._durable.buses():
            address = Address.parse(uri)
            if address.scope == "kernel" and address.owner == kernel_id:
                self._perform([Forget(address)])

    def kernel_activity(self, kernel_id: str, activity: str) -> None:
        """A kernel is "idle", "busy", "restarting" or "dead"."""
        self._perform(self.state.kernel_activity(kernel_id, activity))

    # --- effects ----------------------------------------------------------------------------------------------------

    def _perform(self, effects: list[Effect]) -> None:
        conns, dirty = self._conns, self._dirty
        for effect in effects:
            if isinstance(effect, _JOBS):  # the most, by far: one for each write
                if not self._jobs:
                    self._wake.set()
                self._jobs.append(effect)
            elif isinstance(effect, Deliver):
                frames_, count = effect.frames, effect.number
                for id_ in effect.conns:
                    conn = conns.get(id_)
                    if conn is not None:
                        conn.out.append(frames_)
                        conn.count += count
                        dirty[conn] = None
            elif isinstance(effect, Send):
                conn = conns.get(effect.conn)
                if conn is not None:
                    conn.out.append(effect.frame)
                    conn.count += 1
                    dirty[conn] = None
            elif isinstance(effect, Authorize):
                self._spawn(self._authorize(effect))
            elif isinstance(effect, Filter):
                self._spawn(self._filter(effect))
            else:
                conn = conns.get(effect.conn)
                if conn is not None:
                    self._hangups.append(conn)
                    dirty[conn] = None
        if dirty and not self._flush_scheduled:
            assert self._loop is not None, "start() comes first"
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)
        if self.state.is_stirred and self._presence_due is None and self._loop is not None:
            self._presence_due = self._loop.call_later(PRESENCE_SECONDS, self._tell_presence)

    def _tell_presence(self) -> None:
        self._presence_due = None
        self._perform(self.state.presence())

    def _flush(self) -> None:
        self._flush_scheduled = False
        if not self._dirty:
            return
        loop, turn = self._loop, self._turn
        assert loop is not None, "start() comes first"
        assert turn is not None
        began = loop.time()
        dirty, self._dirty = self._dirty, {}
        packed: dict[Any, tuple[bytes, list[bytes]]] = {}
        for conn in dirty:
            out = conn.out
            if not out:
                continue
            outlet = conn.outlet
            # The same bytes objects, in the same order, for the same kind of connection: the same message.
            key = (type(outlet), id(out[0]) if len(out) == 1 else tuple(map(id, out)))
            shared = packed.get(key)
            if shared is None:  # `out` is kept beside the message, so that the ids in the key stay taken
                shared = packed[key] = outlet.pack([frames.head(conn.count), *out]), out
            conn.out, conn.count = [], 0
            outlet.send_packed(shared[0])
            buffered = outlet.buffered()
            if buffered > self.limits.send_bytes + self.limits.control_bytes:
                self._drop(conn, "stopped reading, and its answers no longer fit (the server's limit `control_bytes`)")
            elif buffered > self.limits.send_bytes:
                self._hold(conn)
            elif not conn.held and self.state.is_behind(conn.id):
                self._serve_soon(conn)
        hangups, self._hangups = self._hangups, []
        for conn in hangups:
            conn.outlet.close(1000, "bye")
            self.detach(conn.id)
        turn.handed_out(loop.time() - began, len(dirty))

    def _hold(self, conn: Connection) -> None:
        if not conn.held:
            conn.held = True
            self.state.blocked(conn.id)
            conn.outlet.on_drain(lambda: self._serve(conn))

    def _serve_soon(self, conn: Connection) -> None:
        conn.held = True  # until its turn: others come first
        assert self._loop is not None
        self._loop.call_soon(self._serve, conn)

    def _serve(self, conn: Connection) -> None:
        conn.held = False
        self._perform(self.state.drained(conn.id))

    def _drop(self, conn: Connection, why: str) -> None:
        self._log.warning("ebus: closed a connection that %s", why)
        self._hangups.append(conn)

    # --- backends ---------------------------------------------------------------------------------------------------

    def _backend(self, uri: str, address: Address | None = None) -> Backend:
        return self._volatile if "~" in uri and (address or Address.parse(uri)).unnamed else self._durable

    def _committed(self, entries: Any) -> None:
        self._perform(self.state.commit(entries))

    async def _work(self) -> None:
        """Everything that touches a backend, one thing after the other."""
        assert self._turn is not None
        while True:
            if not self._jobs:
                self._wake.clear()
                await self._wake.wait()
            self._is_busy = True
            try:
                await self._next_job()
            except Exception:  # of ours: the others' writes go on
                self._log.exception("ebus: a job of the broker failed; please report this")
            self._is_busy = False
            if self._dirty:
                self._flush()
            if self._jobs and self._turn.is_over():
                await asyncio.shield(self._turn.next())

    async def _next_job(self) -> None:
        if not self._jobs:
            return
        if isinstance(self._jobs[0], Append):
            await self._append(self._appends())
            return
        match self._jobs.popleft():
            case Load(address, spec, epoch):
                kept, error = None, None
                try:
                    kept = await self._backend(str(address), address).open(str(address), spec, epoch)
                except Exception as failed:
                    error = self._explained(f"{address} could not be read", failed)
                self._perform(self.state.loaded(address, kept, error, self._clock()))
            case Forget(address) as job:
                error = None
                try:
                    await self._backend(str(address), address).delete(str(address))
                except Exception as failed:
                    error = self._explained(f"{address} could not be deleted", failed)
                self._perform(self.state.forgotten(job, error))
            case Catalogue(conn, req):
                try:
                    self._spawn(self._list(conn, req, await self._durable.buses()))
                except Exception as failed:
                    error = self._explained("the buses that are kept could not be listed", failed)
                    self._perform([Send(conn, frames.encode(frames.refusal(error, req=req)))])

    def _appends(self) -> list[Entry]:
        """What waits to be appended, up to the first job of another kind."""
        batch: list[Entry] = []
        while self._jobs and isinstance(self._jobs[0], Append):
            batch.append(self._jobs.popleft().entry)  # type: ignore[union-attr]
        return batch

    def _parted(self, batch: list[Entry]) -> list[tuple[Backend, list[Entry]]]:
        parts: dict[Backend, list[Entry]] = {}
        for uri, entries in by_bus(batch).items():
            parts.setdefault(self._backend(uri), []).extend(entries)
        return list(parts.items())

    async def _append(self, batch: list[Entry]) -> None:
        for backend, entries in self._parted(batch):
            try:
                offsets = await backend.append(entries)
            except Exception as error:
                self._failed(entries, error)
            else:
                self._perform(self.state.appended(entries, offsets))

    def _append_now(self) -> None:
        """Append what waits in this very round of the loop. (Where many come together, they are one batch, in the next.)"""
        if self._is_busy:
            return
        for backend, entries in self._parted(self._appends()):
            try:
                offsets = backend.append_now(entries)
            except Exception as error:
                self._failed(entries, error)
            else:
                if offsets is None:
                    self._jobs.extendleft(Append(entry) for entry in reversed(entries))
                else:
                    self._perform(self.state.appended(entries, offsets))
        if self._dirty:
            self._flush()

    def _failed(self, entries: list[Entry], failed: Exception) -> None:
        what = f"{len(entries)} writes were refused, as the log failed"
        self._perform(self.state.failed(entries, self._explained(what, failed)))

    def _explained(self, what: str, failed: Exception) -> EbusError:
        """A backend failed: what those who wait for it are told."""
        if isinstance(failed, EbusError):
            if not isinstance(failed, Rejected):  # who asks for too much is told; the log is not for them to fill
                self._log.error("ebus: %s: %s", what, failed)
            return failed
        self._log.error("ebus: %s; please report this", what, exc_info=failed)
        return BackendError(f"{what}: {failed}. See the server's log.")

    # --- other people's code ----------------------------------------------------------------------------------------

    async def _authorize(self, effect: Authorize) -> None:
        conn = self._conns.get(effect.conn)
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

    async def _list(self, conn_id: int, req: int, kept: dict[str, BusSpec]) -> None:
        conn = self._conns.get(conn_id)
        if conn is not None and conn.authorize is not None:  # what it may not open, it may not know of
            within_reach = {uri: kept[uri] for uri in self.state.within_reach(conn_id, kept)}
            kept = {}
            for uri, spec in within_reach.items():
                address = Address.parse(uri)
                try:
                    if await conn.authorize(address, "read") or await conn.authorize(address, "write"):
                        kept[uri] = spec
                except Exception:
                    self._log.exception("ebus: the authorizer failed; %s stays closed", address)
        self._perform(self.state.listed(conn_id, req, kept))

    async def _filter(self, effect: Filter) -> None:
        value, verdict = b"", None  # type: tuple[bytes, EbusError | str | None]
        codec: Codec[Any] = Codec()
        try:
            conn = self._conns.get(self.state.connection_of(effect.sender))
            who = effect.sender
            context = Context(
                bus=str(effect.address), user=who.user, ip=conn.ip if conn is not None else "", kernel=who.kernel_id
            )
            filter_ = self._filters.get(effect.name)
            if filter_ is None:
                raise FilterUnavailable(
                    f"the filter {effect.name!r} is no longer installed in this server; nothing is accepted unfiltered."
                )
            result = filter_(codec.decode(effect.value), who, context)
            if inspect.isawaitable(result):
                result = await asyncio.wait_for(result, self.limits.filter_seconds)
            value = codec.encode(result)
        except Reject as rejected:
            verdict = str(rejected)
        except FilterUnavailable as unavailable:
            verdict = unavailable
        except Exception as error:
            self._log.exception("ebus: filter %r failed", effect.name)
            verdict = FilterUnavailable(
                f"the filter {effect.name!r} failed ({type(error).__name__}); the write was not accepted."
            )
        self._perform(self.state.filtered(effect.address, effect.ask, value, verdict))
