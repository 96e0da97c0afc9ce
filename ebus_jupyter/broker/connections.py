"""What goes out to the connections.

Cheap fan-out rests on three habits. A frame is encoded once and its bytes are shared by all who get it. What one turn
of the event loop has for a connection goes out as one WebSocket message, and connections that get the same frames get
the same message, built once. And a connection whose socket is full is handed nothing: the broker serves it from the log
when it has drained.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ebus_jupyter.core.broker.effects import Deliver, Effect
from ebus_jupyter.core.broker.state import BrokerState
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits

from .outlet import Connection
from .time_slice import TimeSlice


class Connections:
    """The connections, and what waits to be sent to them.

    Args:
        state: Decides what a connection gets from the log.
        limits: The bounds.
        log: Where it says whom it closed.
        perform: Performs what ``state`` decides.
        detach: Told the id of a connection that was closed.
    """

    def __init__(
        self,
        state: BrokerState,
        limits: Limits,
        log: logging.Logger,
        perform: Callable[[list[Effect]], None],
        detach: Callable[[int], None],
    ) -> None:
        self.conns: dict[int, Connection] = {}
        self._state = state
        self._limits = limits
        self._log = log
        self._perform = perform
        self._detach = detach
        self._dirty: dict[Connection, None] = {}
        self._hangups: list[Connection] = []
        self._scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn: TimeSlice | None = None

    def start(self, loop: asyncio.AbstractEventLoop, turn: TimeSlice) -> None:
        """Send from now on."""
        self._loop, self._turn = loop, turn

    def deliver(self, effect: Deliver) -> None:
        """The same frames to many."""
        conns, dirty = self.conns, self._dirty
        frames_, count = effect.frames, effect.number
        for id_ in effect.conns:
            conn = conns.get(id_)
            if conn is not None:
                conn.out.append(frames_)
                conn.count += count
                dirty[conn] = None

    def send(self, conn_id: int, frame: bytes) -> None:
        """A frame to one."""
        conn = self.conns.get(conn_id)
        if conn is not None:
            conn.out.append(frame)
            conn.count += 1
            self._dirty[conn] = None

    def hangup(self, conn_id: int) -> None:
        """Close a connection, after what it is yet to be sent."""
        conn = self.conns.get(conn_id)
        if conn is not None:
            self._hangups.append(conn)
            self._dirty[conn] = None

    def schedule(self) -> None:
        """Send what there is in the next round of the loop."""
        if self._dirty and not self._scheduled:
            assert self._loop is not None, "start() comes first"
            self._scheduled = True
            self._loop.call_soon(self._next_round)

    def _next_round(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Send what there is, now."""
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
            if buffered > self._limits.send_bytes + self._limits.control_bytes:
                self._drop(conn, "stopped reading, and its answers no longer fit (the server's limit `control_bytes`)")
            elif buffered > self._limits.send_bytes:
                self._hold(conn)
            elif not conn.paused and self._state.is_catching_up(conn.id):
                self._serve_soon(conn)
        hangups, self._hangups = self._hangups, []
        for conn in hangups:
            conn.outlet.close(1000, "bye")
            self._detach(conn.id)
        turn.handed_out(loop.time() - began, len(dirty))

    def _hold(self, conn: Connection) -> None:
        if not conn.paused:
            conn.paused = True
            self._state.pause_writing(conn.id)
            conn.outlet.on_drain(lambda: self._serve(conn))

    def _serve_soon(self, conn: Connection) -> None:
        conn.paused = True  # until its turn: others come first
        assert self._loop is not None
        self._loop.call_soon(self._serve, conn)

    def _serve(self, conn: Connection) -> None:
        conn.paused = False
        self._perform(self._state.resume_writing(conn.id))

    def _drop(self, conn: Connection, why: str) -> None:
        self._log.warning("ebus: closed a connection that %s", why)
        self._hangups.append(conn)
