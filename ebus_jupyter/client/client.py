"""A client of one broker, as a program holds it: it opens buses and states, and tells how it is connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Self, TypeVar, Unpack, overload

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import EbusError
from ebus_jupyter.transports.base import Connect

from .arguments import function, seconds
from .bus import Bus
from .connection import CLOSE_SECONDS, REQUEST_SECONDS, Connection, Status
from .driver import Driver, LoopDriver
from .loop_thread import loop_thread
from .open import ClientBusOptions, ClientStateOptions, open_bus
from .state import State
from .waiting import NOT_YET

T = TypeVar("T")
U = TypeVar("U")


class Client:
    """A participant. `ebus_jupyter.connect` makes one; `ebus_jupyter.bus` uses the one that its process has.

    Args:
        connect: Opens a transport to the broker; called again, on ``loop``, whenever the connection was lost. Or a `Driver`,
            which connects by itself.
        where: Where it leads, for `ebus_jupyter.status` and errors, such as "the Jupyter server at http://…".
        loop: The event loop to run callbacks on. Default: one of the process's own, on a thread of its own.
        relay: Opens a transport for a page that can only go through this process.
        embedded: Whether the broker is in this process, so that pages can't reach it by themselves.

    Attributes:
        handle: Gives a bus its widget model, and returns the model's id; None where there are no widgets.
    """

    def __init__(
        self,
        connect: Connect | Driver,
        *,
        where: str,
        loop: asyncio.AbstractEventLoop | None = None,
        relay: Connect | None = None,
        embedded: bool = False,
    ) -> None:
        opens, driver = (connect, _on_loop(connect, loop)) if callable(connect) else (None, connect)
        self.connection = Connection(driver, where=where, loop=loop, relay=relay or opens, embedded=embedded)
        self.connection.client = self
        self.handle: Callable[[Bus[Any, Any]], str] | None = None

    def __repr__(self) -> str:
        return f"<ebus client of {self.where}: {self.status}>"

    # --- the connection ---------------------------------------------------------------------------------------------

    @property
    def where(self) -> str:
        """The place that the connection leads to, in words."""
        return self.connection.where

    @property
    def status(self) -> Status:
        """ "connecting", "live", "reconnecting" or "closed"."""
        return self.connection.status

    @property
    def why(self) -> EbusError | None:
        """Why the client is not live; None while it is."""
        return self.connection.error

    @property
    def you(self) -> Participant | None:
        """This client, as the broker stamps it on messages; None before the first welcome."""
        return self.connection.session.you

    @property
    def embedded(self) -> bool:
        """True if the broker is in this process."""
        return self.connection.embedded

    @property
    def relay(self) -> Connect | None:
        """Opens a transport for a page that can only go through this process; None: no page can."""
        return self.connection.relay

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the connection."""
        return self.connection.loop

    def on_status(self, listener: Callable[[str], None]) -> None:
        """Call ``listener(status)`` with each new status, on the client's callback thread."""
        self.connection.on_status(function(listener, "listener"))

    def wait_live(self, timeout: float | None) -> None:
        """Wait until the broker has welcomed this client.

        Args:
            timeout: Seconds to wait; None: without a limit.

        Raises:
            TimeoutError: The broker has not answered.
            Unauthenticated, Forbidden, Closed: The client has ended.
            RuntimeError: The call would block the client's own event loop.
        """
        connection = self.connection

        def check() -> Any:
            if connection.session.closed is not None:
                raise connection.session.closed.anew()
            return None if connection.session.live else NOT_YET

        connection.ensure_may_block("wait_live()")
        connection.status_changed.wait(check, timeout, f"{self.where} has not answered")

    def on_error(self, listener: Callable[[Exception], None]) -> Callable[[Exception], None]:
        """Call ``listener(error)`` with each error that no call is there to raise, on the client's callback thread.

        Such errors are a `TypeMismatch` for each message that can't be decoded here, the end of a bus that has callbacks, and
        whatever ended a connection unexpectedly. Each is in the log of ``ebus_jupyter``, too.

        Returns:
            ``listener``.
        """
        return self.connection.on_error(function(listener, "listener"))

    def flush(self, timeout: float = CLOSE_SECONDS) -> int:
        """Send everything that was written, and wait for the answers.

        Args:
            timeout: Seconds to wait. Default: 5.

        Returns:
            How many writes have no answer yet.

        Raises:
            RuntimeError: The call would block the client's own event loop.
        """
        self.connection.ensure_may_block("client.flush()")
        return self.connection.flush(seconds(timeout))

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """End this client, after the answers to its writes.

        Args:
            timeout: Seconds to wait for the answers. Default: 5. Writes without an answer then fail with `Closed`, and a
                warning says how many. On the client's own event loop it does not wait.
        """
        self.connection.close(seconds(timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- buses ------------------------------------------------------------------------------------------------------

    @overload
    def bus(self, name: str | None = ..., **options: Unpack[ClientBusOptions]) -> Bus[Any, Any]: ...

    @overload
    def bus(
        self, name: str | None = ..., type: type[T] = ..., *, emits: None = ..., **options: Unpack[ClientBusOptions]
    ) -> Bus[T, T]: ...

    @overload
    def bus(
        self, name: str | None = ..., type: type[T] = ..., *, emits: type[U], **options: Unpack[ClientBusOptions]
    ) -> Bus[T, U]: ...

    @overload
    def bus(
        self, name: str | None = ..., type: Any = ..., *, emits: Any = ..., **options: Unpack[ClientBusOptions]
    ) -> Bus[Any, Any]: ...

    def bus(self, name: str | None = None, type: Any = Any, **options: Any) -> Bus[Any, Any]:
        """Open a bus, or create it; the arguments and errors are those of `ebus_jupyter.bus`."""
        return self.open_bus(name, type, **options)

    @overload
    def state(self, name: str, **options: Unpack[ClientStateOptions]) -> State[Any]: ...

    @overload
    def state(self, name: str, type: type[T], **options: Unpack[ClientStateOptions]) -> State[T]: ...

    @overload
    def state(self, name: str, type: Any, **options: Unpack[ClientStateOptions]) -> State[Any]: ...

    def state(self, name: str, type: Any = Any, **options: Any) -> State[Any]:
        """Open a shared mapping; the arguments are those of `ebus_jupyter.state`."""
        timeout = options.get("timeout", REQUEST_SECONDS)
        return State(self.open_bus(name, type, retain="keys", **options), timeout)

    def open_bus(self, name: str | None, type: Any = Any, **options: Any) -> Bus[Any, Any]:
        """Open a bus with options that are known only at run time: those of `open.open_bus`. `bus` and `state` end here."""
        return open_bus(self.connection, name, type, **options)

    def buses(self, timeout: float = REQUEST_SECONDS, *, find: str = "") -> list[dict[str, Any]]:
        """The named buses within reach, in the order of their addresses within each scope.

        Args:
            timeout: Seconds to wait for the broker, for each page of the list. Default: 15.
            find: Only the buses with each of these words in their address. Default: all.

        Returns:
            For each bus its address, scope, name, spec, number of participants and last offset.
        """
        buses: list[dict[str, Any]] = []
        session, after = self.connection.session, ""
        while True:
            page: frames.Listed = self.connection.request(partial(session.list_buses, after, find=find), timeout)
            buses += page.buses
            after = page.following
            if not after:
                return buses


def _on_loop(connect: Connect, loop: asyncio.AbstractEventLoop | None) -> Driver:
    if loop is not None:
        return LoopDriver(connect, loop)
    ebus = loop_thread()
    return LoopDriver(connect, ebus.loop, ebus.ident)
