"""What runs a client's connection: one seam, two drivers.

A `Driver` gives a `Connection` its transport and its time. It connects, hands over what arrives, sends what the session has
to send, and connects again whenever the transport is lost. `SocketDriver` does so on a socket and a thread of its own, for
kernels and scripts. `LoopDriver` does so on an event loop, for a broker in the same process and for the participants of a
Jupyter server.

Both are supervised. Whatever goes wrong while a connection is served (a frame, a value, a bug) ends that transport and
nothing else: the connection reports the error, and the driver connects again. All that may raise is in `_serve_once`, which
returns what was raised; what is outside it raises nothing but for want of memory, and then it is done again. So a driver ends
only with its client.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from ebus_jupyter.errors import Closed, ConnectionLost, EbusError
from ebus_jupyter.transports.base import Connect, Transport
from ebus_jupyter.transports.websocket import WebSocketLine

from . import guard

RETRY_SECONDS = (0.05, 2.0)
"""The first and the longest pause between attempts to reconnect. Each pause is a random part of a doubling bound ("full
jitter"), so that a class of clients does not come back all at once."""

LASTING_SECONDS = 1.0
"""A connection that lasts as long has served its purpose: the next attempt after it is the first one."""

BACKLOG_BYTES = 1 << 20
"""How much may wait in front of a socket that takes no more. Data beyond it stays in the session, which bounds it."""


class Served(Protocol):
    """What a driver needs of its connection. Every method may be called from any thread.

    `is_closed`, `was_welcomed` and `disconnected` never raise; the driver calls the others only where it is prepared for it.
    """

    @property
    def is_closed(self) -> bool:
        """Whether the client has ended, so that there is nothing left to connect for."""

    @property
    def was_welcomed(self) -> bool:
        """Whether the broker welcomed the client on the last transport."""

    def connected(self) -> None:
        """Note that there is a transport."""

    def received(self, data: bytes) -> None:
        """Take in one message; raises whatever is wrong with it."""

    def next_data(self) -> bytes | None:
        """Let time pass, and take the next message to send; None where there is none."""

    @property
    def needs_sender(self) -> bool:
        """Whether there may be data to send, or a new deadline."""

    def send_all(self, send: Callable[[bytes], None], has_room: Callable[[], bool]) -> float | None:
        """Let time pass, and call ``send`` with each message to send, in order and one at a time, while there is room.

        Returns:
            The `next_deadline`.
        """

    def next_deadline(self) -> float | None:
        """When to send again, whatever happens until then (`time.monotonic`); None where nothing waits for time."""

    def disconnected(self, error: BaseException | None) -> None:
        """Note that the transport has ended, or that none could be had; ``error`` says why, where that is known."""

    def end(self, error: EbusError) -> None:
        """End the client with ``error``: nothing can run it any more. Never raises."""


class Driver(Protocol):
    """Runs one connection."""

    def start(self, connection: Served) -> None:
        """Begin to connect, in the background."""

    def send(self) -> None:
        """Send what the session has to send, or look at its new deadline. Called from any thread; does not block."""

    def reconnect(self) -> None:
        """Give up the transport, and connect again. For a call that was interrupted (Ctrl-C) while it changed the session or
        sent: nobody knows how far it came, and the next connection sends whatever has no answer. Does not block."""

    def owns_caller(self) -> bool:
        """Whether the caller is on the thread that runs the connection, and so must not wait for it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that runs the connection; None where a thread does."""

    def stop(self) -> None:
        """End the transport after what was sent, and start none again. Called once the connection is closed."""

    async def aclose(self) -> None:
        """Wait until the driver has ended, after `stop`."""

    def forked(self) -> None:
        """This is a copy in a forked child: use nothing that is the parent's, and let go of what was copied."""


def pauses() -> Callable[[bool], float]:
    """A function that returns the seconds to wait before the next attempt, given whether the last one was welcomed.

    A connection that was welcomed and ends at once, again and again, is not much better than none: a broker that is in
    trouble, or a proxy, is not to be tried forty times a second by each client.
    """
    attempt, began = 0, time.monotonic()

    def pause(was_welcomed: bool) -> float:
        nonlocal attempt, began
        first, longest = RETRY_SECONDS
        ended = time.monotonic()
        attempt = 0 if was_welcomed and ended - began >= LASTING_SECONDS else attempt
        bound = min(longest, first * 2 ** min(attempt, 16))
        attempt += 1
        seconds = random.uniform(0, bound)
        began = ended + seconds
        return seconds

    return pause


class SocketDriver:
    """Runs a connection on a socket: each caller sends on its own thread; one thread receives and reconnects.

    Args:
        connect: Opens the socket; may block.
    """

    loop = None

    def __init__(self, connect: Callable[[], WebSocketLine]) -> None:
        self._connect = connect
        self._line: WebSocketLine | None = None
        self._sleeps_until: float | None = None
        self._failed: BaseException | None = None  # why a caller's thread has ended the line
        self._ident = 0  # of the receiving thread, while it runs
        self._receives = False  # the receiving thread is about to sleep, or does
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ebus", daemon=True)

    def start(self, connection: Served) -> None:
        self._connection = connection
        self._thread.start()

    def owns_caller(self) -> bool:
        return threading.get_ident() == self._ident

    def send(self) -> None:
        line = self._line
        if line is None:
            return
        if threading.get_ident() == self._ident:
            # The receiving thread looks for itself before it sleeps. Where a finaliser calls, the line may be in use here.
            if self._receives:
                line.wake()
        else:
            due = self._send(line)
            if due is not None and (self._sleeps_until is None or due < self._sleeps_until):
                line.wake()

    def _send(self, line: WebSocketLine) -> float | None:
        try:
            return self._connection.send_all(line.send, lambda: line.backlog < BACKLOG_BYTES)
        except ConnectionLost:
            return None  # the receiving thread finds out why
        except BaseException as error:
            # What was taken from the session may not have left, so this line has to end: the next one repeats it.
            self._failed = error
            line.fail()
            if isinstance(error, Exception):
                return None
            raise  # what interrupts a program interrupts it

    def reconnect(self) -> None:
        line = self._line
        if line is not None:
            line.fail()

    def stop(self) -> None:
        self._stopped.set()
        line = self._line
        if line is not None:
            line.close()

    async def aclose(self) -> None:
        await asyncio.to_thread(self._thread.join)

    def forked(self) -> None:
        line, self._line, self._ident = self._line, None, 0
        if line is not None:
            line.forked()

    def _run(self) -> None:
        self._ident = threading.get_ident()
        try:
            pause = pauses()
            while not self._connection.is_closed:
                guard.attempt(self._serve_and_rest, pause)
        finally:
            self._ident = 0  # another thread may get it

    def _serve_and_rest(self, pause: Callable[[bool], float]) -> None:
        connection = self._connection
        try:
            connection.disconnected(self._serve_once())
        finally:
            self._stopped.wait(pause(connection.was_welcomed))

    def _serve_once(self) -> BaseException:
        """Connect, and serve until the line ends; returns what has ended it, and raises nothing."""
        self._failed = None
        try:
            line = self._line = self._connect()
            try:
                self._serve(line)
            finally:
                self._line = None
                line.abandon()
        except BaseException as error:
            # An interrupt is the interrupted caller's affair.
            return self._failed if isinstance(self._failed, Exception) else error

    def _serve(self, line: WebSocketLine) -> NoReturn:
        connection = self._connection
        if connection.is_closed:  # meanwhile, when there was no line to close
            raise ConnectionLost("the client was closed.")
        connection.connected()
        due: float | None = None
        is_idle = False
        while True:
            self._receives = True  # whoever has something to send from now on wakes this thread
            # Whoever was woken by what arrived waits for this thread to block: most often there is nothing to send.
            if not is_idle or connection.needs_sender:
                self._sleeps_until = None  # until the deadline is known, a new one wakes this thread
                due = self._sleeps_until = self._send(line)
            messages = line.receive(None if due is None else due - time.monotonic())
            self._receives = False
            for data in messages:
                connection.received(data)
            is_idle = bool(messages)


class LoopDriver:
    """Runs a connection on an event loop.

    Args:
        connect: Opens a transport.
        loop: The loop; make the driver on the loop's thread, or say which thread it is.
        thread: The identifier of the loop's thread. Default: the caller's.
    """

    def __init__(self, connect: Connect, loop: asyncio.AbstractEventLoop, thread: int | None = None) -> None:
        self._connect = connect
        self._loop = loop
        self._thread = threading.get_ident() if thread is None else thread
        self._wake = asyncio.Event()
        self._wake_pending = False
        self._transport: Transport | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop_is_mine = True
        self._failed: BaseException | None = None  # why the sending task has ended the transport

    def start(self, connection: Served) -> None:
        self._connection = connection
        self._call(self._begin)

    def _begin(self) -> None:
        self._running = self._spawn(self._run())
        self._running.add_done_callback(self._ended)

    def owns_caller(self) -> bool:
        try:
            if asyncio.get_running_loop() is self._loop:
                return True
        except RuntimeError:
            pass
        # Before the loop runs, its thread is the one that made the driver: a wait there would never end.
        return not self._loop.is_running() and threading.get_ident() == self._thread

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def send(self) -> None:
        if not self._wake_pending:
            try:
                self._wake_pending = True
                self._call(self._wake_now)
            except BaseException:  # a KeyboardInterrupt: nobody else would wake it any more
                self._wake_pending = False
                raise

    def reconnect(self) -> None:
        self._call(lambda: self._spawn(self._drop_transport()))

    def stop(self) -> None:
        self._call(lambda: self._spawn(self._close_transport()))

    async def aclose(self) -> None:
        """Wait until the driver has ended. Called on its loop, after the connection was closed."""
        await self._close_transport()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def forked(self) -> None:
        self._loop_is_mine = False

    async def _drop_transport(self) -> None:
        if self._transport is not None:
            with contextlib.suppress(Exception):
                await self._transport.aclose()

    async def _close_transport(self) -> None:
        transport = self._transport
        if transport is not None:
            with contextlib.suppress(Exception):
                while (data := self._connection.next_data()) is not None:
                    await transport.send(data)
            with contextlib.suppress(Exception):
                await transport.aclose()
        self._wake.set()

    def _call(self, callback: Callable[[], Any]) -> None:
        if not self._loop_is_mine:
            return
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop is closed: the process, or the server, is ending
            self._ended()

    def _spawn(self, job: Any) -> asyncio.Task[None]:
        task = self._loop.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _wake_now(self) -> None:
        self._wake_pending = False
        self._wake.set()

    async def _run(self) -> None:
        connection, pause = self._connection, pauses()
        while not connection.is_closed:
            connection.disconnected(await self._serve_once())
            if not connection.is_closed:
                await asyncio.sleep(pause(connection.was_welcomed))

    async def _serve_once(self) -> BaseException | None:
        """Connect, and serve until the transport ends; returns what has ended it.

        Raises:
            CancelledError: This task was cancelled. Nothing else.
        """
        self._failed = None
        try:
            transport = self._transport = await self._connect()
            try:
                if not self._connection.is_closed:  # meanwhile, when there was no transport to close
                    await self._serve(transport)
            finally:
                self._transport = None
                with contextlib.suppress(Exception):
                    await transport.aclose()
        except BaseException as error:
            if _is_cancelled():
                raise
            why = self._failed or error
            if isinstance(why, KeyboardInterrupt):  # it was meant for the program whose loop this is
                self._loop.call_soon(_interrupt)
            return why
        return self._failed

    def _ended(self, *_: object) -> None:
        """Nothing runs the connection any more: the client has ended, or its loop, and the client with it."""
        if not self._connection.is_closed:
            self._connection.end(Closed("the event loop that ran this client has ended.", reason="closed"))

    async def _serve(self, transport: Transport) -> None:
        connection = self._connection
        connection.connected()
        self._wake.set()
        sender = self._loop.create_task(self._send(transport))
        try:
            async for data in transport:
                connection.received(data)
                self._wake.set()
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, transport: Transport) -> None:
        connection = self._connection
        try:
            while True:
                self._wake.clear()
                while (data := connection.next_data()) is not None:
                    await transport.send(data)
                due = connection.next_deadline()
                # Not `wait_for`: before Python 3.12 it may swallow the cancellation, and then nobody ever ends this task.
                timer = None if due is None else self._loop.call_later(due - time.monotonic(), self._wake.set)
                try:
                    await self._wake.wait()
                finally:
                    if timer is not None:
                        timer.cancel()
        except BaseException as error:  # nothing may leave a task of its own: the loop would end with it
            if _is_cancelled():
                raise
            self._failed = error
            with contextlib.suppress(Exception):
                await transport.aclose()  # the receiving side then ends, and `_serve_once` says why


def _is_cancelled() -> bool:
    """Whether somebody has cancelled this task; a `CancelledError` may also come from code that raises one."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt
