"""What the broker wants done. It decides; whoever runs it (`ebus_jupyter.broker.host`) performs these, in their order."""

from __future__ import annotations

from typing import NamedTuple

from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.frames import Open
from ebus_jupyter.core.protocol.message import BusSpec, Participant

from .entry import Entry


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


class OpenLog(NamedTuple):
    """Open a bus in its backend, beginning it where ``spec`` is given; then call `BrokerState.log_opened`."""

    address: Address
    spec: BusSpec | None
    epoch: str


class DeleteLog(NamedTuple):
    """Delete a bus from its backend; then call `BrokerState.log_deleted` with this.

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


class ListBuses(NamedTuple):
    """List what the backends keep; then call `BrokerState.listed`."""

    conn: int
    req: int


class Hangup(NamedTuple):
    """Close this connection, after what was sent to it."""

    conn: int


Effect = Send | Deliver | Append | OpenLog | DeleteLog | Authorize | Filter | ListBuses | Hangup
