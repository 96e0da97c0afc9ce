"""A client that costs next to nothing: after the handshake it only counts messages.

If subscribers parsed what they receive, the benchmark would measure the subscribers. Every message ends in `MARK`; a subscriber
counts the marks in the bytes that arrive.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import time
from collections import deque

MARK = "~%~"
"""Ends every text that is written, and occurs nowhere else."""

PATIENCE_SECONDS = 180.0

_MARK = MARK.encode()
_SPLIT = len(_MARK) - 1
_MASK = b"\1\2\3\4"
_TABLES = [bytes(byte ^ key for byte in range(256)) for key in _MASK]


def text_of(size: int) -> str:
    """A text of ``size`` bytes, including its mark."""
    return "x" * (size - len(MARK)) + MARK


def frame(payload: bytes, *, binary: bool = True) -> bytes:
    """A WebSocket message from a client (masked)."""
    masked = bytearray(len(payload))
    for place, table in enumerate(_TABLES):
        masked[place::4] = payload[place::4].translate(table)
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 1 << 16:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return (b"\x82" if binary else b"\x81") + length + _MASK + bytes(masked)


class RawClient(asyncio.Protocol):
    """One connection to a server under test."""

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0
        self.last_at = 0.0
        self._counting = False
        self._quick_ack = False
        self._buffer = b""
        self._tail = b""
        self._arrived = asyncio.Event()
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(cls, port: int) -> RawClient:
        _, client = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return client

    def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def pause_reading(self) -> None:
        """Stop reading, so that data piles up in the server."""
        assert self._transport is not None
        self._transport.pause_reading()

    def acknowledge_immediately(self) -> None:
        """Turn off delayed TCP acknowledgements, where the system supports it.

        A server that uses Nagle's algorithm, as Jupyter does on kernel sockets, would otherwise wait for them: up to 40 ms,
        which would hide the work that is measured.
        """
        self._quick_ack = hasattr(socket, "TCP_QUICKACK")
        self._acknowledge()

    def _acknowledge(self) -> None:
        if self._quick_ack and self._transport is not None:  # the system resets the option, so it is set each time
            self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    # --- handshake ----------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    async def read_until(self, mark: bytes) -> bytes:
        """The bytes up to and including ``mark``."""
        while mark not in self._buffer:
            await self._more()
        before, mark, self._buffer = self._buffer.partition(mark)
        return before + mark

    async def read_message(self) -> bytes:
        """The payload of the next WebSocket message."""
        header = await self._exactly(2)
        size = header[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(await self._exactly(2 if size == 126 else 8), "big")
        return await self._exactly(size)

    async def upgrade(self, path: str, headers: str = "") -> None:
        """Upgrade the connection to a WebSocket."""
        key = base64.b64encode(os.urandom(16)).decode()
        self.send(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n".encode()
        )
        answer = await self.read_until(b"\r\n\r\n")
        if b" 101 " not in answer:
            raise ConnectionError(f"no WebSocket at {path}: {answer!r}")

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    async def _more(self) -> None:
        self._arrived.clear()
        await asyncio.wait_for(self._arrived.wait(), PATIENCE_SECONDS)

    # --- counting ---------------------------------------------------------------------------------------------------

    def start_counting(self) -> None:
        """End the handshake: from now on, count marks."""
        self._counting, rest, self._buffer = True, self._buffer, b""
        self.data_received(rest)

    def when_received(self, count: int) -> asyncio.Future[None]:
        """A future that is done when ``count`` marks have arrived. Counts must be requested in increasing order."""
        future = asyncio.get_running_loop().create_future()
        if self.count >= count:
            future.set_result(None)
        else:
            self._waiters.append((count, future))
        return future

    # --- asyncio.Protocol -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._acknowledge()
        if not self._counting:
            self._buffer += data
            self._arrived.set()
            return
        self.bytes += len(data)
        self.count += data.count(_MARK)
        if self._tail:  # a mark may be split between two reads
            self.count += (self._tail + data[:_SPLIT]).count(_MARK)
        self._tail = (self._tail + data[-_SPLIT:])[-_SPLIT:]
        if self._waiters and self.count >= self._waiters[0][0]:
            self.last_at = time.perf_counter()
            while self._waiters and self.count >= self._waiters[0][0]:
                _, future = self._waiters.popleft()
                if not future.done():
                    future.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        for _, future in self._waiters:
            if not future.done():
                future.set_exception(ConnectionError("the server closed the connection"))
