"""jupyter-collaboration's room of a document: every edit goes to all who have the document open, and into its store."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.wire import Line, frame

from . import base, jupyter
from .crdt import Edits

PYTHON = Path(sys.prefix) / "collaboration" / "bin" / "python"
"""`make test-browser` and `make bench` install it there."""

WITHOUT_US = "c.ServerApp.jpserver_extensions = {'ebus_jupyter': False}\n"


class Room:
    name = "jupyter-collaboration room"

    def __init__(self) -> None:
        self._authorization = self._path = ""
        self._edits: Edits | None = None

    @contextlib.contextmanager
    def serve(self) -> Iterator[base.Running]:
        if not PYTHON.exists():
            raise base.Unavailable("jupyter-collaboration is not installed in an environment of its own")
        self._edits = Edits()
        with jupyter.server(WITHOUT_US, python=PYTHON) as server:
            (server.folder / "notebooks" / "shared.txt").touch()
            kind = {"format": "text", "type": "file"}
            session = (
                server.request("PUT", "api/collaboration/session/shared.txt", jupyter.USER, body=kind).good().json()
            )
            self._path = f"/api/collaboration/room/text:file:{session['fileId']}?sessionId={session['sessionId']}"
            self._authorization = f"Authorization: {server.headers(jupyter.USER)['Authorization']}\r\n"
            yield base.Running(server.pid, server.port)

    async def listen(self, line: Line) -> None:
        await line.upgrade(self._path, self._authorization)
        await line.message()  # what the room has: it knows us now

    async def enter(self, line: Line) -> None:
        await self.listen(line)
        assert self._edits is not None
        line.send(frame(self._edits.hello()))

    def pack(self, texts: list[str]) -> bytes:
        assert self._edits is not None
        return b"".join([frame(self._edits.set(text)) for text in texts])
