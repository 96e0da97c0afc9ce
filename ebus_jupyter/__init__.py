"""Typed broadcast buses for Jupyter, after Ocsigen's Eliom_bus.

Kernels, pages and the server are participants: each writes to a bus, and each receives every write, in one order.

>>> import ebus_jupyter as ebus
>>> votes = ebus.bus("votes", str)
>>> hears = votes.stream()
>>> ack = votes.write("tea")
>>> hears.get(timeout=5)
'tea'
>>> ack.result(timeout=5)
1
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import errors
from .errors import (
    BackendError,
    Closed,
    Conflict,
    ConnectionLost,
    EbusError,
    Filtered,
    FilterUnavailable,
    Forbidden,
    InvalidName,
    Lagged,
    NoSuchBus,
    ProtocolError,
    RateLimited,
    Reject,
    Rejected,
    SpecConflict,
    TooLarge,
    TypeMismatch,
    Unauthenticated,
    UnknownScope,
)

if TYPE_CHECKING:
    from . import widgets
    from .client.ack import Ack
    from .client.bus import Bus
    from .client.client import Client
    from .client.state import State
    from .client.stream import Stream
    from .core.protocol.message import Message, Participant

__version__ = "0.1.0"

__all__ = [
    "Ack",
    "BackendError",
    "Bus",
    "Client",
    "Closed",
    "Conflict",
    "ConnectionLost",
    "EbusError",
    "FilterUnavailable",
    "Filtered",
    "Forbidden",
    "InvalidName",
    "Lagged",
    "Message",
    "NoSuchBus",
    "Participant",
    "ProtocolError",
    "RateLimited",
    "Reject",
    "Rejected",
    "SpecConflict",
    "State",
    "Stream",
    "TooLarge",
    "TypeMismatch",
    "Unauthenticated",
    "UnknownScope",
    "bus",
    "connect",
    "errors",
    "link",
    "share",
    "state",
    "status",
    "unshare",
    "widgets",
]

_LAZY = {
    "Ack": "client.ack",
    "Bus": "client.bus",
    "Client": "client.client",
    "State": "client.state",
    "Stream": "client.stream",
    "Message": "core.protocol.message",
    "Participant": "core.protocol.message",
    "link": "widgets.sharing.share",
    "share": "widgets.sharing.share",
    "unshare": "widgets.sharing.share",
}


def __getattr__(name: str) -> Any:
    # Widgets and sockets are imported by who uses them: a server, or a script, need not have ipywidgets.
    from importlib import import_module

    if name == "widgets":
        return import_module(".widgets", __name__)
    if name not in _LAZY:
        raise AttributeError(f"module 'ebus_jupyter' has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__


def bus(
    name: str | None = None,
    type: Any = Any,
    *,
    scope: str = "server",
    emits: Any = None,
    size: int | None = None,
    retain: str | None = None,
    filter: str | Callable[..., Any] | None = None,
    readers: Sequence[str] | None = None,
    writers: Sequence[str] | None = None,
    flush_size: int = 1,
    flush_interval: float = 0.0,
) -> Bus[Any, Any]:
    """Open a bus, or create it where there is none.

    Args:
        name: Names the bus within its scope: letters, digits and ``. _ - : @``. A named bus outlives its participants. None: a
            fresh bus that nobody can guess, and that goes with its maker. A bus's `uri`: that bus.
        type: The type of what is written: anything msgspec takes (Struct, dataclass, TypedDict, attrs, builtins, …), a pydantic
            model, a numpy array. Default: any value that JSON or MessagePack can carry, and numpy arrays.
        scope: "kernel", "user", "server" (default) or "hub"; who takes part.
        emits: The type of what is received, where a filter changes it. Default: as written.
        size: How many messages are kept for late and slow readers. Default: 1000.
        retain: "log" (default) keeps the last ``size`` messages; "latest" the last one; "keys" the last one of each key.
        filter: Sees each write before it is kept, with the sender that the server stamped on it; returns what to keep, or
            raises `Reject`. A function (sync or async) runs in this kernel; a name runs a filter installed in the server.
        readers: Users and ``group:NAME`` who may read. Default: all in scope.
        writers: Users and ``group:NAME`` who may write. Default: all in scope.
        flush_size: Gather this many writes before they are sent together. Default: 1, at once.
        flush_interval: Send what was gathered after this many seconds at the latest, however fast writes come.

    Returns:
        The bus, open. Fields left out are those of the bus that exists.

    Raises:
        SpecConflict: The bus exists, and a field given here is another there; the error shows both.
        InvalidName, UnknownScope: No such name or scope can be.
        Forbidden, NoSuchBus: This participant may not enter.
        ConnectionLost: The broker did not answer for 15 s.
    """
    from .client.open import open_bus

    return open_bus(
        _client(),
        name,
        type,
        scope=scope,
        emits=emits,
        size=size,
        retain=retain,
        filter=filter,
        readers=readers,
        writers=writers,
        flush_size=flush_size,
        flush_interval=flush_interval,
    )


def state(name: str, type: Any = Any, *, scope: str = "server", **spec: Any) -> State:
    """Open a shared mapping: what one participant sets, all see, in one order. The arguments are those of `bus`."""
    shared: State = _client().state(name, type=type, scope=scope, **spec)
    return shared


def connect(url: str, token: str, *, certificate: str = "") -> Client:
    """A client of the Jupyter server at ``url``, beside the one that `bus` uses. Any number of them in a process.

    Args:
        url: The server's base URL, such as ``http://127.0.0.1:8888/``.
        token: The server's token, or a kernel's own.
        certificate: A file with the certificate to trust, where the server made its own.
    """
    from .client.discover import remote_client

    client = remote_client(url, token, certificate=certificate)
    client.handle = _handle
    return client


def status() -> str:
    """Where this process's buses live, and whether they are within reach, in a sentence."""
    client = _client()
    you = client.you
    as_whom = f" as {you.kind} of {you.user}" if you is not None and you.user else ""
    why = f" ({client.why})" if client.why is not None else ""
    return f"ebus {__version__}: {client.status}{as_whom}; buses are at {client.where}{why}."


def _client() -> Client:
    from .client.discover import default_client

    client = default_client()
    client.handle = _handle
    return client


def _handle(bus: Bus[Any, Any]) -> str:
    # The client knows nothing of widgets; what a widget's trait holds of a bus is made here, when one is first asked for.
    from .widgets.handle import model_id

    return model_id(bus)


def load_ipython_extension(ipython: Any) -> None:
    """``%load_ext ebus_jupyter``: puts ``ebus`` into the notebook's namespace, and the magics of `ebus_jupyter.magics`."""
    from importlib import import_module

    from . import magics

    magics.load(ipython)
    ipython.push({"ebus": import_module(__name__)})


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from . import server

    return server._jupyter_server_extension_points()
