"""Participants in the server: for other server extensions, and for installed code that runs in the server.

`ServerClient` is what other extensions find in ``serverapp.web_app.settings["ebus"]``. It has the same ``bus()``,
``state()``, ``write()`` and ``stream()`` as a kernel's client, and runs on the server's own loop, which must not be
blocked. So ``bus()`` returns at once (``await bus.opened()`` waits for the broker), acks are awaited, and streams are read
with ``async for``. A call that would block raises RuntimeError; run it with ``asyncio.to_thread``.

A *participant* is an async function that runs as long as the server: a referee, a recorder, a function that draws an image
from what it receives. It is found in the entry-point group ``ebus_jupyter.participants``, or named in the configuration::

    async def referee(ebus):
        moves = ebus.bus("moves", Move)
        async for message in moves.messages():
            ...

    c.EBus.participants = {"referee": "my_game.server:referee"}

Each participant has a client of its own, named after it; others see it as a sender of kind "server". A participant that
raises is logged and restarted after a pause. A participant that returns has ended, but the callbacks that it registered
with ``on`` stay active. All of them are cancelled when the server stops.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import pkgutil
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from ebus_jupyter.broker.host import Broker
from ebus_jupyter.client.bus import Bus
from ebus_jupyter.client.client import Client
from ebus_jupyter.client.driver import LoopDriver
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import BackendError, Closed, Forbidden
from ebus_jupyter.transports.local import LocalTransport

FILTERS = "ebus_jupyter.filters"
PARTICIPANTS = "ebus_jupyter.participants"
"""Entry-point groups."""

RESTART_SECONDS = (1.0, 60.0)
"""The first and the longest pause before a failed participant is restarted. The pause doubles with each failure."""


class ServerClient(Client):
    """A client of the server itself, on the server's own loop. Create it on the loop's thread.

    It may open buses of every scope. For scope "user" or "kernel" it names the user or the kernel with ``owner=``.

    Args:
        broker: The broker of this server.
        ready: Waits until the broker takes connections; raises `BackendError` where it never will.
        loop: The server's loop.
        name: The name that other participants see.

    Attributes:
        broker: The broker of this server.
    """

    def __init__(
        self,
        broker: Broker,
        ready: Callable[[], Awaitable[None]],
        loop: asyncio.AbstractEventLoop,
        name: str = "server",
    ) -> None:
        self.broker = broker

        async def connect() -> LocalTransport:
            try:
                await ready()
            except BackendError as unavailable:
                raise Forbidden(
                    unavailable.text
                ) from None  # which ends the client: this process starts no other broker
            return LocalTransport(lambda outlet: broker.attach(Participant("", "server", "", name), outlet))

        super().__init__(LoopDriver(connect, loop), where="this server", loop=loop)

    def open_bus(self, name: str | None, type: Any = Any, **options: Any) -> Bus[Any, Any]:
        """Open or create a bus, as `Client.open_bus` does, and as `bus` and `state` do through it.

        Raises:
            Forbidden: Scope "user" or "kernel" without ``owner`` (a username or a kernel's id).
        """
        scope = options.get("scope", "server")
        if scope in ("user", "kernel") and not options.get("owner"):
            raise Forbidden(f"the server has no {scope} of its own: name the {scope} whose bus it is with owner=.")
        return super().open_bus(name, type, **options)

    async def aclose(self) -> None:
        """Close the client, and wait until all its tasks have ended."""
        await self.connection.aclose(Closed("the server has closed this client.", reason="closed"))


class Participants:
    """Runs the participants that are installed or configured.

    Args:
        functions: The async functions, by the participant's name.
        make_client: Returns a new client of that name.
        log: Receives the failures.
        clock: Seconds, for the length of a run. A run longer than the longest pause resets the pause.
    """

    def __init__(
        self,
        functions: Mapping[str, Callable[..., Any]],
        make_client: Callable[[str], ServerClient],
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._functions = functions
        self._make_client = make_client
        self._log = log
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start all of them."""
        for name, function in self._functions.items():
            self._tasks.append(asyncio.get_running_loop().create_task(self._run(name, function)))

    async def stop(self) -> None:
        """Cancel all of them, and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, name: str, function: Callable[..., Any]) -> None:
        pause, longest = RESTART_SECONDS
        while True:
            started = self._clock()
            client = self._make_client(name)  # a new one: callbacks of a failed run end with its client
            try:
                running = function(client)
                if not inspect.isawaitable(running):
                    self._log.error("ebus: participant %r is not an async function (%r)", name, function)
                    return
                await running
                await asyncio.Event().wait()  # its callbacks stay active until the server stops
            except Exception:
                if self._clock() - started > longest:
                    pause = RESTART_SECONDS[0]
                self._log.exception("ebus: participant %r failed; it is restarted in %g s", name, pause)
            finally:
                await client.aclose()
            await asyncio.sleep(pause)
            pause = min(longest, pause * 2)


def load_functions(group: str, configured: Mapping[str, str], log: logging.Logger) -> dict[str, Callable[..., Any]]:
    """Import the functions of an entry-point group and of the configuration, which takes precedence.

    A function that can't be imported is logged and left out. This is safe for filters: a bus whose filter is missing can be
    neither created nor written to, so nothing passes unfiltered.

    Args:
        group: The entry-point group.
        configured: Dotted names (``"module:function"``), by the function's name.
        log: Receives the failures.
    """
    functions: dict[str, Callable[..., Any]] = {}
    sources = {entry.name: entry.value for entry in entry_points(group=group)} | dict(configured)
    for name, dotted in sources.items():
        try:
            function = pkgutil.resolve_name(dotted)
        except Exception as error:
            log.error("ebus: %s of the group %s can't be imported from %r: %s", name, group, dotted, error)
            continue
        if callable(function):
            functions[name] = function
        else:
            log.error("ebus: %s of the group %s is not a function but %r", name, group, function)
    return functions
