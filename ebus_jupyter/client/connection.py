"""A client's connection to its broker: the event loop, the bytes, and what the session's events cause.

`core.client.session` decides what to send and what a frame means. A `Connection` gives it a transport, a clock and a
thread, and opens the transport again whenever it is lost, for as long as the client lives.

The session belongs to one lock. Programs call in from any thread; one task on the connection's loop reads, one sends.
A kernel's connection runs on a thread of its own, so that neither a long cell nor a blocked callback keeps writes from
leaving or messages from arriving.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Literal, Protocol

from ebus_jupyter.core.client import events
from ebus_jupyter.core.client.channel import Channel
from ebus_jupyter.core.client.reader import Reader
from ebus_jupyter.core.client.session import Session
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

from .kernel_filter import FilterRunner
from .loop_thread import loop_thread
from .topic import Topic, TopicKey, TopicTable
from .waiting import NOT_YET, Condition

logger = logging.getLogger("ebus_jupyter")

Status = Literal["connecting", "live", "reconnecting", "closed"]

RETRY_SECONDS = (0.05, 5.0)
"""The first and the longest pause between attempts to reconnect. Each pause is a random part of a doubling bound ("full
jitter"), so that a class of clients does not come back all at once."""

REQUEST_SECONDS = 15.0
"""Default time limit for the answer to a request, such as opening a bus."""

WRITE_ROOM_SECONDS = 30.0
"""The time that a write waits while the client has as many unanswered writes as it may have."""

Settle = Callable[[int, EbusError | None], None]
"""Called with the outcome of a write: its offset, or 0 and why it was refused."""


class Owner(Protocol):
    """The `Client` that owns a connection, as its buses and states know it: clients are made of connections."""

    handle: Callable[[Any], str] | None

    @property
    def where(self) -> str: ...
    @property
    def status(self) -> Status: ...
    @property
    def why(self) -> EbusError | None: ...
    @property
    def you(self) -> Participant | None: ...
    @property
    def embedded(self) -> bool: ...
    @property
    def relay(self) -> Connect: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def connection(self) -> Connection: ...
    def on_status(self, listener: Callable[[str], None]) -> None: ...
    def wait_live(self, timeout: float | None) -> None: ...
    def open_bus(self, name: str | None, type: Any = ..., **options: Any) -> Any: ...
    def buses(self, timeout: float = ...) -> list[dict[str, Any]]: ...
    def close(self) -> None: ...


class Connection:
    """One client's connection to its broker; opened at once, and again whenever it is lost.

    The arguments are those of `Client`.

    Attributes:
        client: The `Client` that owns this connection.
        session: The protocol's state. Use it only while holding ``lock``.
        topics: The buses that are open here.
        status: "connecting", "live", "reconnecting" or "closed".
        status_changed: Notified when ``status`` changes.
        error: Why the connection is not live; None while it is.
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
        self.client: Owner | None = None
        self.where = where
        self.relay = relay or connect
        self.embedded = embedded
        self.lock = threading.RLock()
        self.session = Session(secrets.token_hex(16), client="python")
        self.topics = TopicTable()
        self.status: Status = "connecting"
        self.status_changed = Condition()
        self.error: EbusError | None = None
        if loop is None:
            _, self.loop, self._thread = loop_thread()
        else:
            self.loop, self._thread = loop, threading.get_ident()
        self._connect = connect
        self._transport: Transport | None = None
        self._wake = asyncio.Event()
        self._wake_pending = False
        self._settles: dict[int, Settle] = {}
        self._answers: dict[int, Callable[[Any, EbusError | None], None]] = {}
        self._write_settled = Condition()
        self._status_listeners: list[Callable[[str], None]] = []
        self._filters = FilterRunner()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._call_on_loop(lambda: self._spawn(self._run()))

    # --- blocking ---------------------------------------------------------------------------------------------------

    @property
    def on_own_loop(self) -> bool:
        """True if the caller is on this connection's loop, which must not be blocked.

        Before the loop runs, the thread that made the connection counts as its own: a wait there would never end.
        """
        try:
            if asyncio.get_running_loop() is self.loop:
                return True
        except RuntimeError:
            pass
        return not self.loop.is_running() and threading.get_ident() == self._thread

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

    # --- calls from any thread --------------------------------------------------------------------------------------

    def on_status(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with each new status, on the connection's thread."""
        self._status_listeners.append(listener)

    def find(self, key: TopicKey) -> Topic | None:
        """The topic that is open here, or being opened, under this name. Called with the lock held."""
        channel = self.session.find(key.scope, key.name, key.owner, key.capability)
        return self.topics.opened_as(key) if channel is None else self.topics.of(channel)

    def release(self, topic: Topic) -> None:
        """Note that one holder of a topic has closed it; the last one leaves the bus."""
        with self.lock:
            topic.holders -= 1
            last = topic.holders == 0
            if last:
                self.topics.forget_names(topic)
                happened = self.session.leave(topic.channel)
        if last:
            self.wake_sender()
            self._call_on_loop(lambda: self._spawn(self._perform(happened)))
        topic.arrivals.notify()

    def publish(self, channel: Channel, settle: Settle, value: bytes, **options: Any) -> None:
        """Send a write; waits while too many writes have no answer yet.

        Args:
            channel: The bus.
            settle: Called with the outcome, on the connection's thread.
            value: The encoded value.
            options: As for `Session.publish`.

        Raises:
            RateLimited: There was no room for another write within `WRITE_ROOM_SECONDS`.
        """
        deadline = time.monotonic() + WRITE_ROOM_SECONDS
        while True:
            with self.lock:
                try:
                    self._settles[self.session.publish(channel, value, time.monotonic(), **options)] = settle
                    break
                except RateLimited:
                    if time.monotonic() > deadline:
                        raise
                    self.ensure_may_block("a write while too many have no answer")
            with contextlib.suppress(TimeoutError):
                self._write_settled.wait(
                    lambda: None if len(self._settles) < self.session.max_pending else NOT_YET, 1.0, "no room"
                )
        self.wake_sender()

    def request(self, send: Callable[[], int], timeout: float | None = REQUEST_SECONDS) -> Any:
        """Send a request and wait for its answer.

        Args:
            send: Makes the request on the session, and returns its number.
            timeout: Seconds to wait; None: without a limit.

        Returns:
            The answering frame.
        """
        self.ensure_may_block("this call")
        answers: list[Any] = []
        arrived = Condition()

        def answered(frame: Any, error: EbusError | None) -> None:
            answers.append(error or frame)
            arrived.notify()

        with self.lock:
            self._answers[send()] = answered
        self.wake_sender()
        answer = arrived.wait(lambda: answers[0] if answers else NOT_YET, timeout, f"{self.where} has not answered")
        if isinstance(answer, EbusError):
            raise answer
        return answer

    def request_page(self, reader: Reader) -> None:
        """Request the reader's next page of history, if it needs one. Called with the lock held."""
        request = reader.request_page()
        if request:
            self._answers[request] = reader.page_received
            self.wake_sender()

    def wake_sender(self) -> None:
        """Tell the sending task that the session has data to send."""
        if not self._wake_pending:
            self._wake_pending = True
            self._call_on_loop(self._wake_now)

    def close(self) -> None:
        """End the connection in the background. Writes without an answer fail with `Closed`."""
        closed = Closed("this client was closed.", reason="closed")
        self._call_on_loop(lambda: self._spawn(self._close(closed)))

    async def aclose(self, error: EbusError) -> None:
        """End the connection, and return when all its tasks have ended. Called on the connection's loop."""
        await self._close(error)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def _wake_now(self) -> None:
        self._wake_pending = False
        self._wake.set()

    def _call_on_loop(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process, or the server, is ending
            self.loop.call_soon_threadsafe(callback)

    def _spawn(self, job: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("an internal task of the client failed, by a bug in ebus_jupyter", exc_info=task.exception())

    async def _run(self) -> None:
        """Connect, serve, reconnect: until the client is closed."""
        attempt = 0
        while self.session.closed is None:
            try:
                transport = await self._connect()
            except (Unauthenticated, Forbidden) as refused:
                await self._close(refused)
                return
            except (EbusError, OSError) as failed:
                self.error = failed if isinstance(failed, EbusError) else ConnectionLost(str(failed))
            else:
                welcomed = await self._serve(transport)
                attempt = 0 if welcomed else attempt
            if self.session.closed is None:
                self._set_status("reconnecting")
                first, longest = RETRY_SECONDS
                await asyncio.sleep(random.uniform(0, min(longest, first * 2**attempt)))
                attempt += 1

    async def _serve(self, transport: Transport) -> bool:
        """Use one transport until it ends; returns whether the broker welcomed this client on it."""
        self._transport = transport
        with self.lock:
            self.session.connection_made()
        sender = self.loop.create_task(self._send(transport))
        welcomed = False
        try:
            async for data in transport:
                with self.lock:
                    happened = self.session.receive_data(data, time.monotonic())
                welcomed = welcomed or any(isinstance(event, events.Welcomed) for event in happened)
                await self._perform(happened)
                if self.session.needs_sender:
                    self._wake.set()
        except ProtocolError as error:
            logger.error("%s", error)
            await self._close(error)
        finally:
            sender.cancel()
            with self.lock:
                unanswered = self.session.connection_lost()
            await self._perform(unanswered)
            with contextlib.suppress(EbusError, OSError):
                await transport.aclose()
            self._transport = None
            self._notify_topics()
        return welcomed

    async def _send(self, transport: Transport) -> None:
        with contextlib.suppress(ConnectionLost):
            while True:
                self._wake.clear()
                while True:
                    with self.lock:
                        self.session.tick(time.monotonic())
                        data = self.session.data_to_send()
                        deadline = self.session.next_deadline()
                    if data is None:
                        break
                    await transport.send(data)
                pause = None if deadline is None else max(0.0, deadline - time.monotonic())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)

    async def _close(self, error: EbusError) -> None:
        if self.session.closed is not None:
            return
        self.error = error
        if self._transport is not None and self.status == "live":
            with self.lock:
                self.session.tick(float("inf"))
                data = self.session.data_to_send()
            with contextlib.suppress(EbusError, OSError):
                if data is not None:
                    await self._transport.send(data)
        with self.lock:
            happened = self.session.close(error)
        await self._perform(happened)
        if self._transport is not None:
            with contextlib.suppress(EbusError, OSError):
                await self._transport.aclose()
        self._set_status("closed")
        self._filters.close()

    # --- what events cause ------------------------------------------------------------------------------------------

    async def _perform(self, happened: list[events.Event]) -> None:
        settled = False
        for event in happened:
            if isinstance(event, events.WriteSettled):  # first: a busy writer has thousands of these
                settle = self._settles.pop(event.id, None)
                if settle is not None:
                    settle(event.offset, event.error)
                settled = True
            else:
                await self._perform_one(event)
        if settled:
            self._write_settled.notify()

    async def _perform_one(self, event: events.Event) -> None:
        match event:
            case events.MessagesArrived(channel) | events.PresenceChanged(channel) | events.BusOpened(channel):
                topic = self.topics.of(channel)
                if topic is not None:
                    if isinstance(event, events.PresenceChanged):
                        topic.presence_changed.notify()
                    topic.arrivals.notify()
            case events.RequestSettled(request, frame, error):
                answered = self._answers.pop(request, None)
                if answered is not None:
                    with self.lock:
                        answered(frame, error)
                self._notify_topics()
            case events.Welcomed():
                self.error = None
                self._set_status("live")
                self.status_changed.notify()
            case events.BusClosed(channel, _):
                topic = self.topics.remove(channel)
                if topic is not None:
                    topic.arrivals.notify()
            case events.FilterRequested():
                self._spawn(self._filter(event))
            case events.ConnectionEnded(error, reconnect):
                self.error = error
                if not reconnect:
                    await self._close(error)

    async def _filter(self, request: events.FilterRequested) -> None:
        topic = self.topics.of(request.channel)
        if topic is None or topic.filter is None:
            return
        value, reject, failed = await self._filters.run(topic.filter, request.value, request.sender)
        with self.lock:
            self.session.answer_filter(request.channel, request.id, value, reject, failed=failed)
        self.wake_sender()

    def _set_status(self, status: Status) -> None:
        if status != self.status:
            self.status = status
            self.status_changed.notify()
            for listener in [*self._status_listeners]:
                try:
                    listener(status)
                except Exception:
                    logger.exception("a status listener failed")
            self._notify_topics()

    def _notify_topics(self) -> None:
        for topic in self.topics:
            topic.arrivals.notify()
