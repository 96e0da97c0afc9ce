"""One WebSocket of the server, on the socket that tornado has accepted.

tornado parses the HTTP request and lets go of the connection. From there on `websockets` provides the protocol without I/O,
as it does for the client (`ebus_jupyter.transports.websocket`), and this module carries its bytes. A message is handed over
in the round of the event loop that reads it, and sent without a future or a task: tornado's own WebSockets need three futures
and a task switch to read one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from tornado.ioloop import IOLoop
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

RECEIVE_BYTES = 1 << 16
"""The most that is taken from the socket at once."""

DIRECT_BYTES = 1 << 17
"""The most that is given to the socket at once. Windows accepts no more in one call, according to tornado."""

CLOSE_SECONDS = 5.0
"""How long a client may take for its half of the closing handshake."""

BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

logger = logging.getLogger("ebus_jupyter.websocket")
logger.setLevel(logging.WARNING)  # `websockets` notes the end of each connection


class Receiver(Protocol):
    """What a `WebSocket` hands over to."""

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        """Take a message. The next one is handed over when the returned awaitable is done."""

    def on_hang_up(self) -> None:
        """The connection has ended while a message was waited for: nothing more is sent. `on_close` follows."""

    def on_close(self) -> None:
        """The connection has ended. Called once, after the last message."""


class WebSocket:
    """A connection after its opening handshake; an implementation of `ebus_jupyter.broker.outlet.Outlet`.

    It belongs to the event loop that made it.

    Args:
        connected: The socket.
        receiver: Takes what arrives.
        early: What has arrived with the handshake.
        message_bytes: The largest message. Above it, the connection is closed without a reason.
        buffer_bytes: The most that may wait for the socket. Above it, the connection is aborted.
        ping_seconds: The time between pings. A client that from one to the next neither sends anything nor takes anything of
            what waits for it is gone; so is one that takes nothing, whatever it sends. 0: no pings.
    """

    __slots__ = (
        "_asyncio",
        "_buffer_bytes",
        "_buffered",
        "_drained",
        "_ends",
        "_events",
        "_frames",
        "_heard",
        "_is_open",
        "_is_text",
        "_loop",
        "_lost",
        "_moved",
        "_parts",
        "_ping_seconds",
        "_protocol",
        "_receiver",
        "_socket",
        "_timer",
        "_told",
        "_unsent",
        "_waiting",
    )

    def __init__(
        self,
        connected: socket.socket,
        receiver: Receiver,
        early: bytes = b"",
        *,
        message_bytes: int,
        buffer_bytes: int,
        ping_seconds: float = 0.0,
    ) -> None:
        connected.setblocking(False)
        with contextlib.suppress(OSError):  # not a TCP socket
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._receiver = receiver
        self._protocol = ServerProtocol(state=State.OPEN, max_size=message_bytes, logger=logger)
        self._buffer_bytes = buffer_bytes
        self._ping_seconds = ping_seconds
        self._frames: deque[Frame] = deque()  # arrived, and not handed over yet
        self._parts: list[bytes | bytearray | memoryview] = []  # of a message that came in several frames
        self._is_text = False
        self._waiting = False  # for the receiver, before the next message
        self._unsent: deque[memoryview] = deque()
        self._buffered = 0
        self._drained: Callable[[], None] | None = None
        self._heard = True
        self._moved = True  # the socket has taken some of what waited for it
        self._is_open = True  # neither side has begun to close
        self._ends = False  # what is unsent is the last
        self._lost = False
        self._told = False
        self._timer: asyncio.TimerHandle | None = None
        self._asyncio = asyncio.get_running_loop()
        self._loop = IOLoop.current()
        self._events = IOLoop.READ
        self._loop.add_handler(connected, self._ready, self._events)
        if ping_seconds:
            self._timer = self._asyncio.call_later(ping_seconds, self._ping)
        if early:
            self._asyncio.call_soon(self._received, early)

    # --- the outlet -------------------------------------------------------------------------------------------------

    @staticmethod
    def pack(parts: list[bytes]) -> bytes:
        """Return an unmasked binary WebSocket frame."""
        size = sum(map(len, parts))
        if size < 126:
            head = bytes((0x82, size))
        elif size < 1 << 16:
            head = b"\x82\x7e" + size.to_bytes(2, "big")
        else:
            head = b"\x82\x7f" + size.to_bytes(8, "big")
        return b"".join([head, *parts])

    def send_packed(self, packed: bytes) -> None:
        if self._is_open:
            self._write(packed)

    def buffered(self) -> int:
        return self._buffered

    def on_drain(self, callback: Callable[[], None]) -> None:
        if self._buffered:
            self._drained = callback
        else:
            self._asyncio.call_soon(callback)

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, after everything that was handed over. Safe to call twice."""
        if self._is_open:
            self._is_open = False
            self._frames.clear()
            self._protocol.send_close(code, reason.encode()[:120].decode(errors="ignore"))
            self._write_protocol()
            self._close_within(CLOSE_SECONDS)

    def abort(self) -> None:
        """End the connection at once. Safe to call twice."""
        if not self._lost:
            self._lost, self._is_open = True, False
            self._unsent.clear()
            self._buffered = 0
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._loop.remove_handler(self._socket)
            self._socket.close()
            self._drain()
            if not self._waiting:
                self._end()
            elif not self._told:
                self._receiver.on_hang_up()

    # --- events -----------------------------------------------------------------------------------------------------

    def _ready(self, _: Any, events: int) -> None:
        try:
            if events & IOLoop.WRITE:
                self._write_rest()
            if events & ~IOLoop.WRITE and not self._lost:
                self._receive()
        except Exception:
            logger.exception("ebus: a WebSocket failed and is closed; please report this")
            self.abort()

    def _receive(self) -> None:
        while True:
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except BLOCKED:
                return
            except OSError:
                data = b""
            if not data:
                self.abort()
                return
            self._received(data)
            # TLS may hold more than the event loop knows of.
            if self._lost or not (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
                return

    def _received(self, data: bytes) -> None:
        self._heard = True
        protocol = self._protocol
        protocol.receive_data(data)
        arrived = protocol.events_received()
        if self._is_open:
            self._frames += arrived  # type: ignore[arg-type]  # after the handshake, all events are frames
            if not self._waiting:
                self._hand_over()
            elif self._frames:
                self._listen(read=False)  # until then TCP slows the client down
        self._write_protocol()  # what the protocol answers by itself: pongs, the closing handshake

    def _hand_over(self) -> None:
        """Hand over messages until the receiver is to be waited for."""
        frames = self._frames
        while frames:
            frame = frames.popleft()
            awaited: Awaitable[None] | None = None
            if frame.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
                if frame.opcode is not Opcode.CONT:
                    self._is_text = frame.opcode is Opcode.TEXT
                if frame.fin and not self._parts:
                    awaited = self._message(frame.data)
                else:
                    self._parts.append(frame.data)
                    if frame.fin:
                        parts, self._parts = self._parts, []
                        awaited = self._message(b"".join(parts))
            elif frame.opcode is Opcode.CLOSE:
                self._is_open = False
                self._end()
            if awaited is not None:
                self._waiting = True
                asyncio.ensure_future(awaited).add_done_callback(self._go_on)
                return
        if self._lost:
            self._end()

    def _message(self, data: bytes | bytearray | memoryview) -> Awaitable[None] | None:
        message = data if isinstance(data, bytes) else bytes(data)
        return self._receiver.on_message(message.decode(errors="replace") if self._is_text else message)

    def _go_on(self, awaited: asyncio.Future[None]) -> None:
        self._waiting = False
        try:
            if not awaited.cancelled():
                awaited.result()
            self._hand_over()
            if not self._lost and not self._waiting:
                self._listen(read=True)
        except Exception:
            logger.exception("ebus: a WebSocket failed and is closed; please report this")
            self.abort()

    def _end(self) -> None:
        if not self._told:
            self._told = True
            self._receiver.on_close()

    def _listen(self, *, read: bool | None = None, write: bool | None = None) -> None:
        """Have the event loop watch the socket for reading, or for writing; None: as before."""
        events = self._events
        if read is not None:
            events = events | IOLoop.READ if read else events & ~IOLoop.READ
        if write is not None:
            events = events | IOLoop.WRITE if write else events & ~IOLoop.WRITE
        if events != self._events:
            self._events = events
            self._loop.update_handler(self._socket, events)

    # --- writing ----------------------------------------------------------------------------------------------------

    def _write_protocol(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._write(data)
            else:  # the handshake is complete, or the client has violated the protocol
                self._is_open, self._ends = False, True
                self._close_within(CLOSE_SECONDS)
                if not self._waiting:
                    self._end()
                if not self._unsent:
                    self._write_end()

    def _write(self, data: bytes) -> None:
        if self._lost:
            return
        sent = 0
        if not self._unsent:
            try:
                sent = self._socket.send(data if len(data) <= DIRECT_BYTES else memoryview(data)[:DIRECT_BYTES])
            except BLOCKED:
                pass
            except OSError:  # broken; its end is not for the caller, who may be in the midst of something
                self._asyncio.call_soon(self.abort)
                return
            if sent == len(data):
                return
        self._unsent.append(memoryview(data)[sent:])
        self._buffered += len(data) - sent
        if self._buffered > self._buffer_bytes:
            self._asyncio.call_soon(self.abort)
        self._listen(write=True)

    def _write_rest(self) -> None:
        unsent = self._unsent
        try:
            while unsent:
                sent = self._socket.send(unsent[0][:DIRECT_BYTES])
                self._moved = True
                self._buffered -= sent
                if sent == len(unsent[0]):
                    unsent.popleft()
                else:
                    unsent[0] = unsent[0][sent:]
        except BLOCKED:
            return
        except OSError:
            self.abort()
            return
        self._listen(write=False)
        self._drain()
        if self._ends:
            self._write_end()

    def _write_end(self) -> None:
        """Everything was sent: the server closes first. Where data of the client may be unread, that would reset the line."""
        if self._protocol.close_rcvd is not None:
            self.abort()
        elif not isinstance(self._socket, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def _drain(self) -> None:
        callback, self._drained = self._drained, None
        if callback is not None:
            self._asyncio.call_soon(callback)

    # --- time -------------------------------------------------------------------------------------------------------

    def _ping(self) -> None:
        # An answer may wait behind megabytes on a slow line: what counts is that something moves.
        if not (self._moved if self._buffered else self._heard):
            self.abort()
            return
        self._heard = self._moved = False
        self._protocol.send_ping(b"")
        self._write_protocol()
        self._timer = self._asyncio.call_later(self._ping_seconds, self._ping)

    def _close_within(self, seconds: float) -> None:
        if not self._lost:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._asyncio.call_later(seconds, self.abort)
