"""What the broker wants done. It decides; whoever runs it (`ebus_jupyter.broker.host`) performs these, in their order."""

from __future__ import annotations

from typing import NamedTuple

from .address import Address
from .entry import Entry
from .frames import Open
from .message import BusSpec, Participant


class Send(NamedTuple):
    """One encoded frame, to one connection."""

    conn: int
    frame: bytes


class Deliver(NamedTuple):
    """``number`` encoded frames, joined, to every one of ``conns``. The same bytes for all: encode once."""

    conns: tuple[int, ...]
    frames: bytes
    number: int


class Append(NamedTuple):
    """Give this entry to the backend; then call `BrokerState.appended` or `failed`."""

    entry: Entry


class Load(NamedTuple):
    """Open a bus in its backend, beginning it where ``spec`` is given; then call `BrokerState.loaded`."""

    address: Address
    spec: BusSpec | None
    epoch: str


class Forget(NamedTuple):
    """Delete a bus from its backend; then call `BrokerState.forgotten` with this.

    Attributes:
        address: The bus.
        told: Who has the bus open and hears that it is gone: once it is, not before.
        asked: The connection that asked for it, and the number of its question.
    """

    address: Address
    told: Deliver | None = None
    asked: tuple[int, int] | None = None


class Authorize(NamedTuple):
    """Ask whether this connection may read and write the bus; then call `BrokerState.authorized`."""

    conn: int
    question: Open
    address: Address


class Filter(NamedTuple):
    """Run the server's filter ``name``; then call `BrokerState.filtered` with the same ``address`` and ``ask``."""

    address: Address
    ask: int
    name: str
    value: bytes
    sender: Participant


class Catalogue(NamedTuple):
    """List what the backends keep; then call `BrokerState.listed`."""

    conn: int
    req: int


class Hangup(NamedTuple):
    """Close this connection, after what was sent to it."""

    conn: int


Effect = Send | Deliver | Append | Load | Forget | Authorize | Filter | Catalogue | Hangup
