"""Opening a bus: from what the program asked for to a spec, and waiting until the broker has agreed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from ebus_jupyter.core.protocol.address import UNNAMED, Address, check_name, check_scope
from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import OWNER, Retain
from ebus_jupyter.errors import ConnectionLost

from .arguments import flag, seconds, text, texts, whole
from .bus import Bus
from .connection import REQUEST_SECONDS, Connection
from .kernel_filter import KernelFilter
from .topic import Topic, TopicKey
from .waiting import NOT_YET

URI_SCHEME = "ebus:"
"""The beginning of a bus's URI; no name begins so."""


class StateOptions(TypedDict, total=False):
    """The keyword arguments of `ebus_jupyter.state`, which are described at `ebus_jupyter.bus`."""

    scope: str
    size: int | None
    filter: str | Callable[..., Any] | Literal[False] | None
    readers: Sequence[str] | None
    writers: Sequence[str] | None
    flush_size: int | None
    flush_interval: float | None


class BusOptions(StateOptions, total=False):
    """The keyword arguments of `ebus_jupyter.bus`, apart from ``emits``."""

    retain: Retain | None


class ClientStateOptions(StateOptions, total=False):
    """The keyword arguments of `Client.state`: those of `ebus_jupyter.state`, and three more.

    ``owner`` says whose user or kernel scope is meant, for a client that may enter those of others: the server's own.
    ``create=False`` opens only a bus that exists. ``timeout`` is how many seconds to wait for the broker; default: 15.
    """

    owner: str
    create: bool
    timeout: float


class ClientBusOptions(ClientStateOptions, BusOptions, total=False):
    """The keyword arguments of `Client.bus`, apart from ``emits``."""


def open_bus(
    connection: Connection,
    name: str | None = None,
    type: Any = Any,
    *,
    scope: str = "server",
    emits: Any = None,
    size: int | None = None,
    retain: str | None = None,
    filter: str | Callable[..., Any] | Literal[False] | None = None,
    readers: Sequence[str] | None = None,
    writers: Sequence[str] | None = None,
    flush_size: int | None = None,
    flush_interval: float | None = None,
    owner: str = "",
    cap: str = "",
    create: bool = True,
    given: Mapping[str, Any] | None = None,
    timeout: float = REQUEST_SECONDS,
) -> Bus[Any, Any]:
    """Open or create a bus on a connection; see `ebus_jupyter.bus` for the arguments that are not listed here.

    On the connection's own loop, which can't be blocked, it returns at once: writes and streams wait for the broker's
    answer, and raise its error.

    Args:
        owner: Whose scope is meant, for a client that may enter those of others.
        cap: The capability, for a bus that takes one to enter.
        create: False: only a bus that exists.
        given: Fields of the spec as they travel, such as a schema without its Python type.
        timeout: Seconds to wait for the broker.
    """
    connection.ensure_not_interrupted("ebus.bus()")
    timeout = seconds(timeout)
    name = str.__str__(name) if isinstance(name, str) else name
    scope = str.__str__(scope) if isinstance(scope, str) else scope
    owner, cap, create = text(owner, "owner"), text(cap, "cap"), flag(create, "create")
    if isinstance(name, str) and name.startswith(URI_SCHEME):
        scope, owner, name, cap = _parse(name)
    check_scope(scope)
    if name is not None:
        check_name(name.removeprefix(UNNAMED) if isinstance(name, str) else name, Limits().name_chars)
    codec: Codec[Any] = Codec(type)
    emits_codec: Codec[Any] = codec if emits is None else Codec(emits)
    given = dict(given or {})
    if codec.schema is not None:
        given |= {"type": codec.name, "schema": codec.schema}
    if emits is not None:
        given["emits"] = emits_codec.schema
    if size is not None:
        given["size"] = whole(size, "size")
    if retain is not None:
        given["retain"] = text(retain, "retain")
    for field, users in (("readers", readers), ("writers", writers)):
        if users is not None:
            given[field] = sorted(texts(users, field))
    if flush_size is not None:
        flush_size = whole(flush_size, "flush_size", 1)
    if flush_interval is not None and (flush_interval := seconds(flush_interval, "flush_interval")) < 0:
        raise ValueError(f"flush_interval must not be negative, and is {flush_interval:g}.")
    kernel_filter = None
    if callable(filter):
        given["filter"] = OWNER
        kernel_filter = KernelFilter(filter, codec, emits_codec)
        connection.start_filter(kernel_filter)
    elif filter is not None:
        given["filter"] = None if filter is False else text(filter, "filter")  # False: insist that there is none

    key = None if name is None else TopicKey(scope, owner, name, cap)

    def apply() -> None:
        """What was asked for holds from now on: the bus is new here, or the broker has granted it."""
        if kernel_filter is not None:
            topic.filter = kernel_filter
        topic.channel.gather(flush_size, flush_interval)

    def reopen() -> int:
        return connection.session.reopen(topic.channel, given)

    with connection.lock:
        found = None if key is None else connection.find(key)
        if found is None:
            topic = Topic(connection.session.open(scope, name, given, owner=owner, cap=cap, create=create))
            connection.topics.add(topic, key)
        else:
            topic = found
            topic.holders += 1
        if found is None or not given:
            apply()
    bus: Bus[Any, Any] = Bus(connection, topic, codec, emits_codec)
    try:
        connection.wake_sender()
        asks = found is not None and bool(given)
        if connection.on_own_loop:
            if asks:
                connection.ask(reopen, apply, f"{bus.name} stays as it was")
            return bus
        if asks:
            connection.request(reopen, timeout, granted=apply)
        bus.arrivals.wait(lambda: _opened(bus), timeout, "the bus is not open")
    except TimeoutError:
        why = f" ({connection.error})" if connection.error is not None else ""
        bus.close()
        raise ConnectionLost(
            f"{name or 'the bus'} can't be opened: {connection.where} has not answered for {timeout:g} s{why}. "
            "The client goes on trying to connect: call this again once ebus.status() says `live`."
        ) from None
    except BaseException:
        bus.close()
        raise
    return bus


def _opened(bus: Bus[Any, Any]) -> Any:
    if bus.channel.error is not None:
        raise bus.channel.error.anew()
    return True if bus.epoch else NOT_YET


def _parse(uri: str) -> tuple[str, str, str, str]:
    """Scope, owner, name and capability of a URI, as `Bus.uri` prints it."""
    address = Address.parse(uri)
    capability = uri.partition("#")[2]
    scope = f"hub:{address.owner}" if address.scope == "hub" and address.owner else address.scope
    return scope, address.owner, address.name, capability
