"""A bare tornado WebSocket that answers every message: the shortest wait for an answer that a writer can have."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager

from tornado.web import Application
from tornado.websocket import WebSocketHandler

from . import base


def serve() -> AbstractContextManager[base.Running]:
    return base.run_module(__name__)


class Echo(WebSocketHandler):
    def open(self, *args: str, **kwargs: str) -> None:
        self.set_nodelay(True)

    def on_message(self, message: str | bytes) -> None:
        assert isinstance(message, bytes)
        self.write_message(b"ok" + message[:8], binary=True)


async def main() -> None:
    await base.serve_application(Application([("/", Echo)]))


if __name__ == "__main__":
    asyncio.run(main())
