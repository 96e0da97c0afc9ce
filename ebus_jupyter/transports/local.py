"""The transport within one process and one event loop: for an embedded broker, for participants in the server, for tests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from ebus_jupyter.errors import ConnectionLost


class Attached(Protocol):
    """The broker's end of a connection, as `broker.host.Broker.attach` returns it."""

    def receive(self, data: bytes) -> Awaitable[None] | None: ...
    def close(self) -> None: ...


class LocalTransport:
    """A client's connection to a broker on the same event loop.

    Args:
        attach: Attaches the connection to the broker. Its argument is this object, as the outlet to the client.
    """

    def __init__(self, attach: Callable[[LocalTransport], Attached]) -> None:
        self._inbox: deque[bytes] = deque()
        self._size = 0
        self._arrived = asyncio.Event()
        self._drained: Callable[[], None] | None = None
        self._ended = False
        self._conn = attach(self)

    # --- the client's side ------------------------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        if self._ended:
            raise ConnectionLost("the broker in this process has closed the connection.")
        next_slice = self._conn.receive(data)
        if next_slice is None:
            await asyncio.sleep(0)  # lets the broker answer before more is handed over
        else:
            await asyncio.shield(next_slice)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._inbox:
                data = self._inbox.popleft()
                self._size -= len(data)
                if not self._size and self._drained is not None:
                    callback, self._drained = self._drained, None
                    asyncio.get_running_loop().call_soon(callback)
                yield data
            if self._ended:
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def aclose(self) -> None:
        if not self._ended:
            self._end()
            self._conn.close()

    # --- the broker's side: see `broker.outlet.Outlet` --------------------------------------------------------------

    @staticmethod
    def pack(parts: list[bytes]) -> bytes:
        return b"".join(parts)

    def send_packed(self, packed: bytes) -> None:
        if not self._ended:
            self._inbox.append(packed)
            self._size += len(packed)
            self._arrived.set()

    def buffered(self) -> int:
        return 0 if self._ended else self._size  # what has ended keeps its last messages for its reader

    def on_drain(self, callback: Callable[[], None]) -> None:
        self._drained = callback

    def close(self, code: int, reason: str) -> None:
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._arrived.set()
