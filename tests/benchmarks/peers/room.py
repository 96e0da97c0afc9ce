"""jupyter-collaboration's document room: every edit goes to all clients that have the document open, and to its store."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.wire import RawClient, frame

from . import base, jupyter
from .crdt import Edits

PYTHON = Path(sys.prefix) / "collaboration" / "bin" / "python"
"""`make test-browser` and `make bench` create this environment."""

WITHOUT_US = "c.ServerApp.jpserver_extensions = {'ebus_jupyter': False}\n"


class Room:
    name = "jupyter-collaboration room"

    def __init__(self) -> None:
        self._authorization = self._path = ""
        self._edits: Edits | None = None

    @contextlib.contextmanager
    def serve(self) -> Iterator[base.Running]:
        if not PYTHON.exists():
            raise base.Unavailable(
                "jupyter-collaboration is not installed in .venv/collaboration; `make bench` installs it"
            )
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

    async def subscribe(self, client: RawClient) -> None:
        await client.upgrade(self._path, self._authorization)
        await client.read_message()  # the room's state: the room has added us

    async def join(self, client: RawClient) -> None:
        await self.subscribe(client)
        assert self._edits is not None
        client.send(frame(self._edits.hello()))

    def pack(self, texts: list[str]) -> bytes:
        assert self._edits is not None
        return b"".join([frame(self._edits.set(text)) for text in texts])
