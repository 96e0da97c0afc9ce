"""The server extension: its configuration, start and stop.

Every option is set as ``c.EBus.NAME = …`` in ``jupyter_server_config.py``, or as ``--EBus.NAME=…`` on the command line.
Each bound of `core.protocol.limits.Limits` is an option of the same name.
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

from . import administration, rest, storage
from .handlers import ClientHandler, SocketHandler
from .health import HealthHandler
from .identity import Identities
from .kernels import KernelWatcher, environment, unreachable_reason
from .metrics import METRICS
from .participants import FILTERS, PARTICIPANTS, Participants, ServerClient, load_functions
from .services import Services
from .tokens import Tokens
from .turns import Turns

STATIC = Path(ebus_jupyter.__file__).parent / "static"


def limit_traits() -> dict[str, TraitType[Any, Any]]:
    """Make a configurable trait for each bound of `Limits`, with its docstring as help."""
    helps = _attribute_docstrings(Limits)
    traits: dict[str, TraitType[Any, Any]] = {}
    for field in msgspec.structs.fields(Limits):
        kind = Float if isinstance(field.default, float) else Integer
        traits[field.name] = kind(field.default, min=0, help=helps.get(field.name, "")).tag(config=True)
    return traits


def _attribute_docstrings(cls: type) -> dict[str, str]:
    """Return the string below each attribute of ``cls``; empty where its source is not available."""
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
        ServerApp.allow_origin names. A page of another origin is refused even with a valid token. "*" allows all.""",
    ).tag(config=True)

    backend = Unicode(
        "sqlite",
        help="""Storage of named buses: "sqlite" (the file `database`), "memory" (lost when the server stops), or the
        dotted name of a callable that returns an `ebus_jupyter.backends.base.Backend`.""",
    ).tag(config=True)

    database = Unicode(
        help="""The file of the sqlite backend. Default: a file in Jupyter's data folder, named after the folder that the
        server serves; it may not lie in that folder. If another server is using the file, this one uses another file beside
        it.""",
    ).tag(config=True)

    synchronous = Enum(
        ["NORMAL", "FULL"],
        "NORMAL",
        help="""Durability of an acknowledged write: it survives the death of the server process ("NORMAL"), or also a loss
        of power ("FULL", slower).""",
    ).tag(config=True)

    ping_interval = Float(
        30.0,
        min=0,
        help="""Seconds between pings; a connection that does not answer one within that time is closed. 0: no pings.""",
    ).tag(config=True)

    filters = Dict(
        value_trait=Unicode(),
        key_trait=Unicode(),
        help="""Filters that a bus may name (``filter="NAME"``), as ``{"NAME": "module:function"}``, in addition to those
        of the entry-point group ``ebus_jupyter.filters``. See `ebus_jupyter.broker.filters`.""",
    ).tag(config=True)

    participants = Dict(
        value_trait=Unicode(),
        key_trait=Unicode(),
        help="""Async functions that participate in buses while the server runs, as ``{"NAME": "module:function"}``, in
        addition to those of the entry-point group ``ebus_jupyter.participants``. See `ebus_jupyter.server.participants`.""",
    ).tag(config=True)

    broker: Broker
    client: ServerClient
    kernels: KernelWatcher

    def initialize_settings(self) -> None:
        serverapp = self.serverapp
        assert serverapp is not None
        limits = Limits(**{name: getattr(self, name) for name in Limits.__struct_fields__})
        # Derived, so that the capabilities which pages hold survive a restart, and cookies can't be forged with it.
        secret = hmac.digest(serverapp.cookie_secret, b"ebus_jupyter capabilities", hashlib.sha256)
        filters = load_functions(FILTERS, self.filters, self.log)
        self.broker = Broker(limits=limits, secret=secret, filters=filters, log=self.log)
        self._tokens = Tokens()
        self._identities = Identities(serverapp.identity_provider, serverapp.cookie_secret)
        self.kernels = KernelWatcher(
            serverapp.kernel_manager, self._tokens, lambda: environment(serverapp), self.broker, self._identities
        )
        self._started = asyncio.Event()
        self._available = False
        self.client = self._make_client("server")
        self.settings["ebus"] = self.client
        functions = load_functions(PARTICIPANTS, self.participants, self.log)
        self._participants = Participants(functions, self._make_client, self.log)

    def _make_client(self, name: str) -> ServerClient:
        serverapp = self.serverapp
        assert serverapp is not None
        loop: Any = serverapp.io_loop
        return ServerClient(self.broker, self._ready, loop.asyncio_loop, name)

    def initialize_handlers(self) -> None:
        serverapp = self.serverapp
        assert serverapp is not None
        services = Services(
            broker=self.broker,
            tokens=self._tokens,
            identities=self._identities,
            kernels=self.kernels,
            allow_origin=frozenset(self.allow_origin),
            ping_interval=self.ping_interval,
            turns=Turns(),
            ready=self._ready,
        )
        self.handlers.extend(
            [
                (r"ebus/ws", SocketHandler, {"services": services}),
                (r"ebus/api/health", HealthHandler, {"services": services}),
                *rest.routes(services),
                *administration.routes(services),
                (r"ebus/((?:widgets/)?[\w-]+\.js(?:\.map)?)", ClientHandler, {"path": str(STATIC)}),
            ]
        )
        reason = unreachable_reason(serverapp)
        if reason:
            self.log.warning(
                "ebus: kernels can't connect to this server's buses: %s. Each kernel has buses of its own.", reason
            )
        self._identities.start()
        self.kernels.start()

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        try:
            durable = await self._open_backend(serverapp)
            if durable is not None:
                self.broker.keep_in(durable)
            await self.broker.start()
            self._available = True
            METRICS.add(self.broker)
        finally:
            self._started.set()
        self._participants.start()

    async def _open_backend(self, serverapp: Any) -> Backend | None:
        """Open the storage of named buses; None for the broker's own memory."""
        match self.backend:
            case "memory":
                return None
            case "sqlite":
                default = storage.default_path(jupyter_data_dir(), serverapp.root_dir)
                path = Path(self.database).expanduser() if self.database else default
                hidden_is_served = bool(getattr(serverapp.contents_manager, "allow_hidden", False))
                storage.ensure_outside(path, serverapp.root_dir, hidden_is_served=hidden_is_served)
                return await storage.open_file(path, self.broker.limits, self.synchronous, self.log)
            case dotted:
                backend: Backend = import_item(dotted)()
                return backend

    async def _ready(self) -> None:
        """Wait for the broker's start, which requests can precede.

        Raises:
            BackendError: The broker could not be started, or has ended with the server.
        """
        await self._started.wait()
        if not self._available:
            raise BackendError("the server is shutting down, or its broker could not be started: see the server's log.")

    async def stop_extension(self) -> None:
        if hasattr(self, "kernels"):  # the server may fail before `initialize_settings`
            self._available = False
            METRICS.remove(self.broker)
            self.kernels.stop()
            self._identities.stop()
            await self._participants.stop()
            await self.client.aclose()
            await self.broker.aclose()
