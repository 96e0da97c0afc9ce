"""The way out to one WebSocket client: an implementation of `ebus_jupyter.broker.outlet.Outlet` on tornado."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from tornado.iostream import IOStream, StreamBufferFullError

DIRECT_BYTES = 1 << 17
"""The largest message that is written to the socket directly. Windows accepts no more in one call, according to tornado."""


class TornadoOutlet:
    """Sends prebuilt WebSocket frames, directly to the socket or, while that is full, through its stream's buffer.

    tornado's `write_message` builds the frame again for each client and makes a task for each call. The stream's `write`
    makes a future for each, which takes as long as sending the message.

    Args:
        stream: The connection's stream, after the WebSocket handshake.
        close: Closes the WebSocket with a code and a reason.
    """

    __slots__ = ("_buffered", "_close", "_last", "_pending", "_stream")

    def __init__(self, stream: IOStream, close: Callable[[int, str], None]) -> None:
        self._stream = stream
        self._close = close
        self._last: asyncio.Future[None] | None = None
        self._pending: deque[tuple[asyncio.Future[None], int]] = deque()
        self._buffered = 0

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
        stream = self._stream
        if stream.closed():  # the handler's `on_close` reports it
            return
        sent = 0
        if len(packed) <= DIRECT_BYTES and not stream.writing():
            try:
                sent = stream.write_to_fd(memoryview(packed))
            except OSError:  # the socket is full or broken: the stream's own `write` handles both
                sent = 0
            if sent == len(packed):
                return
        try:
            self._last = stream.write(memoryview(packed)[sent:])
        except StreamBufferFullError:
            stream.close()
            return
        if stream.writing():
            self._pending.append((self._last, len(packed) - sent))
            self._buffered += len(packed) - sent

    def buffered(self) -> int:
        """Return the bytes not yet taken by the socket; a message counts in full until all of it is taken."""
        pending = self._pending
        while pending and pending[0][0].done():
            self._buffered -= pending.popleft()[1]
        return self._buffered

    def on_drain(self, callback: Callable[[], None]) -> None:
        if self._last is None or self._last.done():
            asyncio.get_running_loop().call_soon(callback)
        else:
            self._last.add_done_callback(lambda _: callback())

    def close(self, code: int, reason: str) -> None:
        self._close(code, reason)
