"""A client of one broker: `core.channel` on a transport, reconnecting for as long as it lives.

The link belongs to one lock. Programs call in from any thread; one task on the client's loop carries bytes and performs
what comes back. A kernel's client runs on a thread of its own, so that neither a long cell nor a blocked callback keeps
writes from leaving or messages from arriving.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ebus_jupyter.core.client.channel import Channel
from ebus_jupyter.core.client.events import (
    BusClosed,
    BusOpened,
    ConnectionEnded,
    Event,
    FilterRequested,
    MessagesArrived,
    PresenceChanged,
    RequestSettled,
    Welcomed,
    WriteSettled,
)
from ebus_jupyter.core.client.reader import Reader
from ebus_jupyter.core.client.session import Session
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import (
    Closed,
    ConnectionLost,
    EbusError,
    Forbidden,
    ProtocolError,
    RateLimited,
    Unauthenticated,
)
from ebus_jupyter.transports.base import Connect, Transport

from .bus import Bus, Topic
from .waiting import NOT_YET, Waiting

logger = logging.getLogger("ebus_jupyter")

RETRY_SECONDS = (0.05, 5.0)
"""The first and the longest pause between attempts to reconnect; each is a random part of a doubling bound ("full jitter",
so that a class of clients does not come back all at once)."""

OPEN_SECONDS = 15.0
"""How long `Client.bus` waits for the broker before it raises `ConnectionLost`."""

ROOM_SECONDS = 30.0
"""How long a write waits while the client holds as many unanswered writes as it may."""

Settle = Callable[[int, EbusError | None], None]
"""Told what became of a write: its offset, or why it was refused."""

_thread: tuple[int, asyncio.AbstractEventLoop] | None = None
_thread_lock = threading.Lock()


def background_loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process's ebus thread; started when first asked for, and anew in a forked child."""
    global _thread
    with _thread_lock:
        if _thread is None or _thread[0] != os.getpid():
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="ebus", daemon=True).start()
            _thread = os.getpid(), loop
        return _thread[1]


class Client:
    """A participant. Make one with `ebus_jupyter.connect`, or use the one that `ebus_jupyter.bus` makes.

    Args:
        connect: Opens a connection to the broker; called again whenever it was lost.
        where: What `ebus_jupyter.status` says of where this client connects.
        loop: The loop to run on. Default: the process's ebus thread.
        relay: Opens a connection for a page that can only go through this process. Default: as ``connect`` does.
        embedded: Whether the broker is in this process, so that pages can't reach it by themselves.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        where: str,
        loop: asyncio.AbstractEventLoop | None = None,
        relay: Connect | None = None,
        embedded: bool = False,
    ) -> None:
        self.where = where
        self.relay = relay or connect
        self.embedded = embedded
        self.lock = threading.RLock()
        self.session = Session(secrets.token_hex(16), client="python")
        self.loop = loop or background_loop()
        self.status = "connecting"
        self.why: EbusError | None = None
        self.handle: Callable[[Bus[Any, Any]], str] | None = None
        self._connect = connect
        self._transport: Transport | None = None
        self._wake = asyncio.Event()
        self._wake_pending = False
        self._acks: dict[int, Settle] = {}
        self._answers: dict[int, Callable[[Any, EbusError | None], None]] = {}
        self._topics: dict[Channel, Topic] = {}
        self._named: dict[tuple[str, str, str, str], Topic] = {}
        self._changed = Waiting()
        self._room = Waiting()
        self._status_listeners: list[Callable[[str], None]] = []
        self._filter_thread: ThreadPoolExecutor | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_loop(self._start)

    def __repr__(self) -> str:
        return f"<ebus client of {self.where}: {self.status}>"

    # --- the program's side -----------------------------------------------------------------------------------------

    @property
    def you(self) -> Participant | None:
        """Who this client is, as the broker stamps it on messages; None before the first welcome."""
        return self.session.you

    def bus(self, name: str | None = None, type: Any = Any, **spec: Any) -> Bus[Any, Any]:
        """Open a bus or create it; the arguments are those of `ebus_jupyter.bus`."""
        from .open import open_bus

        return open_bus(self, name, type, **spec)

    def state(self, name: str, **spec: Any) -> Any:
        """Open a shared state; the arguments are those of `ebus_jupyter.state`."""
        from .state import State

        return State(self.bus(name, retain="keys", **spec))

    def buses(self, timeout: float = OPEN_SECONDS) -> list[dict[str, Any]]:
        """The named buses within reach: address, scope, name, spec, participants, last offset."""
        found: frames.Listed = self.ask(self.session.list_buses, timeout)
        return found.buses

    def on_status(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with each new status, on the client's thread."""
        self._status_listeners.append(listener)

    def close(self) -> None:
        """End this client. Writes that were not answered fail with `Closed`."""
        self._on_loop(lambda: self._spawn(self._close(Closed("this client was closed.", reason="closed"))))

    def ensure_may_block(self, what: str) -> None:
        """Refuse to block the loop that would have to end the wait."""
        if self.on_own_loop:
            raise RuntimeError(
                f"{what} would block the loop that it waits for; use `await` or `async for` here, or asyncio.to_thread."
            )

    def wait_live(self, timeout: float | None) -> None:
        """Wait until the broker has welcomed this client."""

        def check() -> Any:
            if self.session.closed is not None:
                raise self.session.closed
            return None if self.session.live else NOT_YET

        self.ensure_may_block("wait_live()")
        self._changed.wait(check, timeout, f"{self.where} has not answered")

    # --- for the client's own modules -------------------------------------------------------------------------------

    @property
    def on_own_loop(self) -> bool:
        """Whether the caller runs on this client's own loop, which must not be blocked."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def topic(self, key: tuple[str, str, str, str]) -> Topic | None:
        """The bus that is open here, or being opened, by this scope, owner, name and capability."""
        scope, owner, name, cap = key
        link = self.session.find(scope, name, owner, cap)
        return self._named.get(key) if link is None else self._topics.get(link)

    def add(self, topic: Topic, key: tuple[str, str, str, str] | None) -> None:
        """A bus was opened."""
        self._topics[topic.channel] = topic
        if key is not None:
            self._named[key] = topic

    def release(self, topic: Topic) -> None:
        """One holder of the bus has closed it; the last one leaves it."""
        with self.lock:
            topic.holders -= 1
            last = topic.holders == 0
            if last:  # who opens it again from here on opens it anew
                self._named = {key: other for key, other in self._named.items() if other is not topic}
                events = self.session.leave(topic.channel)
        if last:
            self.wake_sender()
            self._on_loop(lambda: self._spawn(self._all_happened(events)))
        topic.notify()

    def publish(self, bus: Channel, settle: Settle, value: bytes, **how: Any) -> None:
        """Write; waits for room where too many writes have no answer yet."""
        deadline = time.monotonic() + ROOM_SECONDS
        while True:
            with self.lock:
                try:
                    self._acks[self.session.publish(bus, value, time.monotonic(), **how)] = settle
                    break
                except RateLimited:
                    if time.monotonic() > deadline:
                        raise
                    self.ensure_may_block("a write while too many have no answer")
            with contextlib.suppress(TimeoutError):
                self._room.wait(lambda: None if len(self._acks) < self.session.max_pending else NOT_YET, 1.0, "room")
        self.wake_sender()

    def request_page(self, reader: Reader) -> None:
        """Ask for the reader's next page of history, if it needs one. Called with the lock held."""
        req = reader.request_page()
        if req:
            self._answers[req] = reader.page_received
            self.wake_sender()

    def ask(self, question: Callable[[], int], timeout: float | None = OPEN_SECONDS) -> Any:
        """Ask the broker something and wait for its answer."""
        self.ensure_may_block("this call")
        answer: list[Any] = []
        arrived = Waiting()

        def answered(frame: Any, error: EbusError | None) -> None:
            answer.append(error or frame)
            arrived.notify()

        with self.lock:
            self._answers[question()] = answered
        self.wake_sender()
        found = arrived.wait(lambda: answer[0] if answer else NOT_YET, timeout, f"{self.where} has not answered")
        if isinstance(found, EbusError):
            raise found
        return found

    def wake_sender(self) -> None:
        """There is something to send."""
        if not self._wake_pending:
            self._wake_pending = True
            self._on_loop(self._wake_now)

    def _wake_now(self) -> None:
        self._wake_pending = False
        self._wake.set()

    def _on_loop(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process, or the server, is ending
            self.loop.call_soon_threadsafe(callback)

    def _spawn(self, job: Any) -> None:
        task = self.loop.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("an ebus task failed; please report this", exc_info=task.exception())

    # --- the connection ---------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._spawn(self._run())

    async def _run(self) -> None:
        attempt = 0
        while self.session.closed is None:
            try:
                transport = await self._connect()
            except (Unauthenticated, Forbidden) as refused:
                await self._close(refused)
                return
            except (EbusError, OSError) as failed:
                self.why = failed if isinstance(failed, EbusError) else ConnectionLost(str(failed))
            else:
                welcomed = await self._serve(transport)
                attempt = 0 if welcomed else attempt
            if self.session.closed is None:
                self._set_status("reconnecting")
                first, longest = RETRY_SECONDS
                await asyncio.sleep(random.uniform(0, min(longest, first * 2**attempt)))
                attempt += 1

    async def _serve(self, transport: Transport) -> bool:
        """Use one connection until it ends; returns whether the broker welcomed us."""
        self._transport = transport
        with self.lock:
            self.session.connection_made()
        sender = self.loop.create_task(self._send(transport))
        welcomed = False
        try:
            async for data in transport:
                with self.lock:
                    events = self.session.receive_data(data, time.monotonic())
                welcomed = welcomed or any(isinstance(event, Welcomed) for event in events)
                await self._all_happened(events)
                if self.session.has_outgoing:
                    self._wake.set()
        except ProtocolError as error:
            logger.error("%s", error)
            await self._close(error)
        finally:
            sender.cancel()
            with self.lock:
                unanswered = self.session.connection_lost()
            await self._all_happened(unanswered)
            with contextlib.suppress(EbusError, OSError):
                await transport.aclose()
            self._transport = None
            self._notify_all()
        return welcomed

    async def _send(self, transport: Transport) -> None:
        with contextlib.suppress(ConnectionLost):
            while True:
                self._wake.clear()
                while True:
                    with self.lock:
                        data = self.session.data_to_send(time.monotonic())
                        due = self.session.next_deadline()
                    if data is None:
                        break
                    await transport.send(data)
                pause = None if due is None else max(0.0, due - time.monotonic())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)

    async def _close(self, error: EbusError) -> None:
        if self.session.closed is not None:
            return
        self.why = error
        if self._transport is not None and self.status == "live":
            with self.lock:
                data = self.session.data_to_send(float("inf"))
            with contextlib.suppress(EbusError, OSError):
                if data is not None:
                    await self._transport.send(data)
        with self.lock:
            events = self.session.close(error)
        await self._all_happened(events)
        if self._transport is not None:
            with contextlib.suppress(EbusError, OSError):
                await self._transport.aclose()
        self._set_status("closed")
        if self._filter_thread is not None:
            self._filter_thread.shutdown(wait=False)

    def _set_status(self, status: str) -> None:
        if status != self.status:
            self.status = status
            self._changed.notify()
            for listener in [*self._status_listeners]:
                try:
                    listener(status)
                except Exception:
                    logger.exception("a status listener failed")
            self._notify_all()

    def _notify_all(self) -> None:
        for topic in list(self._topics.values()):
            topic.notify()

    # --- what happens -----------------------------------------------------------------------------------------------

    async def _all_happened(self, events: list[Event]) -> None:
        settled = False
        for event in events:
            if isinstance(event, WriteSettled):  # a busy writer has thousands of these
                settle = self._acks.pop(event.id, None)
                if settle is not None:
                    settle(event.offset, event.error)
                settled = True
            else:
                await self._happened(event)
        if settled:
            self._room.notify()

    async def _happened(self, event: Event) -> None:
        match event:
            case MessagesArrived(link) | PresenceChanged(link) | BusOpened(link):
                topic = self._topics.get(link)
                if topic is not None:
                    if isinstance(event, PresenceChanged):
                        topic.presence_changed.notify()
                    topic.notify()
            case RequestSettled(req, frame, error):
                answered = self._answers.pop(req, None)
                if answered is not None:
                    with self.lock:
                        answered(frame, error)
                self._notify_all()
            case Welcomed():
                self.why = None
                self._set_status("live")
                self._changed.notify()
            case BusClosed(link, _):
                topic = self._topics.pop(link, None)
                if topic is not None:
                    self._named = {key: other for key, other in self._named.items() if other is not topic}
                    topic.notify()
            case FilterRequested():
                self._spawn(self._filter(event))
            case ConnectionEnded(error, again):
                self.why = error
                if not again:
                    await self._close(error)

    async def _filter(self, asked: FilterRequested) -> None:
        """Filter a write for the broker: an async filter on the client's loop, a plain one on one thread of its own."""
        topic = self._topics.get(asked.bus)
        if topic is None or topic.filter is None:
            return
        if self._filter_thread is None:
            self._filter_thread = ThreadPoolExecutor(1, thread_name_prefix="ebus-filter")
        value, reject, failed = await topic.filter(asked.value, asked.sender, self._filter_thread)
        with self.lock:
            self.session.answer_filter(asked.bus, asked.ask, value, reject, failed=failed)
        self.wake_sender()
