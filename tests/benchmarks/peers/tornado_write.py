"""Tornado's own `write_message`, for each client: how its documentation says to do it."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager

from tornado.web import Application
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from tests.benchmarks.wire import Line, frame

from . import base

LISTEN, WRITE = "/listen", "/write"


class Tornado:
    name = "tornado write_message"

    def serve(self) -> AbstractContextManager[base.Running]:
        return base.python(__name__)

    async def listen(self, line: Line) -> None:
        await line.upgrade(LISTEN)

    async def enter(self, line: Line) -> None:
        await line.upgrade(WRITE)

    def pack(self, texts: list[str]) -> bytes:
        return b"".join([frame(text.encode()) for text in texts])


clients: set[WebSocketHandler] = set()


class Listen(WebSocketHandler):
    def open(self, *args: str, **kwargs: str) -> None:
        self.set_nodelay(True)
        clients.add(self)

    def on_close(self) -> None:
        clients.discard(self)


class Write(WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        for client in list(clients):
            try:
                client.write_message(message, binary=True)
            except WebSocketClosedError:
                clients.discard(client)


async def main() -> None:
    await base.listen_with(Application([(LISTEN, Listen), (WRITE, Write)]))


if __name__ == "__main__":
    asyncio.run(main())
