"""The events that a session reports to its shell (`ebus_jupyter.client`): the counterpart of `core.broker.effects`."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import EbusError

from .channel import Channel


class Welcomed(NamedTuple):
    """The broker has welcomed this client, as ``you``."""

    you: Participant


class BusOpened(NamedTuple):
    """The bus is open (again)."""

    channel: Channel


class BusClosed(NamedTuple):
    """The bus can't be opened, or is gone: ``error`` says why. It stays so."""

    channel: Channel
    error: EbusError


class MessagesArrived(NamedTuple):
    """There is something to read: the bus's log has grown or begun anew, or the bus can't be read any more."""

    channel: Channel


class WriteSettled(NamedTuple):
    """The write ``id`` was accepted at ``offset``, or refused with ``error``."""

    id: int
    offset: int
    error: EbusError | None = None


class RequestSettled(NamedTuple):
    """The request ``req`` was answered with ``frame``, or failed with ``error``."""

    req: int
    frame: frames.BrokerFrame | None
    error: EbusError | None = None


class PresenceChanged(NamedTuple):
    """A participant came, left, or set something about itself."""

    channel: Channel


class PresenceRefused(NamedTuple):
    """What this client says of itself was refused with ``error``, and is not said again."""

    channel: Channel
    error: EbusError


class FilterRequested(NamedTuple):
    """This client is to filter a write. The answer goes to `Session.answer_filter`, with this ``id``."""

    channel: Channel
    id: int
    value: msgspec.Raw
    sender: Participant


class ConnectionEnded(NamedTuple):
    """The broker closes the connection; ``reconnect`` says whether coming back may help."""

    error: EbusError
    reconnect: bool


Event = (
    Welcomed
    | BusOpened
    | BusClosed
    | MessagesArrived
    | WriteSettled
    | RequestSettled
    | PresenceChanged
    | PresenceRefused
    | FilterRequested
    | ConnectionEnded
)
