"""What has happened, as a client's link tells its shell (`ebus_jupyter.client`): the counterpart of `core.effects`."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ebus_jupyter.errors import EbusError

from . import frames
from .buslink import BusLink
from .message import Participant


class Opened(NamedTuple):
    """The bus is open (again)."""

    bus: BusLink


class Refused(NamedTuple):
    """The bus can't be opened, or is gone: ``error`` says why. It stays so."""

    bus: BusLink
    error: EbusError


class Arrived(NamedTuple):
    """The bus's log has grown."""

    bus: BusLink


class Acked(NamedTuple):
    """A write was accepted at ``offset``, or refused with ``error``."""

    id: int
    offset: int
    error: EbusError | None = None


class Answered(NamedTuple):
    """The answer to a question: a frame, or an error."""

    req: int
    frame: frames.BrokerFrame | None
    error: EbusError | None = None


class PresenceChanged(NamedTuple):
    """Someone came, went, or said something of itself."""

    bus: BusLink


class FilterAsked(NamedTuple):
    """This client is to filter a write."""

    bus: BusLink
    ask: int
    value: msgspec.Raw
    sender: Participant


class Live(NamedTuple):
    """The broker has welcomed this client."""

    you: Participant


class Ended(NamedTuple):
    """The broker closes the connection; ``again``: whether to come back."""

    error: EbusError
    again: bool


Event = Opened | Refused | Arrived | Acked | Answered | PresenceChanged | FilterAsked | Live | Ended
