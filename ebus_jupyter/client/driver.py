"""What runs a client's connection: one seam, two drivers.

A `Driver` gives a `Connection` its transport and its time. It connects, hands over what arrives, sends what the session has
to send, and connects again whenever the transport is lost. `SocketDriver` does so on a socket and a thread of its own, for
kernels and scripts. `LoopDriver` does so on an event loop, for a broker in the same process and for the participants of a
Jupyter server.

Both are supervised. Whatever goes wrong while a connection is served (a frame, a value, a bug) ends that transport and
nothing else: the connection reports the error, and the driver connects again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from ebus_jupyter.errors import ConnectionLost
from ebus_jupyter.transports.base import Connect, Transport
from ebus_jupyter.transports.websocket import WebSocketLine

RETRY_SECONDS = (0.05, 3.0)
"""The first and the longest pause between attempts to reconnect. Each pause is a random part of a doubling bound ("full
jitter"), so that a class of clients does not come back all at once."""

BACKLOG_BYTES = 1 << 20
"""How much may wait in front of a socket that takes no more. Data beyond it stays in the session, which bounds it."""


class Served(Protocol):
    """What a driver needs of its connection. Every method may be called from any thread; only `received` raises."""

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

    def send_all(self, send: Callable[[bytes], None], has_room: Callable[[], bool]) -> None:
        """Let time pass, and call ``send`` with each message to send, in order and one at a time, while there is room."""

    def next_deadline(self) -> float | None:
        """When to send again, whatever happens until then (`time.monotonic`); None where nothing waits for time."""

    def disconnected(self, error: Exception | None) -> None:
        """Note that the transport has ended, or that none could be had; ``error`` says why, where that is known."""


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


def pauses() -> Callable[[bool], float]:
    """A function that returns the seconds to wait before the next attempt, given whether the last one was welcomed."""
    attempt = 0

    def pause(was_welcomed: bool) -> float:
        nonlocal attempt
        first, longest = RETRY_SECONDS
        attempt = 0 if was_welcomed else attempt
        bound = min(longest, first * 2 ** min(attempt, 16))
        attempt += 1
        return random.uniform(0, bound)

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
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ebus", daemon=True)

    def start(self, connection: Served) -> None:
        self._connection = connection
        self._thread.start()

    def owns_caller(self) -> bool:
        return threading.current_thread() is self._thread

    def send(self) -> None:
        line = self._line
        if line is None:
            return
        try:
            self._connection.send_all(line.send, lambda: line.backlog < BACKLOG_BYTES)
        except ConnectionLost:
            pass  # the receiving thread finds out why
        except BaseException:
            self.reconnect()
            raise
        due = self._connection.next_deadline()
        if due is not None and (self._sleeps_until is None or due < self._sleeps_until):
            line.wake()

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

    def _run(self) -> None:
        connection, pause = self._connection, pauses()
        while not connection.is_closed:
            error: Exception | None = None
            try:
                self._line = self._connect()
                self._serve(self._line)
            except Exception as failed:
                error = failed
            finally:
                line, self._line = self._line, None
                if line is not None:
                    line.abandon()
            connection.disconnected(error)
            self._stopped.wait(pause(connection.was_welcomed))

    def _serve(self, line: WebSocketLine) -> None:
        connection = self._connection
        connection.connected()
        while True:
            self.send()
            due = self._sleeps_until = connection.next_deadline()
            for data in line.receive(None if due is None else due - time.monotonic()):
                connection.received(data)


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

    def start(self, connection: Served) -> None:
        self._connection = connection
        self._call(lambda: self._spawn(self._run()))

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

    def _call(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process, or the server, is ending
            self._loop.call_soon_threadsafe(callback)

    def _spawn(self, job: Any) -> None:
        task = self._loop.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _wake_now(self) -> None:
        self._wake_pending = False
        self._wake.set()

    async def _run(self) -> None:
        connection, pause = self._connection, pauses()
        while not connection.is_closed:
            error: Exception | None = None
            try:
                self._transport = await self._connect()
                await self._serve(self._transport)
            except Exception as failed:
                error = failed
            finally:
                transport, self._transport = self._transport, None
                if transport is not None:
                    with contextlib.suppress(Exception):
                        await transport.aclose()
            connection.disconnected(error)
            if not connection.is_closed:
                await asyncio.sleep(pause(connection.was_welcomed))

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
            (failed,) = await asyncio.gather(sender, return_exceptions=True)
        if isinstance(failed, Exception):
            raise failed

    async def _send(self, transport: Transport) -> None:
        connection = self._connection
        try:
            while True:
                self._wake.clear()
                while (data := connection.next_data()) is not None:
                    await transport.send(data)
                due = connection.next_deadline()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), None if due is None else max(0.0, due - time.monotonic()))
        except Exception:
            with contextlib.suppress(Exception):
                await transport.aclose()  # the receiving side then ends, and raises this
            raise
