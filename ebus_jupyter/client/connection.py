"""A client's connection to its broker, as the threads of a program see it.

`core.client.session` decides what to send and what a frame means. A `Connection` puts a lock around it, gives it a clock, and
carries out what its events cause; a `Driver` brings the transport. A program's thread encodes a write and sends it itself;
the driver's thread receives, decides, and wakes whoever waits.

No code of a program runs on the driver's thread: what a callback, a filter or a listener does, or how long it takes, can't
hold a message up or end the connection. They run on event loops of the process that are started when they are first needed,
one for callbacks (`loop`) and one for filters; or on the loop that the driver was given.

A process that ends waits for the answers to its writes, for at most `EXIT_SECONDS`. A forked child has no connection: what it
inherited raises `Closed`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar
from weakref import WeakSet

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
from ebus_jupyter.errors import (
    Closed,
    ConnectionLost,
    EbusError,
    Forbidden,
    RateLimited,
    Unauthenticated,
)
from ebus_jupyter.transports.base import Connect

from .driver import Driver
from .kernel_filter import FilterRunner
from .loop_thread import loop_thread
from .owner import Owner
from .topic import Topic, TopicKey, TopicTable
from .waiting import NOT_YET, Condition

logger = logging.getLogger("ebus_jupyter")

Status = Literal["connecting", "live", "reconnecting", "closed"]

REQUEST_SECONDS = 15.0
"""Default time limit for the answer to a request, such as opening a bus."""

WRITE_ROOM_SECONDS = 30.0
"""The time that a write waits while the client has as many unanswered writes as it may have."""

CLOSE_SECONDS = 5.0
"""The default time that `close` waits for the answers to writes."""

EXIT_SECONDS = 3.0
"""The time that a process that ends waits for the answers to its writes, over all its clients."""

Settle = Callable[[int, EbusError | None], None]
"""Called with the outcome of a write: its offset, or 0 and why it was refused. Must not block or raise."""

F = TypeVar("F", bound=Callable[..., Any])

_connections: WeakSet[Connection] = WeakSet()


class Connection:
    """One client's connection to its broker; opened at once, and again whenever it is lost.

    Args:
        driver: Runs it.
        where: Where the connection leads, for `ebus_jupyter.status` and errors: "the Jupyter server at http://…".
        loop: Runs callbacks. Default: one of the process's own, on a thread of its own.
        relay: Opens a transport for a page that can only go through this process.
        embedded: Whether the broker is in this process, so that pages can't reach it by themselves.

    Attributes:
        client: The `Client` that owns this connection.
        lock: Held while anything of ``session`` is used.
        session: The protocol's state.
        topics: The buses that are open here.
        status: "connecting", "live", "reconnecting" or "closed".
        error: Why the connection is not live; None while it is.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        where: str,
        loop: asyncio.AbstractEventLoop | None = None,
        relay: Connect | None = None,
        embedded: bool = False,
    ) -> None:
        self.client: Owner | None = None
        self.where = where
        self.relay = relay
        self.embedded = embedded
        self.lock = threading.RLock()
        self.session = Session(secrets.token_hex(16), client="python")
        self.topics = TopicTable()
        self.status: Status = "connecting"
        self.error: EbusError | None = None
        self._driver = driver
        self._loop = loop
        self._settles: dict[int, Settle] = {}
        self._answers: dict[int, Callable[[Any, EbusError | None], None]] = {}
        self.status_changed = Condition()
        self._write_settled = Condition()
        self._status_listeners: list[Callable[[str], None]] = []
        self._error_listeners: list[Callable[[Exception], None]] = []
        self._reported = ""
        self._was_live = self._welcomed = False
        self._filters = FilterRunner()
        _connections.add(self)
        driver.start(self)

    # --- blocking and calling ---------------------------------------------------------------------------------------

    @property
    def on_own_loop(self) -> bool:
        """Whether the caller is on the thread that runs this connection, which must not be blocked."""
        return self._driver.owns_caller()

    def ensure_may_block(self, what: str) -> None:
        """Refuse to block the loop that would have to end the wait.

        Raises:
            RuntimeError: The caller is on the connection's own loop; the text names ``what`` was called.
        """
        if self.on_own_loop:
            raise RuntimeError(
                f"{what} would block the event loop that it waits for. "
                "Use `await` or `async for` here, or call it by asyncio.to_thread."
            )

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that callbacks and feeds run on; started when it is first needed."""
        return self._loop or loop_thread("ebus-callbacks").loop

    @property
    def relay_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop for the transports that `relay` opens."""
        return self._driver.loop or loop_thread("ebus-relay").loop

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Call ``function`` soon, on `loop`; an exception is logged, and hurts nobody else."""

        def guarded() -> None:
            try:
                function(*args)
            except BaseException:  # a SystemExit, too: it would end the loop
                logger.exception("%s failed", getattr(function, "__qualname__", function))

        with contextlib.suppress(RuntimeError):  # the loop is closed: the process, or the server, is ending
            self.loop.call_soon_threadsafe(guarded)

    def on_status(self, listener: F) -> F:
        """Call ``listener`` with each new status, on `loop`."""
        self._status_listeners.append(listener)
        return listener

    def on_error(self, listener: F) -> F:
        """Call ``listener`` with each error that was reported rather than raised, on `loop`."""
        self._error_listeners.append(listener)
        return listener

    def report(self, error: Exception, what: str, level: int = logging.ERROR) -> None:
        """Report an error that no caller is there to receive: log it, once in a row, and tell the listeners."""
        text = f"{what}: {type(error).__name__}: {error}"
        if text != self._reported:
            self._reported = text
            logger.log(level, "%s", text, exc_info=None if isinstance(error, EbusError) else error)
        for listener in [*self._error_listeners]:
            self.call(listener, error)

    # --- calls from any thread --------------------------------------------------------------------------------------

    def find(self, key: TopicKey) -> Topic | None:
        """The topic that is open here, or being opened, under this name. Called with the lock held."""
        channel = self.session.find(key.scope, key.name, key.owner, key.capability)
        return self.topics.opened_as(key) if channel is None else self.topics.of(channel)

    def release(self, topic: Topic) -> None:
        """Note that one holder of a topic has closed it; the last one leaves the bus."""
        events: list[Event] = []
        with self.lock:
            topic.holders -= 1
            if topic.holders == 0:
                self.topics.forget_names(topic)
                events = self.session.leave(topic.channel)
        self.wake_sender()
        self._perform(events)
        topic.arrivals.notify()

    def publish(self, channel: Channel, settle: Settle, value: bytes, *, wait: bool = True, **options: Any) -> None:
        """Send a write; waits while too many writes have no answer yet.

        Args:
            channel: The bus.
            settle: Called with the outcome, on any thread.
            value: The encoded value.
            wait: False: raise `RateLimited` at once instead of waiting for room.
            options: As for `Session.publish`.

        Raises:
            RateLimited: There was no room for another write, within `WRITE_ROOM_SECONDS` if ``wait``.
        """
        deadline = 0.0
        while True:
            try:
                with self.lock:
                    self._settles[self.session.publish(channel, value, time.monotonic(), wait=wait, **options)] = settle
                break
            except RateLimited:
                deadline = deadline or time.monotonic() + WRITE_ROOM_SECONDS
                if not wait or self.on_own_loop or time.monotonic() > deadline:
                    raise
                with contextlib.suppress(TimeoutError):
                    self._write_settled.wait(lambda: self._has_room(len(value)), deadline - time.monotonic(), "no room")
            except (EbusError, TypeError, ValueError):
                raise
            except BaseException:
                self._driver.reconnect()
                raise
        self._driver.send()

    def publish_soon(self, channel: Channel, settle: Settle, value: bytes, **options: Any) -> None:
        """As `publish`, but neither waits nor raises: without room the write is sent later, an error is the write's outcome."""
        with self.lock:  # no room can be made between the attempt and the registration
            try:
                self._settles[self.session.publish(channel, value, time.monotonic(), **options)] = settle
            except RateLimited:
                self._write_settled.once(partial(self.publish_soon, channel, settle, value, **options))
            except EbusError as error:
                settle(0, error)
        self._driver.send()

    def _has_room(self, size: int) -> Any:
        with self.lock:
            return True if self.session.has_room(size) or self.session.closed is not None else NOT_YET

    def request(
        self,
        send: Callable[[], int],
        timeout: float | None = REQUEST_SECONDS,
        *,
        granted: Callable[[], None] = lambda: None,
    ) -> Any:
        """Send a request and wait for its answer.

        Args:
            send: Makes the request on the session, and returns its number.
            timeout: Seconds to wait; None: without a limit. Then the request is forgotten.
            granted: Called where the answer is no error, before anything that arrived after it is looked at.

        Returns:
            The answering frame.
        """
        self.ensure_may_block("this call")
        answers: list[Any] = []
        arrived = Condition()

        def answered(frame: Any, error: EbusError | None) -> None:
            if error is None:
                granted()
            answers.append(error or frame)
            arrived.notify()

        with self.lock:
            if self.session.closed is not None:
                raise self.session.closed.anew()
            number = send()
            self._answers[number] = answered
        self._driver.send()
        try:
            answer = arrived.wait(lambda: answers[0] if answers else NOT_YET, timeout, f"{self.where} has not answered")
        finally:
            if not answers:
                with self.lock:
                    self._answers.pop(number, None)
                    self.session.cancel(number)
        if isinstance(answer, EbusError):
            raise answer
        return answer

    def ask(self, send: Callable[[], int], granted: Callable[[], None], what: str) -> None:
        """Send a request and do not wait; ``what`` is reported where it is refused. For the connection's own loop."""

        def answered(_: Any, error: EbusError | None) -> None:
            if error is None:
                granted()
            else:
                self.report(error, what)

        with self.lock:
            self._answers[send()] = answered
        self._driver.send()

    def request_page(self, reader: Reader) -> None:
        """Request the reader's next page of history, if it needs one. Called with the lock held."""
        request = reader.request_page()
        if request:
            self._answers[request] = reader.page_received
            self._driver.send()

    def wake_sender(self) -> None:
        """Send what the session has to send. Never blocks."""
        self._driver.send()

    # --- ending -----------------------------------------------------------------------------------------------------

    def flush(self, timeout: float) -> int:
        """Send what waits in batches, and wait until every write has its answer; returns how many have none."""
        with self.lock:
            self.session.flush_all()
        self._driver.send()
        with contextlib.suppress(TimeoutError):
            self._write_settled.wait(lambda: NOT_YET if self._settles and not self.is_closed else None, timeout, "")
        return len(self._settles)

    def close(self, timeout: float = CLOSE_SECONDS, error: EbusError | None = None) -> None:
        """End the connection, after the answers to its writes.

        Args:
            timeout: Seconds to wait for the answers. On the connection's own loop, none.
            error: What everyone who still waits is told. Default: that the client was closed.
        """
        if error is None:
            error = Closed(
                f"the client of {self.where} was closed here; ebus.bus() or ebus.connect() makes another one.",
                reason="closed",
            )
            if not self.on_own_loop and timeout > 0 and not self.is_closed:
                self._warn_of(self.flush(timeout))
        with self.lock:
            if self.session.closed is not None:
                return
            self.error = error
            events = self.session.close(error)
        self._perform(events)
        self._set_status("closed")
        self._filters.close()
        self._driver.stop()

    async def aclose(self, error: EbusError) -> None:
        """End the connection at once. Called on its own loop."""
        self.close(error=error)
        await self._driver.aclose()

    def _warn_of(self, unanswered: int) -> None:
        if unanswered:
            logger.warning(
                "%d write%s to %s had no answer when the client ended: nobody knows whether %s accepted. "
                "client.flush(timeout) waits for longer.",
                unanswered,
                "s" * (unanswered != 1),
                self.where,
                "it was" if unanswered == 1 else "they were",
            )

    # --- what the driver calls --------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        return self.session.closed is not None

    @property
    def was_welcomed(self) -> bool:
        return self._welcomed

    def connected(self) -> None:
        self._welcomed = False
        with self.lock:
            self.session.connection_made()

    def received(self, data: bytes) -> None:
        with self.lock:
            events = self.session.receive_data(data, time.monotonic())
        self._perform(events)

    def next_data(self) -> bytes | None:
        with self.lock:
            self.session.tick(time.monotonic())
            return self.session.data_to_send()

    def send_all(self, send: Callable[[bytes], None], has_room: Callable[[], bool]) -> None:
        # One lock for both: messages leave in the session's order, whichever thread sends them.
        with self.lock:
            self.session.tick(time.monotonic())
            while has_room() and (data := self.session.data_to_send()) is not None:
                send(data)

    def next_deadline(self) -> float | None:
        with self.lock:
            return self.session.next_deadline()

    def disconnected(self, error: Exception | None) -> None:
        if self.is_closed:
            return
        if error is not None and not isinstance(error, EbusError | OSError):
            self.report(
                error, f"the connection to {self.where} failed and is made again; this is a bug in ebus_jupyter"
            )
        with self.lock:
            events = self.session.connection_lost()
        self._perform(events)
        # While a server restarts, the proxy in front of it may refuse what was accepted before.
        if isinstance(error, Unauthenticated | Forbidden) and not (self._was_live and "by_proxy" in error.details):
            self.close(error=error)
            return
        if not isinstance(error, EbusError):
            error = ConnectionLost(f"the connection to {self.where} was lost; the client connects again by itself.")
        self.error = error
        self._set_status("reconnecting")
        self._notify_topics()

    # --- what events cause ------------------------------------------------------------------------------------------

    def _perform(self, events: list[Event]) -> None:
        settled = False
        for event in events:
            try:
                if isinstance(event, WriteSettled):  # first: a busy writer has thousands of these
                    settle = self._settles.pop(event.id, None)
                    if settle is not None:
                        settle(event.offset, event.error)
                    settled = True
                else:
                    self._perform_one(event)
            except Exception as error:
                self.report(error, "a message could not be handed over")
        if settled:
            self._write_settled.notify()

    def _perform_one(self, event: Event) -> None:
        match event:
            case MessagesArrived(channel) | PresenceChanged(channel) | BusOpened(channel):
                topic = self.topics.of(channel)
                if topic is not None:
                    if isinstance(event, PresenceChanged):
                        topic.presence_changed.notify()
                    topic.arrivals.notify()
            case RequestSettled(request, frame, error):
                answered = self._answers.pop(request, None)
                if answered is not None:
                    with self.lock:
                        answered(frame, error)
                self._notify_topics()
            case Welcomed():
                self.error, self._reported = None, ""
                self._was_live = self._welcomed = True
                self._set_status("live")
                self.status_changed.notify()
            case BusClosed(channel, _):
                topic = self.topics.remove(channel)
                if topic is not None:
                    topic.arrivals.notify()
            case FilterRequested():
                # Apart from the callbacks: others wait for a filter, and a callback may sleep.
                loop = self._loop or loop_thread("ebus-filters").loop
                asyncio.run_coroutine_threadsafe(self._filter(event), loop)
            case ConnectionEnded(error, reconnect):
                self.error = error
                if not reconnect:
                    self.close(error=error)

    async def _filter(self, request: FilterRequested) -> None:
        topic = self.topics.of(request.channel)
        if topic is None or topic.filter is None:
            return
        value, reject, failed = await self._filters.run(topic.filter, request.value, request.sender)
        with self.lock:
            self.session.answer_filter(request.channel, request.id, value, reject, failed=failed)
        self._driver.send()

    def _set_status(self, status: Status) -> None:
        if status != self.status:
            self.status = status
            self.status_changed.notify()
            for listener in [*self._status_listeners]:
                self.call(listener, status)
            self._notify_topics()

    def _notify_topics(self) -> None:
        for topic in self.topics:
            topic.arrivals.notify()

    # --- the process ------------------------------------------------------------------------------------------------

    def _forked(self) -> None:
        """This is a copy in a forked child. Its socket and its thread are the parent's."""
        self.lock = threading.RLock()  # the parent's may have been held at that moment, by a thread that is not here
        error = Closed(
            "this process was forked, and the ebus connections of its parent do not work here. Open what you need anew in "
            "the child (ebus.bus, ebus.connect), or start it with the multiprocessing method 'spawn'.",
            reason="forked",
        )
        self.error, self.status = error, "closed"
        self._settles.clear()
        self._answers.clear()
        with contextlib.suppress(RuntimeError):  # it may have been changing at that moment
            self.session.close(error)


def _flush_at_exit() -> None:
    deadline = time.monotonic() + EXIT_SECONDS
    for connection in list(_connections):
        if not connection.is_closed and not connection.on_own_loop:
            connection._warn_of(connection.flush(max(0.0, deadline - time.monotonic())))


def _after_fork() -> None:
    for connection in list(_connections):
        connection._forked()
    _connections.clear()


atexit.register(_flush_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
