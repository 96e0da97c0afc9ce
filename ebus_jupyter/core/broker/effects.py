"""The effects that the broker's state machine asks for. The host (`ebus_jupyter.broker.host`) performs them, in order."""

from __future__ import annotations

import msgspec

from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.frames import List, Open
from ebus_jupyter.core.protocol.message import BusSpec, Participant

from .entry import Entry


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send one encoded frame to one connection."""

    conn: int
    frame: bytes


class SendQueued(msgspec.Struct, frozen=True, gc=False):
    """Send one encoded frame to one connection once the jobs before it are done, as the answer to an `OpenLog` is sent.

    A refusal that came at once would tell a bus that is hidden from one that does not exist.
    """

    conn: int
    frame: bytes


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """Send ``number`` encoded frames, joined, to each of ``conns``. All of them share the bytes."""

    conns: tuple[int, ...]
    frames: bytes
    number: int


class Append(msgspec.Struct, frozen=True, gc=False):
    """Append this entry to its bus's log; then call `BrokerState.commit` and `appended`, or `failed`."""

    entry: Entry


class OpenLog(msgspec.Struct, frozen=True, gc=False):
    """Open a bus's log, and create it where ``spec`` is given; then call `BusRegistry.log_opened`."""

    address: Address
    spec: BusSpec | None
    epoch: str


class AlterLog(msgspec.Struct, frozen=True, gc=False):
    """Give a bus's log another spec, with a greater bound or none; then call `BusRegistry.log_altered` with this effect."""

    address: Address
    spec: BusSpec


class DeleteLog(msgspec.Struct, frozen=True, gc=False):
    """Delete a bus's log; then call `BusRegistry.log_deleted` with this effect.

    Attributes:
        address: The bus.
        notice: Tells the connections that had the bus open. It is sent once the log is deleted, not before.
        request: The connection that asked for the deletion, and the number of its request.
    """

    address: Address
    notice: Deliver | None = None
    request: tuple[int, int] | None = None


class Authorize(msgspec.Struct, frozen=True, gc=False):
    """Ask the authorizer whether this connection may read and write the bus; then call `BusRegistry.authorized`."""

    conn: int
    frame: Open
    address: Address


class Filter(msgspec.Struct, frozen=True, gc=False):
    """Run the server's filter ``name``; then call `BrokerState.filtered` with the same ``address`` and ``request``."""

    address: Address
    request: int
    name: str
    value: bytes
    sender: Participant


class AuthorizeList(msgspec.Struct, frozen=True, gc=False):
    """Ask the authorizer which of ``buses`` this connection may read or write; then call `BrokerState.list_authorized`."""

    conn: int
    frame: List
    buses: dict[str, BusSpec]


class Hangup(msgspec.Struct, frozen=True, gc=False):
    """Close this connection once everything before this effect was sent to it."""

    conn: int


Effect = (
    Send | SendQueued | Deliver | Append | OpenLog | AlterLog | DeleteLog | Authorize | Filter | AuthorizeList | Hangup
)
