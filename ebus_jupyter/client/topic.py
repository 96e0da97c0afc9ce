"""One bus within one client: the part that all its `Bus` objects share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ebus_jupyter.core.client.channel import Channel

from .kernel_filter import KernelFilter
from .waiting import Condition


class TopicKey(NamedTuple):
    """How a program names a bus when it opens it."""

    scope: str
    owner: str
    name: str
    capability: str


class Topic:
    """The part that all `Bus` objects of one bus share in one client.

    Attributes:
        channel: The protocol's side of the bus.
        arrivals: Notified when messages arrive, and when the bus opens, reconnects or closes.
        presence_changed: Notified when the list of participants changes.
        filter: The filter that this kernel runs for the bus, if any.
        holders: How many `Bus` objects are open; the last one to close leaves the bus.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.arrivals = Condition()
        self.presence_changed = Condition()
        self.filter: KernelFilter | None = None
        self.holders = 1

    @property
    def name(self) -> str:
        """The bus's name; the broker names an unnamed bus when it opens it."""
        return self.channel.name or "(unnamed)"


class TopicTable:
    """The topics of one client, by channel and by the name that they were opened with."""

    def __init__(self) -> None:
        self._by_channel: dict[Channel, Topic] = {}
        self._by_key: dict[TopicKey, Topic] = {}

    def __iter__(self) -> Iterator[Topic]:
        return iter(list(self._by_channel.values()))

    def add(self, topic: Topic, key: TopicKey | None) -> None:
        """Register a topic; ``key`` is None for an unnamed bus."""
        self._by_channel[topic.channel] = topic
        if key is not None:
            self._by_key[key] = topic

    def of(self, channel: Channel) -> Topic | None:
        """The topic of a channel."""
        return self._by_channel.get(channel)

    def opened_as(self, key: TopicKey) -> Topic | None:
        """The topic that was opened with just these words."""
        return self._by_key.get(key)

    def forget_names(self, topic: Topic) -> None:
        """Let the next `open` of the same name begin anew, while the topic's channel still closes."""
        self._by_key = {key: other for key, other in self._by_key.items() if other is not topic}

    def remove(self, channel: Channel) -> Topic | None:
        """Remove the topic of a channel that has ended, and return it."""
        topic = self._by_channel.pop(channel, None)
        if topic is not None:
            self.forget_names(topic)
        return topic
