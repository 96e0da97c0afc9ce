"""Typed broadcast buses for Jupyter, after Ocsigen's Eliom_bus.

Kernels, pages and the server are participants: each writes to a bus, and each receives every write, in one order.

>>> import ebus_jupyter as ebus
>>> votes = ebus.bus("votes", str)
>>> stream = votes.stream()
>>> ack = votes.write("tea")
>>> stream.get(timeout=5)
'tea'
>>> ack.result(timeout=5)
1
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

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
from .terminal import printable

if TYPE_CHECKING:
    from . import widgets
    from .client.ack import Ack
    from .client.bus import Bus
    from .client.client import Client
    from .client.open import BusOptions, StateOptions
    from .client.state import State
    from .client.stream import Stream
    from .core.protocol.message import Message, Participant, Retain
    from .core.protocol.position import Position
    from .widgets.sharing.share import link, share, unshare

T = TypeVar("T")
U = TypeVar("U")

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
    "Position",
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
    "Position": "core.protocol.position",
    "link": "widgets.sharing.share",
    "share": "widgets.sharing.share",
    "unshare": "widgets.sharing.share",
}


def __getattr__(name: str) -> Any:
    # Widgets and sockets are imported when first used: a server, or a script, need not have ipywidgets.
    from importlib import import_module

    if name == "widgets":
        return import_module(".widgets", __name__)
    if name not in _LAZY:
        raise AttributeError(f"module 'ebus_jupyter' has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__


@overload
def bus(name: str | None = ..., **options: Unpack[BusOptions]) -> Bus[Any, Any]: ...


@overload
def bus(
    name: str | None = ..., type: type[T] = ..., *, emits: None = ..., **options: Unpack[BusOptions]
) -> Bus[T, T]: ...


@overload
def bus(name: str | None = ..., type: type[T] = ..., *, emits: type[U], **options: Unpack[BusOptions]) -> Bus[T, U]: ...


@overload
def bus(
    name: str | None = ..., type: Any = ..., *, emits: Any = ..., **options: Unpack[BusOptions]
) -> Bus[Any, Any]: ...


def bus(
    name: str | None = None,
    type: Any = Any,
    *,
    scope: str = "server",
    emits: Any = None,
    size: int | None = None,
    retain: Retain | None = None,
    filter: str | Callable[..., Any] | Literal[False] | None = None,
    readers: Sequence[str] | None = None,
    writers: Sequence[str] | None = None,
    flush_size: int | None = None,
    flush_interval: float | None = None,
) -> Bus[Any, Any]:
    """Open a bus, or create it if it does not exist.

    Args:
        name: The name of the bus within its scope: letters, digits and ``. _ - : @``. A named bus outlives its participants.
            A bus's `uri` opens that bus. None: a new bus that nobody can guess, and that ends with its maker.
        type: The type of what is written: anything that msgspec takes (Struct, dataclass, TypedDict, attrs, builtins, …), a
            pydantic model, or a numpy array. Default: any value that JSON or MessagePack can carry, and numpy arrays.
        scope: The participants: "kernel", "user", "server" (default) or "hub".
        emits: The type of what is received, if a filter changes it. Default: ``type``.
        size: How many messages (or keys) are kept for late and slow readers. Default: 1000.
        retain: "log" (default) keeps the last ``size`` messages; "latest" the last one; "keys" the last one of each key.
        filter: Sees each write before it is kept, with the sender that the server stamped on it; returns what to keep, or
            raises `Reject`. A function (sync or async) runs in this kernel; a name is that of a filter in the server.
            False: refuse to open a bus that has one, now and after every reconnect. Default: join it as it is;
            `Bus.filtered_by` says whose filter that is.
        readers: Users and ``group:NAME`` who may read. Default: everyone in scope.
        writers: Users and ``group:NAME`` who may write. Default: everyone in scope.
        flush_size: Send writes when this many have gathered. Default: 1, at once; 1000 with a ``flush_interval``.
        flush_interval: Send gathered writes after this many seconds at the latest, however fast writes come. Default: 0.05
            with a ``flush_size``.

    Returns:
        The open bus. Fields of the specification that are left out are those of the bus that exists.

    Raises:
        SpecConflict: The bus exists with another value of a given field; the error shows both.
        InvalidName, UnknownScope: No bus can have that name or scope.
        Forbidden, NoSuchBus: This participant may not open it.
        ConnectionLost: The broker has not answered within 15 s.
    """
    return _client().open_bus(
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


@overload
def state(name: str, **options: Unpack[StateOptions]) -> State[Any]: ...


@overload
def state(name: str, type: type[T], **options: Unpack[StateOptions]) -> State[T]: ...


@overload
def state(name: str, type: Any, **options: Unpack[StateOptions]) -> State[Any]: ...


def state(name: str, type: Any = Any, *, scope: str = "server", **options: Any) -> State[Any]:
    """Open a shared mapping: what one participant sets, all see, in one order.

    Args:
        name: The name of the state within its scope.
        type: The type of the values. Default: any value that can travel on a bus.
        scope: The participants: "kernel", "user", "server" (default) or "hub".
        options: Other arguments of `bus`, such as ``size`` (the number of keys) or ``writers``.

    Returns:
        The state, with the entries that are there.

    Raises:
        TimeoutError: The entries did not arrive within 15 s.
        SpecConflict, InvalidName, UnknownScope, Forbidden, ConnectionLost: As for `bus`.
    """
    return _client().state(name, type, scope=scope, **options)


def connect(url: str, token: str, *, certificate: str = "") -> Client:
    """A client of the Jupyter server at ``url``, beside the one that `bus` uses; a process may have any number.

    Args:
        url: The server's base URL, such as ``http://127.0.0.1:8888/``.
        token: A token of the server, or a kernel's own.
        certificate: Path of a file with the certificate to trust, for a server with a self-signed one. Default: the system's
            certificates.

    Returns:
        The client, which connects in the background; `Client.wait_live` waits for it.

    Raises:
        ValueError: ``url`` is no URL of a server, or ``token`` can't be one.
    """
    from .client.discover import remote_client

    client = remote_client(url, token, certificate=certificate)
    client.handle = _handle
    return client


def status() -> str:
    """One sentence that says where this process's buses are, and whether they are within reach."""
    client = _client()
    you = client.you
    as_whom = f" as {you.kind} of {you.user}" if you is not None and you.user else ""
    why = f" ({client.why})" if client.why is not None else ""
    return printable(f"ebus {__version__}: {client.status}{as_whom}; buses are at {client.where}{why}.")


def _client() -> Client:
    from .client.discover import default_client

    client = default_client()
    client.handle = _handle
    return client


def _handle(bus: Bus[Any, Any]) -> str:
    # The client knows nothing of widgets: a bus gets its widget model here, when a widget's trait first holds it.
    from .widgets.handle import model_id

    return model_id(bus)


def load_ipython_extension(ipython: Any) -> None:
    """``%load_ext ebus_jupyter``: put ``ebus`` into the notebook's namespace, and register `ebus_jupyter.magics`."""
    from importlib import import_module

    from . import magics

    magics.load(ipython)
    ipython.push({"ebus": import_module(__name__)})


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from . import server

    return server._jupyter_server_extension_points()
