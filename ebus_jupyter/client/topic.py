"""One bus within one client: the part that all its `Bus` objects share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple
from weakref import finalize

from ebus_jupyter.core.client.channel import Channel
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.errors import TypeMismatch

from . import background, guard
from .kernel_filter import KernelFilter
from .unseen import UnseenErrors
from .waiting import Condition

ERRORS_KEPT = 100
"""How many errors of values that can't be decoded a stream, a state and a bus remember: the last ones."""


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
        unseen: The refused writes that nobody asked about.
        reruns: What ends the callbacks of a notebook's own functions, by their names: a cell that runs again replaces its.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.arrivals = Condition()
        self.presence_changed = Condition()
        self.filter: KernelFilter | None = None
        self.holders = 1
        self.unseen = UnseenErrors()
        self.reruns: dict[str, Callable[[], None]] = {}
        self._reported: deque[tuple[int, str]] = deque(maxlen=ERRORS_KEPT)

    @property
    def name(self) -> str:
        """The bus's name; the broker names an unnamed bus when it opens it."""
        return self.channel.name or "(unnamed)"

    def unreadable(self, delivery: frames.Delivery, error: BaseException) -> TypeMismatch:
        """The error of a message whose value can't be decoded here: ``bus``, ``offset``, ``sender``, ``path``, ``expected``."""
        sender = delivery.sender
        why = (
            str(error).removeprefix("the bus: ")
            if isinstance(error, TypeMismatch)
            else f"{type(error).__name__}: {guard.describe(error)}"
        )
        return TypeMismatch(
            f"{self.name}: message {delivery.offset}, by {sender.kind} {sender.user or sender.name}, can't be decoded here "
            f"and is skipped: {why.removesuffix('.')}. Its writer has opened the bus with another type, or with none.",
            path=getattr(error, "path", "$"),
            expected=getattr(error, "expected", ""),
            bus=self.name,
            offset=delivery.offset,
            sender=sender,
        )

    def is_news(self, error: TypeMismatch) -> bool:
        """Whether no reader has reported this error of `unreadable` before."""
        told = error.offset, error.text
        if told in self._reported:
            return False
        self._reported.append(told)
        return True


class Holder:
    """Keeps a topic open: a `Bus`, and whatever reads or calls on its behalf, refer to one.

    It leaves the bus when it is closed, or when nothing refers to it any more. A topic with a filter stays open then: the
    filter is to go on.

    Args:
        topic: The topic; its ``holders`` counts this one already.
        release: Takes back that count, on any thread.
    """

    __slots__ = ("__weakref__", "_finalizer", "topic")

    def __init__(self, topic: Topic, release: Callable[[Topic], None]) -> None:
        self.topic = topic
        self._finalizer = finalize(self, _abandoned, topic, release)
        self._finalizer.atexit = False

    def close(self) -> None:
        """Leave; once."""
        left = self._finalizer.detach()
        if left is not None:
            _, _, (topic, release), _ = left
            release(topic)


def _abandoned(topic: Topic, release: Callable[[Topic], None]) -> None:
    if topic.filter is None:
        background.later(0, release, topic)


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
