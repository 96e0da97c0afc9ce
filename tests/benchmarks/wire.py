"""A client that costs next to nothing: it talks for as long as it must, then only counts.

If subscribers parsed what they get, the benchmark would measure them. Every message ends in `MARK`; a subscriber counts
marks in the bytes as they come.
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
    """A text of that many bytes, with its mark."""
    return "x" * (size - len(MARK)) + MARK


def frame(payload: bytes, *, binary: bool = True) -> bytes:
    """A WebSocket message as a client sends it (masked)."""
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


class Line(asyncio.Protocol):
    """One connection of a benchmark."""

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0
        self.last_at = 0.0
        self._counting = False
        self._prompt = False
        self._talk = b""
        self._tail = b""
        self._heard = asyncio.Event()
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(cls, port: int) -> Line:
        _, line = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return line

    def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def stop_reading(self) -> None:
        """Let what comes pile up."""
        assert self._transport is not None
        self._transport.pause_reading()

    def acknowledge_at_once(self) -> None:
        """Let a server whose sockets have Nagle's algorithm on, as Jupyter's kernel sockets have, not wait for our TCP:
        some 40 ms that are no one's work, and that would hide it. Only where the system can."""
        self._prompt = hasattr(socket, "TCP_QUICKACK")
        self._acknowledge()

    def _acknowledge(self) -> None:
        if self._prompt and self._transport is not None:  # the system forgets it, so it is said each time
            self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    # --- talking ----------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    async def until(self, mark: bytes) -> bytes:
        """What comes up to ``mark``, and with it."""
        while mark not in self._talk:
            await self._more()
        said, mark, self._talk = self._talk.partition(mark)
        return said + mark

    async def message(self) -> bytes:
        """The payload of the next WebSocket message."""
        header = await self._exactly(2)
        size = header[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(await self._exactly(2 if size == 126 else 8), "big")
        return await self._exactly(size)

    async def upgrade(self, path: str, headers: str = "") -> None:
        """Make it a WebSocket."""
        key = base64.b64encode(os.urandom(16)).decode()
        self.send(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n".encode()
        )
        answer = await self.until(b"\r\n\r\n")
        if b" 101 " not in answer:
            raise ConnectionError(f"no WebSocket at {path}: {answer!r}")

    async def _exactly(self, size: int) -> bytes:
        while len(self._talk) < size:
            await self._more()
        taken, self._talk = self._talk[:size], self._talk[size:]
        return taken

    async def _more(self) -> None:
        self._heard.clear()
        await asyncio.wait_for(self._heard.wait(), PATIENCE_SECONDS)

    # --- counting ---------------------------------------------------------------------------------------------------

    def count_from_here(self) -> None:
        """The talk is over: from now on, marks are counted."""
        self._counting, said, self._talk = True, self._talk, b""
        self.data_received(said)

    def has(self, count: int) -> asyncio.Future[None]:
        """Done when so many marks have come. Ask for greater counts later."""
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
            self._talk += data
            self._heard.set()
            return
        self.bytes += len(data)
        self.count += data.count(_MARK)
        if self._tail:  # a mark may come in parts
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
                future.set_exception(ConnectionError("the server has closed the connection"))
