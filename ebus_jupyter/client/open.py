"""Opening a bus: what the program asked for, as a spec; waiting until the broker has agreed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ebus_jupyter.core.protocol.address import UNNAMED, Address, check_name, check_scope
from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import OWNER
from ebus_jupyter.errors import ConnectionLost, EbusError

from .bus import Bus, Topic
from .kernel_filter import KernelFilter
from .waiting import NOT_YET

if TYPE_CHECKING:
    from .client import Client

URI = "ebus:"
"""What a bus's URI begins with; no name does."""


def open_bus(
    client: Client,
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
    owner: str = "",
    cap: str = "",
    create: bool = True,
    given: Mapping[str, Any] | None = None,
    timeout: float = 15.0,
) -> Bus[Any, Any]:
    """Open or create a bus on ``client``; see `ebus_jupyter.bus`.

    ``create`` False: only one that exists. ``given``: fields of the spec as they travel, such as a schema without its type.
    """
    if name is not None and name.startswith(URI):
        scope, owner, name, cap = _parse(name)
    check_scope(scope)
    if name is not None:
        check_name(name.removeprefix(UNNAMED), Limits().name_chars)
    incoming: Codec[Any] = Codec(type)
    outgoing: Codec[Any] = incoming if emits is None else Codec(emits)
    given = dict(given or {})
    if incoming.schema is not None:
        given |= {"type": incoming.name, "schema": incoming.schema}
    if emits is not None:
        given["emits"] = outgoing.schema
    for field, value in (("size", size), ("retain", retain)):
        if value is not None:
            given[field] = value
    for field, users in (("readers", readers), ("writers", writers)):
        if users is not None:
            given[field] = sorted(users)
    kernel_filter = None
    if callable(filter):
        given["filter"] = OWNER
        kernel_filter = KernelFilter(filter, incoming, outgoing)
    elif filter is not None:
        given["filter"] = filter

    key = (scope, owner, name or "", cap)
    with client.lock:
        topic = client.topic(key) if name is not None else None
        join = None
        if topic is None:
            topic = Topic(client.session.open(scope, name, given, owner=owner, cap=cap, create=create))
            client.add(topic, key if name is not None else None)
        else:
            topic.holders += 1
            link = topic.channel
            join = (lambda: client.session.reopen(link, given)) if given else None
        if kernel_filter is not None:
            topic.filter = kernel_filter
        topic.channel.flush_size, topic.channel.flush_interval = flush_size, flush_interval
    bus: Bus[Any, Any] = Bus(client, topic, incoming, outgoing)
    client.wake_sender()
    if client.on_own_loop:
        return bus  # its loop can't be blocked: writes and streams wait for the answer, and raise what it is
    try:
        if join is not None:
            client.ask(join, timeout)
        bus.arrivals.wait(lambda: _opened(bus), timeout, "")
    except TimeoutError:
        why = f" ({client.why})" if client.why is not None else ""
        bus.close()
        raise ConnectionLost(
            f"{name or 'the bus'} can't be opened: {client.where} has not answered for {timeout:g} s{why}."
        ) from None
    except EbusError:
        bus.close()
        raise
    return bus


def _opened(bus: Bus[Any, Any]) -> Any:
    if bus.channel.error is not None:
        raise bus.channel.error
    return True if bus.channel.epoch else NOT_YET


def _parse(uri: str) -> tuple[str, str, str, str]:
    """Scope, owner, name and capability of a URI, as `Bus.uri` prints it."""
    address = Address.parse(uri)
    cap = uri.partition("#")[2]
    scope = f"hub:{address.owner}" if address.scope == "hub" and address.owner else address.scope
    return scope, address.owner, address.name, cap
