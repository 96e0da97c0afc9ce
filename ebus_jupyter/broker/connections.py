"""The connections, and what is sent to them.

Three habits make fan-out cheap:

- A frame is encoded once, and all connections that receive it share its bytes.
- The frames that one iteration of the event loop has for a connection are sent as one WebSocket message. Connections that
  receive the same frames receive the same message, which is built once.
- A connection whose socket is full is sent nothing more. The broker serves it from the log once it has drained. However
  long that takes, it is closed for one of two reasons only: its socket takes nothing at all (see `server.websocket`), or it
  goes on asking for replies that it does not read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from ebus_jupyter.core.broker.effects import Deliver
from ebus_jupyter.core.broker.state import BrokerState
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.errors import Closed

from .figures import Timing
from .outlet import Connection, Outlet
from .performer import Performer
from .time_slice import TimeSlice

_TOLD = {kind.__struct_config__.tag for kind in (frames.Error, frames.Bye, frames.Lag, frames.Subscribed)}
"""The tags of the frames that are counted. A tag is the second byte of its frame."""

_decode = msgspec.msgpack.Decoder(frames.Error | frames.Bye | frames.Lag | frames.Subscribed).decode


class Connections:
    """The connections of one broker.

    Args:
        state: The state machine.
        host: Performs its effects.
        limits: The bounds.
        clock: Seconds, of any clock that only goes forward.
        log: Where a connection that had to be closed is reported.

    Attributes:
        refusals: Errors that were sent, by code.
        lags: Readers that were told that they had missed messages.
        sent_bytes: Bytes that were handed to sockets.
        delivering: How long deliveries took.
    """

    def __init__(
        self,
        state: BrokerState,
        host: Performer,
        limits: Limits,
        clock: Callable[[], float],
        log: logging.Logger,
    ) -> None:
        self._state = state
        self._host = host
        self._limits = limits
        self._clock = clock
        self._log = log
        self._connections: dict[int, Connection] = {}
        self._dirty: dict[Connection, None] = {}  # those that have something to be sent
        self._hangups: list[Connection] = []
        self._flush_scheduled = False
        self.refusals: dict[str, int] = {}
        self.lags = 0
        self.sent_bytes = 0
        self.delivering = Timing()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slice: TimeSlice | None = None

    def start(self, loop: asyncio.AbstractEventLoop, time_slice: TimeSlice) -> None:
        """Begin to send."""
        self._loop, self._slice = loop, time_slice

    # --- which there are --------------------------------------------------------------------------------------------

    def add(self, conn: Connection) -> None:
        self._connections[conn.id] = conn

    def get(self, conn_id: int) -> Connection | None:
        return self._connections.get(conn_id)

    def ids(self) -> list[int]:
        return list(self._connections)

    def outlets(self) -> list[Outlet]:
        return [conn.outlet for conn in self._connections.values()]

    def remove(self, conn_id: int) -> None:
        """The connection has ended. Without effect where there is no such connection."""
        if self._connections.pop(conn_id, None) is not None:
            self._host.perform(self._state.disconnect(conn_id, self._clock()))

    # --- what is sent -----------------------------------------------------------------------------------------------

    def deliver(self, effect: Deliver) -> None:
        """Queue the same frames for several connections."""
        connections, dirty = self._connections, self._dirty
        frames_, count = effect.frames, effect.number
        for id_ in effect.conns:
            conn = connections.get(id_)
            if conn is not None:
                conn.out.append(frames_)
                conn.count += count
                dirty[conn] = None

    def send(self, conn_id: int, frame: bytes) -> None:
        """Queue a frame for one connection."""
        conn = self._connections.get(conn_id)
        if conn is not None:
            conn.out.append(frame)
            conn.count += 1
            conn.replies += len(frame)
            self._dirty[conn] = None
            if frame[1] in _TOLD:
                self._count(frame)

    def _count(self, frame: bytes) -> None:
        match _decode(frame):
            case frames.Error(code=code) | frames.Bye(code=code):
                if code != Closed.code:  # a goodbye is no refusal
                    self.refusals[code] = self.refusals.get(code, 0) + 1
            case frames.Lag():
                self.lags += 1
            case frames.Subscribed(skipped=skipped):
                self.lags += skipped != 0

    def hang_up(self, conn_id: int) -> None:
        """Close a connection once everything queued for it was sent."""
        conn = self._connections.get(conn_id)
        if conn is not None:
            self._hangups.append(conn)
            self._dirty[conn] = None

    def schedule_flush(self) -> None:
        """Flush in the next iteration of the event loop, where anything is queued."""
        if (self._dirty or self._state.awaits_flush) and not self._flush_scheduled:
            assert self._loop is not None, "start() comes first"
            self._flush_scheduled = True
            self._loop.call_soon(self._scheduled_flush)

    def _scheduled_flush(self) -> None:
        self._flush_scheduled = False
        self.flush()
        if self._state.agenda:  # there is room again in what was flushed
            self._host.perform([])

    def flush(self) -> None:
        """Send everything that is queued, now."""
        if not self._dirty:
            self._state.flushed()
            return
        time_slice = self._slice
        assert time_slice is not None, "start() comes first"
        began = time_slice.clock()
        dirty, self._dirty = self._dirty, {}
        messages: dict[Any, tuple[bytes, list[bytes]]] = {}
        sent = 0
        for conn in dirty:
            out = conn.out
            if not out:
                continue
            outlet = conn.outlet
            # The same bytes objects, in the same order, for the same kind of outlet, make the same message.
            key = (type(outlet), id(out[0]) if len(out) == 1 else tuple(map(id, out)))
            message = messages.get(key)
            if message is None:  # `out` is kept beside the message, so that the ids in the key are not reused
                message = messages[key] = outlet.pack([frames.head(conn.count), *out]), out
            conn.out, conn.count = [], 0
            outlet.send_packed(message[0])
            sent += len(message[0])
            buffered = outlet.buffered()
            if buffered <= self._limits.send_bytes:
                conn.replies = 0
            if conn.replies > self._limits.control_bytes:
                self._drop(conn, "stopped reading, and its answers no longer fit (the server's limit `control_bytes`)")
            elif buffered > self._limits.send_bytes:
                self._pause(conn)
        hangups, self._hangups = self._hangups, []
        for conn in hangups:
            conn.outlet.close(1000, "bye")
            self.remove(conn.id)
        self._state.flushed()
        seconds = time_slice.clock() - began
        time_slice.delivered(seconds, len(dirty))
        self.delivering.add(seconds)
        self.sent_bytes += sent

    # --- flow control -----------------------------------------------------------------------------------------------

    def _pause(self, conn: Connection) -> None:
        if not conn.paused:
            conn.paused = True
            self._state.pause_writing(conn.id)
            conn.outlet.on_drain(lambda: self._resume(conn))

    def _resume(self, conn: Connection) -> None:
        conn.paused = False
        self._state.resume_writing(conn.id)
        self._host.perform([])  # has the agenda worked on

    def _drop(self, conn: Connection, why: str) -> None:
        self._log.warning("ebus: connection_closed connection=%d ip=%s: it %s", conn.id, conn.ip, why)
        self._hangups.append(conn)
