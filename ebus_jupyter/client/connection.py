"""A client's connection to its broker, as the threads of a program see it.

`core.client.session` decides what to send and what a frame means. A `Connection` puts a lock around it, gives it a clock, and
carries out what its events cause; a `Driver` brings the transport. A program's thread encodes a write and sends it itself;
the driver's thread receives, decides, and wakes whoever waits.

No callback, filter or listener of a program runs on the driver's thread: what they do, or how long they take, can't hold a
message up or end the connection. They run on event loops of the process that are started when they are first needed, one for
callbacks (`loop`) and one for filters; or on the loop that the driver was given. A `State` decodes and compares on the driver's
thread, so the constructor and ``__eq__`` of a program's own type do run there: they can't end the connection, but slow it.

What the driver calls never raises, but for `received`, whose errors end the transport: so the driver's thread ends with the
client only. `status` is what the program sees of that.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from ebus_jupyter.core.client.channel import Channel
from ebus_jupyter.core.client.events import (
    BusClosed,
    BusOpened,
    ConnectionEnded,
    Event,
    FilterRequested,
    MessagesArrived,
    PresenceChanged,
    PresenceRefused,
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
    Unauthenticated,
)
from ebus_jupyter.transports.base import Connect

from . import background, guard, process
from .driver import Driver
from .kernel_filter import FilterRunner, KernelFilter
from .loop_thread import loop_thread
from .owner import Owner
from .reports import Reports
from .topic import Topic, TopicKey, TopicTable
from .waiting import NOT_YET, Condition
from .writes import Writes

logger = logging.getLogger("ebus_jupyter")

Status = Literal["connecting", "live", "reconnecting", "closed"]

REQUEST_SECONDS = 15.0
"""Default time limit for the answer to a request, such as opening a bus."""

CLOSE_SECONDS = 5.0
"""The default time that `close` waits for the answers to writes."""


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
        self._reports = Reports(loop)
        self.call = self._reports.call
        self.report = self._reports.error
        self.on_status = self._reports.on_status
        self.on_error = self._reports.on_error
        self._answers: dict[int, Callable[[Any, EbusError | None], None]] = {}
        self.status_changed = Condition()
        self._writes = Writes(self.session, self.lock, driver, where)
        self.publish = self._writes.publish
        self.publish_soon = self._writes.publish_soon
        self.flush = self._writes.flush
        self._was_live = self._welcomed = False
        self._filters = FilterRunner(loop)
        process.watch(self)
        driver.start(self)

    # --- blocking and calling ---------------------------------------------------------------------------------------

    @property
    def on_own_loop(self) -> bool:
        """Whether the caller must not block: it is on the thread that runs this connection, or has interrupted it."""
        return self._driver.owns_caller() or self.is_interrupted

    @property
    def is_interrupted(self) -> bool:
        """Whether the caller has interrupted this connection's own code on its thread: a finaliser, or a signal handler.

        Such code must neither wait (nothing goes on until it returns) nor change the session, which may be half changed.
        """
        return self.lock._is_owned()  # type: ignore[attr-defined, no-any-return]

    def ensure_not_interrupted(self, what: str) -> None:
        """Refuse what a finaliser or a signal handler can't do while it interrupts this connection.

        Raises:
            RuntimeError: It does; the text names ``what`` was called.
        """
        if self.is_interrupted:
            raise RuntimeError(
                f"{what} was called by a finaliser or a signal handler that has interrupted the client. There you may write "
                "and close; call this on another thread, or later."
            )

    def ensure_may_block(self, what: str) -> None:
        """Refuse to block the loop that would have to end the wait.

        Raises:
            RuntimeError: The caller is on the connection's own loop; the text names ``what`` was called.
        """
        self.ensure_not_interrupted(what)
        if self.on_own_loop:
            raise RuntimeError(
                f"{what} would block the event loop that it waits for. "
                "Use `await` or `async for` here, or call it by asyncio.to_thread."
            )

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that callbacks and feeds run on; started when it is first needed."""
        return self._reports.loop

    @property
    def relay_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop for the transports that `relay` opens."""
        return self._driver.loop or loop_thread("ebus-relay").loop

    # --- calls from any thread --------------------------------------------------------------------------------------

    def find(self, key: TopicKey) -> Topic | None:
        """The topic that is open here, or being opened, under this name. Called with the lock held."""
        channel = self.session.find(key.scope, key.name, key.owner, key.capability)
        return self.topics.opened_as(key) if channel is None else self.topics.of(channel)

    def release(self, topic: Topic) -> None:
        """Note that one holder of a topic has closed it; the last one leaves the bus."""
        if self.is_interrupted:
            background.later(0, self.release, topic)
            return
        events: list[Event] = []
        with self.lock:
            topic.holders -= 1
            if topic.holders == 0:
                self.topics.forget_names(topic)
                events = self.session.leave(topic.channel)
        self.wake_sender()
        self._perform(events)
        topic.arrivals.notify()

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
            try:
                if error is None:
                    granted()
            finally:
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

    def flush_batch(self, channel: Channel) -> None:
        """Send the writes that wait in the bus's batch."""
        if self.is_interrupted:
            background.later(0, self.flush_batch, channel)
            return
        with self.lock:
            self.session.flush(channel)
        self.wake_sender()

    def request_page(self, reader: Reader) -> None:
        """Request the reader's next page of history, if it needs one. Called with the lock held."""
        request = reader.request_page()
        if request:
            self._answers[request] = reader.page_received
            self._driver.send()

    def start_filter(self, kernel_filter: KernelFilter) -> None:
        """Make what the calls of a bus's filter need."""
        self._filters.start(kernel_filter.function)

    def wake_sender(self) -> None:
        """Send what the session has to send. Never blocks."""
        self._driver.send()

    # --- ending -----------------------------------------------------------------------------------------------------

    def close(self, timeout: float = CLOSE_SECONDS, error: EbusError | None = None) -> None:
        """End the connection, after the answers to its writes.

        Args:
            timeout: Seconds to wait for the answers. On the connection's own loop, none.
            error: What everyone who still waits is told. Default: that the client was closed.
        """
        if self.is_interrupted:
            background.later(0, self.close, timeout, error)
            return
        if error is None:
            error = Closed(
                f"the client of {self.where} was closed here; ebus.bus() or ebus.connect() makes another one.",
                reason="closed",
            )
            if not self.on_own_loop and timeout > 0 and not self.is_closed:
                self._writes.warn(self.flush(timeout))
        with self.lock:
            if self.session.closed is not None:
                return
            events = guard.attempt(self.session.close, error) or []
        self._perform(events)
        self._settle_rest(error)
        self._set_status("closed", error)
        self._filters.close()
        self._driver.stop()

    def _settle_rest(self, error: EbusError) -> None:
        """Give an answer to everything that waits for one. The session has done so, unless it failed."""
        self._writes.end(error)
        while self._answers:
            guard.attempt(self._answers.popitem()[1], None, error)

    def end(self, error: EbusError) -> None:
        guard.attempt(self.close, 0.0, error)

    async def aclose(self, error: EbusError) -> None:
        """End the connection at once. Called on its own loop."""
        self.close(error=error)
        await self._driver.aclose()

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
        events: list[Event] = []
        try:
            with self.lock:
                self.session.receive_data(data, time.monotonic(), events)
        finally:  # what came before a frame that is wrong has happened
            self._perform(events)

    def next_data(self) -> bytes | None:
        with self.lock:
            self.session.tick(time.monotonic())
            return self.session.data_to_send()

    @property
    def needs_sender(self) -> bool:
        with self.lock:
            return self.session.needs_sender or self.session.next_deadline() is not None

    def send_all(self, send: Callable[[bytes], None], has_room: Callable[[], bool]) -> float | None:
        # One lock for both: messages leave in the session's order, whichever thread sends them.
        with self.lock:
            self.session.tick(time.monotonic())
            while has_room() and (data := self.session.data_to_send()) is not None:
                send(data)
            return self.session.next_deadline()

    def next_deadline(self) -> float | None:
        with self.lock:
            return self.session.next_deadline()

    def disconnected(self, error: BaseException | None) -> None:
        if self.is_closed:
            return
        if error is not None and not isinstance(error, EbusError | OSError):
            self.report(
                error, f"the connection to {self.where} failed and is made again; this is a bug in ebus_jupyter"
            )
        # While a server restarts, the proxy in front of it may refuse what was accepted before.
        if isinstance(error, Unauthenticated | Forbidden) and not (self._was_live and "by_proxy" in error.details):
            self.end(error)
            return
        why = (
            error
            if isinstance(error, EbusError)
            else ConnectionLost(f"the connection to {self.where} was lost; the client connects again by itself.")
        )
        guard.attempt(self._lose)
        self._set_status("reconnecting", why)

    def _lose(self) -> None:
        with self.lock:
            events = self.session.connection_lost()
        self._perform(events)

    # --- what events cause ------------------------------------------------------------------------------------------

    def _perform(self, events: list[Event]) -> None:
        settles, settled, interrupted = self._writes.settles, False, False
        for event in events:
            try:
                if isinstance(event, WriteSettled):  # first: a busy writer has thousands of these
                    settle = settles.pop(event.id, None)
                    if settle is not None:
                        settle(event.offset, event.error)
                    settled = True
                else:
                    self._perform_one(event)
            except BaseException as error:  # of a listener or a decoder: it must not keep the others from their events
                interrupted = interrupted or isinstance(error, KeyboardInterrupt)
                self.report(error, "a message could not be handed over")
        if settled:
            self._writes.settled.notify()
        if interrupted:
            raise KeyboardInterrupt

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
                self._was_live = self._welcomed = True
                self._set_status("live", None)
            case PresenceRefused(_, error):
                self.report(error, "presence.set() was refused")
            case BusClosed(channel, _):
                topic = self.topics.remove(channel)
                if topic is not None:
                    topic.arrivals.notify()
            case FilterRequested():
                # Apart from the callbacks: others wait for a filter, and a callback may sleep.
                asyncio.run_coroutine_threadsafe(self._filter(event), self._filters.loop)
            case ConnectionEnded(error, reconnect):
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

    def _set_status(self, status: Status, error: EbusError | None) -> None:
        with self.lock:  # a welcome or a loss that another thread is told of at the end of the client changes nothing
            if self.is_closed and status != "closed":
                return
            changed = status != self.status
            self.status, self.error = status, error
        if not changed:
            return
        for tell in (self.status_changed.notify, partial(self._reports.status, status), self._notify_topics):
            guard.attempt(tell)

    def _notify_topics(self) -> None:
        for topic in self.topics:
            topic.arrivals.notify()

    # --- the process: see `process` -----------------------------------------------------------------------------------

    def flush_at_exit(self, timeout: float) -> None:
        if not self.is_closed and not self.on_own_loop:
            self._writes.warn(self.flush(timeout))

    def forked(self, error: EbusError) -> None:
        self.lock = self._writes.lock = (
            threading.RLock()
        )  # the parent's may have been held at that moment, by a thread that is not here
        guard.attempt(self._driver.forked)
        self.error, self.status = error, "closed"
        guard.attempt(self.session.close, error)  # it may have been changing at that moment
        self.session.closed = error
        self._settle_rest(error)
