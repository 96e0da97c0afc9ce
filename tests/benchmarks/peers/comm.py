"""ipywidgets' comm: page → server → kernel → server → every page of that kernel."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.wire import RawClient, frame

from . import base, jupyter

# Without this, Jupyter drops the messages of a drag as too much output.
UNLIMITED = "c.ZMQChannelsWebsocketConnection.limit_rate = False\n"


class Comm:
    """The pages of one kernel with a text widget; the writer is one of the pages."""

    name = "ipywidgets comm"
    code = "import ipywidgets\nwidget = ipywidgets.Text()\nprint(widget.comm.comm_id)"

    def __init__(self) -> None:
        self._authorization = self._path = self._comm = ""

    @contextlib.contextmanager
    def serve(self) -> Iterator[base.Running]:
        with jupyter.server(UNLIMITED) as server:
            kernel = server.start_kernel(jupyter.USER)
            made = kernel.run(self.code)
            self._comm = made.stdout.strip()
            self._path = f"/api/kernels/{kernel.id}/channels?session_id="
            self._authorization = f"Authorization: {server.headers(jupyter.USER)['Authorization']}\r\n"
            yield base.Running(server.pid, server.port)
            kernel.shutdown()

    async def subscribe(self, client: RawClient) -> None:
        await client.upgrade(self._path + uuid.uuid4().hex, self._authorization)

    async def join(self, client: RawClient) -> None:
        await self.subscribe(client)

    def pack(self, texts: list[str]) -> bytes:
        return b"".join([frame(json.dumps(self._message(_update(text))).encode(), binary=False) for text in texts])

    def _message(self, data: dict[str, object]) -> dict[str, Any]:
        return jupyter.message("comm_msg", {"comm_id": self._comm, "data": data})


def _update(text: str) -> dict[str, object]:
    return {"method": "update", "state": {"value": text}, "buffer_paths": []}
