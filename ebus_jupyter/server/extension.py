"""The server extension's configuration and life.

Everything is set as ``c.EBus.NAME = …`` in ``jupyter_server_config.py``, or ``--EBus.NAME=…`` on the command line;
every bound of `core.protocol.limits.Limits` is there under its own name.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import hmac
import inspect
import textwrap
from pathlib import Path
from typing import Any

import msgspec
from jupyter_core.paths import jupyter_data_dir
from jupyter_server.extension.application import ExtensionApp
from traitlets import Dict, Enum, Float, Integer, List, TraitType, Unicode
from traitlets.utils.importstring import import_item

import ebus_jupyter
from ebus_jupyter.backends.base import Backend
from ebus_jupyter.broker.host import Broker
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.errors import BackendError

from . import storage
from .handlers import ClientHandler, SocketHandler, StatusHandler
from .kernels import Kernels, Tokens, environment, why_unreachable
from .participants import FILTERS, PARTICIPANTS, Participants, ServerClient, installed
from .rest import routes

STATIC = Path(ebus_jupyter.__file__).parent / "static"


def limit_traits() -> dict[str, TraitType[Any, Any]]:
    """A trait for each bound of `Limits`, with its docstring as help."""
    helps = _docstrings(Limits)
    traits: dict[str, TraitType[Any, Any]] = {}
    for field in msgspec.structs.fields(Limits):
        kind = Float if isinstance(field.default, float) else Integer
        traits[field.name] = kind(field.default, min=0, help=helps.get(field.name, "")).tag(config=True)
    return traits


def _docstrings(cls: type) -> dict[str, str]:
    """What is written below each attribute of ``cls``; nothing where its source is not at hand."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    except (OSError, SyntaxError):
        return {}
    assert isinstance(body, ast.ClassDef)
    found = {}
    for attribute, below in zip(body.body, body.body[1:], strict=False):
        match attribute, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found


class EBus(ExtensionApp):
    """Typed broadcast buses for kernels, pages and server extensions."""

    name = "ebus_jupyter"
    description = __doc__

    locals().update(limit_traits())

    allow_origin = List(
        Unicode(),
        help="""Origins (such as https://example.org) whose pages may connect, besides the server's own and those that
        ServerApp.allow_origin lets in. A token alone does not let a foreign page in. "*" lets all in.""",
    ).tag(config=True)

    backend = Unicode(
        "sqlite",
        help="""Where named buses are kept: "sqlite" (in `database`), "memory" (until the server ends), or the dotted name
        of something that makes an `ebus_jupyter.backends.base.Backend` when it is called without arguments.""",
    ).tag(config=True)

    database = Unicode(
        help="""The file of the sqlite backend. Default: one in Jupyter's data folder, named after the folder that the
        server serves. A server that finds it in use by another one takes a file beside it.""",
    ).tag(config=True)

    synchronous = Enum(
        ["NORMAL", "FULL"],
        "NORMAL",
        help="""What an acknowledged write survives: a killed server ("NORMAL"), or a loss of power too ("FULL", slower).""",
    ).tag(config=True)

    ping_interval = Float(
        30.0,
        min=0,
        help="""Seconds between pings; a connection that leaves one unanswered for as long is closed. 0: no pings.""",
    ).tag(config=True)

    filters = Dict(
        value_trait=Unicode(),
        key_trait=Unicode(),
        help="""Filters that buses may ask for by name (``filter="NAME"``), as ``{"NAME": "module:function"}``; besides
        those of the entry-point group ``ebus_jupyter.filters``. See `ebus_jupyter.broker.filters`.""",
    ).tag(config=True)

    participants = Dict(
        value_trait=Unicode(),
        key_trait=Unicode(),
        help="""Async functions that take part in buses as long as the server runs, as ``{"NAME": "module:function"}``;
        besides those of the entry-point group ``ebus_jupyter.participants``. See `ebus_jupyter.server.participants`.""",
    ).tag(config=True)

    broker: Broker
    client: ServerClient
    kernels: Kernels
    limits: Limits
    tokens: Tokens

    # --- what ExtensionApp calls ------------------------------------------------------------------------------------

    def initialize_settings(self) -> None:
        serverapp = self.serverapp
        assert serverapp is not None
        self.limits = Limits(**{name: getattr(self, name) for name in Limits.__struct_fields__})
        # Derived, so that capabilities which pages hold stay good over a restart; and cookies can't be made from it.
        secret = hmac.digest(serverapp.cookie_secret, b"ebus_jupyter capabilities", hashlib.sha256)
        filters = installed(FILTERS, self.filters, self.log)
        self.broker = Broker(limits=self.limits, secret=secret, filters=filters, log=self.log)
        self.tokens = Tokens()
        self.kernels = Kernels(serverapp.kernel_manager, self.tokens, lambda: environment(serverapp), self.broker)
        self._started = asyncio.Event()
        self._up = False
        self.client = self._client("server")
        self.settings["ebus"] = self.client
        self._running = Participants(installed(PARTICIPANTS, self.participants, self.log), self._client, self.log)

    def _client(self, name: str) -> ServerClient:
        serverapp = self.serverapp
        assert serverapp is not None
        loop: Any = serverapp.io_loop
        return ServerClient(self.broker, self.ready, loop.asyncio_loop, name)

    def initialize_handlers(self) -> None:
        serverapp = self.serverapp
        assert serverapp is not None
        self.handlers.extend(
            [
                (r"ebus/ws", SocketHandler, {"ebus": self}),
                (r"ebus/api/status", StatusHandler, {"version": ebus_jupyter.__version__}),
                *routes(self),
                (r"ebus/((?:widgets/)?[\w-]+\.js(?:\.map)?)", ClientHandler, {"path": str(STATIC)}),
            ]
        )
        reason = why_unreachable(serverapp)
        if reason:
            self.log.warning("ebus: kernels can't reach this server's buses: %s. Each has buses of its own.", reason)
        self.kernels.follow()

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        try:
            durable = await self._durable(serverapp)
            if durable is not None:
                self.broker.keep_in(durable)
            await self.broker.start()
            self._up = True
        finally:
            self._started.set()
        self._running.start()

    async def _durable(self, serverapp: Any) -> Backend | None:
        """Where named buses are kept; None: in the broker's own memory."""
        match self.backend:
            case "memory":
                return None
            case "sqlite":
                default = storage.file_of(jupyter_data_dir(), serverapp.root_dir)
                path = Path(self.database).expanduser() if self.database else default
                return await storage.open_file(path, self.limits, self.synchronous, self.log)
            case dotted:
                backend: Backend = import_item(dotted)()
                return backend

    async def stop_extension(self) -> None:
        if hasattr(self, "kernels"):  # it may not have come that far
            self._up = False
            self.kernels.release()
            await self._running.stop()
            await self.client.aclose()
            await self.broker.aclose()

    # --- for the handlers -------------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Wait for the broker's start, which requests can come before.

        Raises:
            BackendError: It could not be started, or has ended with the server.
        """
        await self._started.wait()
        if not self._up:
            raise BackendError("the server is shutting down, or its broker could not be started: see the server's log.")
