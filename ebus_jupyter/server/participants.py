"""The server itself takes part: for other server extensions, and for code that is installed to run in the server.

`ServerClient` is what other extensions find in ``serverapp.web_app.settings["ebus"]``. It has the same ``bus()``,
``state()``, ``write()`` and ``stream()`` as a kernel's client, on the server's own loop, which must not be blocked:
``bus()`` returns at once (``await bus.opened()`` waits for the broker), and one awaits acks and iterates with
``async for``. What would block raises RuntimeError; call it by ``asyncio.to_thread``.

A *participant* is an async function that runs in the server as long as the server does: a referee, a recorder, a folder
of drawings into an image. It is found in the entry-point group ``ebus_jupyter.participants``, or named in the
configuration::

    async def referee(ebus):
        moves = ebus.bus("moves", Move)
        async for message in moves.messages():
            ...

    c.EBus.participants = {"referee": "my_game.server:referee"}

Each has a client of its own, named after it, and others see it as a sender of kind "server". One that fails is logged
and started again after a pause; one that returns has ended, but what it has registered with ``on`` goes on. All are
cancelled when the server stops.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import pkgutil
import threading
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from ebus_jupyter.broker.host import Broker
from ebus_jupyter.client.bus import Bus
from ebus_jupyter.client.client import Client
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import BackendError, Closed, Forbidden
from ebus_jupyter.transports.local import LocalTransport

FILTERS = "ebus_jupyter.filters"
PARTICIPANTS = "ebus_jupyter.participants"
"""Groups of entry points."""

RESTART_SECONDS = (1.0, 60.0)
"""The first and the longest pause before a participant that failed is started again; each is twice the one before."""

Ready = Callable[[], Awaitable[None]]


class ServerClient(Client):
    """A participant of the server's own, on the server's own loop. Make it on the loop's thread.

    It may enter every scope; whose user or kernel scope is meant, it says with ``owner=``.

    Attributes:
        broker: The broker of this server.
    """

    def __init__(self, broker: Broker, ready: Ready, loop: asyncio.AbstractEventLoop, name: str = "server") -> None:
        self.broker = broker
        self._thread = threading.get_ident()

        async def connect() -> LocalTransport:
            try:
                await ready()
            except BackendError as gone:
                raise Forbidden(gone.text) from None  # nothing comes back in this process
            return LocalTransport(lambda outlet: broker.attach(Participant("", "server", "", name), outlet))

        super().__init__(connect, where="this server", loop=loop)

    @property
    def on_own_loop(self) -> bool:
        # Extensions call in before the loop runs, too; to wait for it then would be to wait for ever.
        return threading.get_ident() == self._thread

    def bus(self, name: str | None = None, type: Any = Any, **spec: Any) -> Bus[Any, Any]:
        """Open a bus or create it; the arguments are those of `ebus_jupyter.bus`, and ``owner``.

        Raises:
            Forbidden: Scope "user" or "kernel" without ``owner``, a username or a kernel's id.
        """
        scope = spec.get("scope", "server")
        if scope in ("user", "kernel") and not spec.get("owner"):
            raise Forbidden(f"the server has no scope {scope!r} of its own: say whose bus it is with owner=.")
        return super().bus(name, type, **spec)

    async def aclose(self) -> None:
        """End, and return when everything has ended."""
        await self._close(Closed("the server has closed this client.", reason="closed"))
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Participants:
    """Runs the participants that are installed or configured.

    Args:
        functions: By name.
        client: Makes a client of that name.
        log: Where failures are told.
    """

    def __init__(
        self, functions: Mapping[str, Callable[..., Any]], client: Callable[[str], ServerClient], log: logging.Logger
    ) -> None:
        self._functions = functions
        self._client = client
        self._log = log
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin all of them."""
        for name, function in self._functions.items():
            self._tasks.append(asyncio.get_running_loop().create_task(self._run(name, function)))

    async def stop(self) -> None:
        """End all of them, and return when they have."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, name: str, function: Callable[..., Any]) -> None:
        pause, longest = RESTART_SECONDS
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            client = self._client(name)  # a new one: what the failed run has left behind goes with its client
            try:
                running = function(client)
                if not inspect.isawaitable(running):
                    self._log.error("ebus: participant %r is no async function (%r)", name, function)
                    return
                await running
                await asyncio.Event().wait()  # its callbacks go on, till the server stops
            except Exception:
                if clock() - began > longest:
                    pause = RESTART_SECONDS[0]
                self._log.exception("ebus: participant %r failed; it is started again in %g s", name, pause)
            finally:
                await client.aclose()
            await asyncio.sleep(pause)
            pause = min(longest, pause * 2)


def installed(group: str, configured: Mapping[str, str], log: logging.Logger) -> dict[str, Callable[..., Any]]:
    """The functions in a group of entry points, and those that the configuration names; by name, the latter first.

    What can't be imported is logged and left out: a bus that asks for a filter that is not there can't be made or
    written to, so nothing passes unfiltered.
    """
    found: dict[str, Callable[..., Any]] = {}
    sources = {entry.name: entry.value for entry in entry_points(group=group)} | dict(configured)
    for name, where in sources.items():
        try:
            function = pkgutil.resolve_name(where)
        except Exception as error:
            log.error("ebus: %s of the group %s can't be imported from %r: %s", name, group, where, error)
            continue
        if callable(function):
            found[name] = function
        else:
            log.error("ebus: %s of the group %s is no function but %r", name, group, function)
    return found
