"""The channels of one client, found by the bus's number on this connection, or by its URI."""

from __future__ import annotations

from collections.abc import Iterator

from ebus_jupyter.core.protocol.address import Address, may_enter, resolve
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import EbusError

from .channel import Channel


class Directory:
    """The channels of one client, in the order in which they were opened.

    Attributes:
        by_number: The channels that are open on this connection, by the broker's numbers.
        leaving: The channels that are left once their writes have their answers.
    """

    def __init__(self) -> None:
        self.by_number: dict[int, Channel] = {}
        self.leaving: dict[Channel, None] = {}
        self._by_uri: dict[str, Channel] = {}
        self._channels: dict[Channel, None] = {}

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._channels)

    def add(self, channel: Channel, you: Participant | None) -> None:
        """Add a channel before it is open. `find` returns it from now on: two channels of one bus would take each other's
        messages."""
        self._channels[channel] = None
        channel.uri = _uri(channel.scope, channel.name, channel.owner, you)
        if channel.uri:
            self._by_uri.setdefault(channel.uri, channel)

    def opened(self, channel: Channel) -> None:
        """The broker has opened the channel, and has named it. One that is left makes room for a new one of the same bus."""
        if channel in self.leaving:
            self.by_number.setdefault(channel.number, channel)
        else:
            self.by_number[channel.number] = self._by_uri[channel.uri] = channel

    def leave(self, channel: Channel) -> None:
        """The channel is to be left: `find` returns it no more."""
        self.leaving[channel] = None
        self._forget_uri(channel)

    def discard(self, channel: Channel) -> None:
        """Take a channel out, if it is here."""
        if self.by_number.get(channel.number) is channel:
            del self.by_number[channel.number]
        self._forget_uri(channel)
        self.leaving.pop(channel, None)
        self._channels.pop(channel, None)

    def _forget_uri(self, channel: Channel) -> None:
        if self._by_uri.get(channel.uri) is channel:
            del self._by_uri[channel.uri]

    def clear(self) -> None:
        """Take all channels out."""
        self.by_number.clear()
        self.leaving.clear()
        self._by_uri.clear()
        self._channels.clear()

    def find(self, scope: str, name: str, owner: str, cap: str, you: Participant) -> Channel | None:
        """The channel that ``you`` mean; None where there is none, or where ``cap`` does not open it."""
        uri = _uri(scope, name, owner, you)
        channel = self._by_uri.get(uri)
        if channel is None:
            return None
        return channel if cap == channel.cap or may_enter(Address.parse(uri), you, "", b"") else None


def _uri(scope: str, name: str | None, owner: str, you: Participant | None) -> str:
    """The URI that the broker will give the bus.

    "" where only the broker knows it: before the first welcome, for an unnamed bus, and for a bus that it will refuse.
    """
    if you is None or name is None:
        return ""
    try:
        return str(resolve(scope, name, you, owner=owner, shared_engine=True))
    except EbusError:
        return ""
