"""A real Jupyter server with ebus_jupyter, or with jupyter_server's own events: authenticated, with schema checks."""

from __future__ import annotations

import contextlib
import secrets
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.serverapp import ServerApp
from tornado.websocket import WebSocketHandler

from ebus_jupyter.core.protocol import frames
from tests.benchmarks.wire import RawClient, frame
from tests.server.harness import Kernel, Server
from tests.server.harness.server import EXTENSIONS

from . import base

F = TypeVar("F", bound=frames.Frame)

__all__ = ["EXTENSION", "UNBOUNDED", "USER", "EBus", "Events", "Kernel", "Server", "server"]

USER = "bench"

# The benchmark measures what the broker can do, not the rate limit of one client.
UNBOUNDED = "c.EBus.publish_rate = c.EBus.user_publish_rate = 1e9\nc.EBus.backend = {backend!r}\n"

SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["text", "n"],
}


@contextlib.contextmanager
def server(config: str, python: Path | str = sys.executable) -> Iterator[Server]:
    """A Jupyter server that can import these modules. Shut down its kernels before the block ends."""
    with tempfile.TemporaryDirectory(prefix="ebus-bench-", ignore_cleanup_errors=True) as folder:
        env = {"PYTHONPATH": str(base.ROOT)}
        # With all extensions that are installed, as on people's machines: they weigh on the garbage collector's pace.
        options = {"extensions": EXTENSIONS, "config": config, "env": env, "python": python}
        running = Server(Path(folder), users=(USER,), **options).start()
        try:
            yield running
        finally:
            running.kill9()  # nothing here is worth a graceful shutdown


def message(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """A message from a page to a kernel, for the kernel's socket."""
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": kind,
        "session": "bench",
        "username": USER,
        "date": "2000-01-01T00:00:00Z",
        "version": "5.3",
    }
    return {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}


class EBus:
    """A typed bus, kept in ``backend``. Each client sends its own hello, open and subscribe frames.

    Args:
        backend: "sqlite" or "memory".
        state: Retain by key, as the buses of `ebus.share` and `ebus.state` do.
        spec: A different specification of the bus.
        config: A different configuration of the server.
    """

    def __init__(
        self, backend: str, *, state: bool = False, spec: dict[str, Any] | None = None, config: str = ""
    ) -> None:
        self.name = f"ebus_jupyter ({backend})"
        self.server: Server | None = None
        self.bus = 0
        self.written = 0
        self._config = config or UNBOUNDED.format(backend=backend)
        self._spec = spec or {"type": "Note", "schema": SCHEMA, "retain": "keys" if state else "log"}
        self._key = "value" if state else None
        self._bus_name = f"{self._spec['type']}-{self._spec['retain']}"
        self._authorization = ""

    @contextlib.contextmanager
    def serve(self) -> Iterator[base.Running]:
        with server(self._config) as running:
            self._authorization = f"Authorization: {running.headers(USER)['Authorization']}\r\n"
            self.written = 0
            self.server = running
            yield base.Running(running.pid, running.port)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "server": None}  # another process may only connect

    async def subscribe(self, client: RawClient) -> None:
        await self.join(client)
        _send(client, frames.Subscribe(2, self.bus))
        await _receive(client, frames.Subscribed)

    async def join(self, client: RawClient) -> None:
        await client.upgrade("/ebus/ws", self._authorization)
        hello = frames.Hello(frames.VERSION, secrets.token_hex(16), "bench")
        _send(client, hello, frames.Open(1, "server", self._bus_name, self._spec))
        self.bus = (await _receive(client, frames.Opened)).bus

    def pack(self, texts: list[str]) -> bytes:
        publishes = []
        for text in texts:
            self.written += 1
            value = msgspec.Raw(msgspec.msgpack.encode({"text": text, "n": self.written}))
            publishes.append(frames.encode(frames.Publish(self.bus, self.written, value, self._key)))
        return frame(frames.join(publishes))


def _send(client: RawClient, *sent: frames.Frame) -> None:
    client.send(frame(frames.join([frames.encode(each) for each in sent])))


async def _receive(client: RawClient, kind: type[F]) -> F:
    while True:
        for received in frames.from_broker(await client.read_message()):
            if isinstance(received, kind):
                return received
            assert not isinstance(received, frames.Error | frames.Bye), received


# --- jupyter_server's events ------------------------------------------------------------------------------------------

EXTENSION = __name__
EVENTS = f"c.ServerApp.jpserver_extensions = {{'ebus_jupyter': False, {EXTENSION!r}: True}}\n"
EVENT = "https://ebus-jupyter.example/bench/v1"


class Events:
    """jupyter_server's events socket; a handler in the server emits the writer's messages."""

    name = "jupyter_server events"

    def __init__(self) -> None:
        self._authorization = ""

    @contextlib.contextmanager
    def serve(self) -> Iterator[base.Running]:
        with server(EVENTS) as running:
            self._authorization = f"Authorization: {running.headers(USER)['Authorization']}\r\n"
            yield base.Running(running.pid, running.port)

    async def subscribe(self, client: RawClient) -> None:
        await client.upgrade("/api/events/subscribe", self._authorization)

    async def join(self, client: RawClient) -> None:
        await client.upgrade("/bench/emit", self._authorization)

    def pack(self, texts: list[str]) -> bytes:
        return b"".join([frame(text.encode(), binary=False) for text in texts])


class Emit(JupyterHandler, WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        self.event_logger.emit(schema_id=EVENT, data={"text": message, "n": 1})


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(app: ServerApp) -> None:
    app.event_logger.register_event_schema({"$id": EVENT, "version": "1", "title": "Note", **SCHEMA})
    app.web_app.add_handlers(".*", [("/bench/emit", Emit)])
