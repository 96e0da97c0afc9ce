"""A TCP proxy whose lines can be cut, stalled, throttled, chopped, and made to repeat WebSocket messages.

Every participant has a `Line` of its own: a port that leads to the server. Faults act on the connections that a line has.
The proxy runs on an event loop on a thread of its own; `Line`'s methods may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
CHUNK = 1 << 16


class Messages:
    """Finds the WebSocket messages in a stream of bytes that begins with an HTTP head. Without an upgrade there are none."""

    def __init__(self) -> None:
        self._buffer = b""
        self._is_plain = False
        self._is_open = False
        self._seen = 0

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """The messages that ``data`` completes, each with whether it may be repeated."""
        self._buffer += data
        found: list[tuple[bytes, bool]] = []
        while not self._is_plain and (size := self._first()) and len(self._buffer) >= size:
            part, self._buffer = self._buffer[:size], self._buffer[size:]
            is_binary = self._is_open and part[0] == 0x82
            self._seen += is_binary
            self._is_plain |= not self._is_open and b"upgrade: websocket" not in part.lower()
            self._is_open = True
            # The first message is the hello or the welcome, which belongs to the connection, not to what is said on it.
            found.append((part, is_binary and self._seen > 1))
        if self._is_plain and self._buffer:
            found.append((self._buffer, False))
            self._buffer = b""
        return found

    def _first(self) -> int:
        """The size of the first part; 0 where that is not known yet."""
        data = self._buffer
        if not self._is_open:
            return data.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else 0
        if len(data) < 2:
            return 0
        size, masked, at = data[1] & 127, data[1] >> 7, 2
        if size >= 126:
            at = 4 if size == 126 else 10
            if len(data) < at:
                return 0
            size = int.from_bytes(data[2:at], "big")
        return at + 4 * masked + size


class Line:
    """A port that leads to the server, and what is wrong with it now.

    Attributes:
        is_down: As ``refuses``; it does not heal by itself.
        refuses: New connections are closed at once.
        stalls: The ways ("up" to the server, "down" from it) on which nothing is carried; the connection stays open.
        delay: Seconds that each chunk waits.
        bytes_per_second: 0: no limit.
        piece_bytes: The size of the pieces in which small chunks are carried; 0: whole.
        repeats: Each message after the first is carried twice.
        cuts_midway: The next message is carried by half, and the connection reset.
        connections, carried, repeated: Counts of what there was to act on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, target: Callable[[], int]) -> None:
        self._loop, self._target = loop, target
        self._open: dict[int, tuple[list[asyncio.Future[None]], tuple[asyncio.StreamWriter, ...]]] = {}
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()
        self.port = 0
        self.connections = self.carried = self.repeated = 0
        self.is_down = False
        self.heal()

    def heal(self) -> None:
        """End all faults of the line."""
        self.refuses = self.repeats = self.cuts_midway = False
        self.stalls: frozenset[str] = frozenset()
        self.delay, self.bytes_per_second, self.piece_bytes = 0.0, 0, 0
        self._loop.call_soon_threadsafe(self._notify)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def is_in_use(self) -> bool:
        """Whether there is a connection for a fault to act on."""
        return bool(self._open)

    def cut(self, *, reset: bool) -> None:
        """End all connections: with a reset, or in an orderly way."""
        self._loop.call_soon_threadsafe(self._cut, reset)

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _cut(self, reset: bool) -> None:
        for ways, writers in list(self._open.values()):
            for writer in writers:
                _end(writer, reset)
            for way in ways:
                way.cancel()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        assert self._server is not None
        self._server.close()
        self._cut(True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses or self.is_down:
            _end(writer, True)
            return
        try:
            to_server = await asyncio.open_connection("127.0.0.1", self._target())
        except OSError:
            _end(writer, True)
            return
        self.connections += 1
        number = self.connections
        ways = [
            asyncio.ensure_future(self._carry("up", reader, to_server[1])),
            asyncio.ensure_future(self._carry("down", to_server[0], writer)),
        ]
        self._open[number] = ways, (writer, to_server[1])
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        ended = await asyncio.gather(*ways, return_exceptions=True)
        self._open.pop(number, None)
        is_broken = any(isinstance(end, OSError) for end in ended)
        _end(writer, is_broken)
        _end(to_server[1], is_broken)

    async def _carry(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        messages = Messages()
        while data := await reader.read(CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            for part, may_repeat in messages.feed(data):
                while way in self.stalls:
                    await self._changed.wait()
                if self.cuts_midway:
                    self.cuts_midway = False
                    writer.write(part[: len(part) // 2])
                    await writer.drain()
                    raise ConnectionResetError
                twice = may_repeat and self.repeats
                self.repeated += twice
                for piece in self._pieces(part * 2 if twice else part):
                    writer.write(piece)
                    await writer.drain()
                    self.carried += len(piece)
                    if self.bytes_per_second:
                        await asyncio.sleep(len(piece) / self.bytes_per_second)

    def _pieces(self, data: bytes) -> list[bytes]:
        size = len(data)
        if self.piece_bytes and size < 2000:
            size = self.piece_bytes
        elif self.bytes_per_second:
            size = max(1, self.bytes_per_second // 20)
        return [data[i : i + size] for i in range(0, len(data), size)] if size < len(data) else [data]


def _end(writer: asyncio.StreamWriter, reset: bool) -> None:
    if reset:
        connected: socket.socket | None = writer.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # type: ignore[union-attr]
        writer.transport.abort()
    else:
        with contextlib.suppress(OSError, RuntimeError):
            writer.close()


class Proxy:
    """The lines of one run, and the thread that they run on."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.lines: dict[str, Line] = {}

    def line(self, name: str) -> Line:
        """The line of a participant; made when it is first asked for."""
        if name not in self.lines:
            line = Line(self._loop, self._target)
            self._run(line.listen())
            self.lines[name] = line
        return self.lines[name]

    def close(self) -> None:
        for line in self.lines.values():
            self._run(line.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)
