"""ypywidgets: a widget whose state is a CRDT document. A page's edit goes to the kernel, and from there to every page."""

from __future__ import annotations

import importlib.util
import json
from contextlib import AbstractContextManager

from tests.benchmarks.wire import RawClient, frame

from . import base
from .comm import Comm
from .crdt import Edits

WIDGET = "from ypywidgets.comm import CommWidget\nwidget = CommWidget()\nprint(widget._comm.comm_id)"


class YPyWidgets(Comm):
    name = "ypywidgets"
    code = WIDGET

    def __init__(self) -> None:
        super().__init__()
        self._edits: Edits | None = None

    def serve(self) -> AbstractContextManager[base.Running]:
        if importlib.util.find_spec("ypywidgets") is None:
            raise base.Unavailable("ypywidgets is not installed")
        return super().serve()

    async def join(self, client: RawClient) -> None:
        await super().join(client)
        self._edits = Edits()
        client.send(self._with_buffer(self._edits.hello()))  # from here on, the kernel sends changes

    def pack(self, texts: list[str]) -> bytes:
        assert self._edits is not None
        return b"".join([self._with_buffer(self._edits.set(text)) for text in texts])

    def _with_buffer(self, buffer: bytes) -> bytes:
        """A comm message with a buffer, in the framing of Jupyter's kernel sockets: offsets, message, buffer."""
        message = json.dumps(self._message({})).encode()
        offsets = [12, 12 + len(message)]
        head = b"".join(number.to_bytes(4, "big") for number in (2, *offsets))
        return frame(head + message + buffer)
