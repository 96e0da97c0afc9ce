"""python-socketio on tornado: an event to all clients. No log, no types, no bounds."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractContextManager
from typing import Any

from tests.benchmarks.wire import RawClient, frame

from . import base

CONNECT, CONNECTED, EVENT = b"40", b"40", "42"
"""Engine.IO 4 packets ("4": a message) that contain Socket.IO 5 packets ("0": connect, "2": an event)."""


class SocketIO:
    name = "python-socketio"

    def serve(self) -> AbstractContextManager[base.Running]:
        try:
            import socketio  # noqa: F401
        except ImportError:
            raise base.Unavailable("python-socketio is not installed") from None
        return base.run_module(__name__)

    async def subscribe(self, client: RawClient) -> None:
        await client.upgrade("/socket.io/?EIO=4&transport=websocket")
        await client.read_message()  # the server's settings
        client.send(frame(CONNECT, binary=False))
        while not (await client.read_message()).startswith(CONNECTED):
            continue

    async def join(self, client: RawClient) -> None:
        await self.subscribe(client)

    def pack(self, texts: list[str]) -> bytes:
        return b"".join([frame((EVENT + json.dumps(["write", text])).encode(), binary=False) for text in texts])


async def main() -> None:
    import socketio
    from tornado.web import Application

    server = socketio.AsyncServer(async_mode="tornado", ping_interval=600)

    async def write(sender: str, text: Any) -> None:
        await server.emit("note", text, skip_sid=sender)

    server.on("write", write)
    await base.serve_application(Application([("/socket.io/", socketio.get_tornado_handler(server))]))


if __name__ == "__main__":
    asyncio.run(main())
