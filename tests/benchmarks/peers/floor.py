"""The floor: a bare tornado server with one optimisation. No log, no types, no order, no bounds.

Frames are built once and shared, the frames of one tick are joined, and each client gets one `stream.write` per tick. A burst
of the writer is one message too, so that nothing is left to save.
"""

from __future__ import annotations

import asyncio

from tornado.iostream import StreamClosedError
from tornado.web import Application
from tornado.websocket import WebSocketHandler

from tests.benchmarks.wire import MARK, frame

from . import base

_MARK = MARK.encode()


class Floor(base.ModulePeer):
    name = "bare tornado, a tick's frames joined (floor)"

    def pack(self, texts: list[str]) -> bytes:
        return frame("".join(texts).encode())


class Hub:
    def __init__(self) -> None:
        self.clients: set[Listen] = set()
        self._frames: list[bytes] = []

    def broadcast(self, messages: bytes) -> None:
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._flush)
        for message in messages.split(_MARK)[:-1]:
            size = len(message) + len(_MARK)
            length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
            self._frames.append(b"\x82" + length + message + _MARK)

    def _flush(self) -> None:
        joined = b"".join(self._frames)
        self._frames.clear()
        for client in self.clients:
            client.write_raw(joined)


class Listen(WebSocketHandler):
    def initialize(self, hub: Hub) -> None:
        self._hub = hub

    def open(self, *args: str, **kwargs: str) -> None:
        self.set_nodelay(True)
        self._hub.clients.add(self)

    def write_raw(self, data: bytes) -> None:
        try:
            self.ws_connection.stream.write(data)
        except StreamClosedError:
            return

    def on_close(self) -> None:
        self._hub.clients.discard(self)


class Write(WebSocketHandler):
    def initialize(self, hub: Hub) -> None:
        self._hub = hub

    def on_message(self, message: str | bytes) -> None:
        assert isinstance(message, bytes)
        self._hub.broadcast(message)


async def main() -> None:
    hub = Hub()
    await base.serve_application(
        Application([(Floor.LISTEN, Listen, {"hub": hub}), (Floor.WRITE, Write, {"hub": hub})])
    )


if __name__ == "__main__":
    asyncio.run(main())
