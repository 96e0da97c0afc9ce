"""Tornado's `write_message` for each client, as its documentation shows."""

from __future__ import annotations

import asyncio

from tornado.web import Application
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from . import base


class Tornado(base.ModulePeer):
    name = "tornado write_message"


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
    await base.serve_application(Application([(Tornado.LISTEN, Listen), (Tornado.WRITE, Write)]))


if __name__ == "__main__":
    asyncio.run(main())
