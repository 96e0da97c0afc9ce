"""What has happened, as a client's link tells its shell (`ebus_jupyter.client`): the counterpart of `core.broker.effects`."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import EbusError

from .channel import Channel


class BusOpened(NamedTuple):
    """The bus is open (again)."""

    bus: Channel


class BusClosed(NamedTuple):
    """The bus can't be opened, or is gone: ``error`` says why. It stays so."""

    bus: Channel
    error: EbusError


class MessagesArrived(NamedTuple):
    """The bus's log has grown."""

    bus: Channel


class WriteSettled(NamedTuple):
    """A write was accepted at ``offset``, or refused with ``error``."""

    id: int
    offset: int
    error: EbusError | None = None


class RequestSettled(NamedTuple):
    """The answer to a question: a frame, or an error."""

    req: int
    frame: frames.BrokerFrame | None
    error: EbusError | None = None


class PresenceChanged(NamedTuple):
    """Someone came, went, or said something of itself."""

    bus: Channel


class FilterRequested(NamedTuple):
    """This client is to filter a write."""

    bus: Channel
    ask: int
    value: msgspec.Raw
    sender: Participant


class Welcomed(NamedTuple):
    """The broker has welcomed this client."""

    you: Participant


class ConnectionEnded(NamedTuple):
    """The broker closes the connection; ``again``: whether to come back."""

    error: EbusError
    again: bool


Event = (
    BusOpened
    | BusClosed
    | MessagesArrived
    | WriteSettled
    | RequestSettled
    | PresenceChanged
    | FilterRequested
    | Welcomed
    | ConnectionEnded
)
