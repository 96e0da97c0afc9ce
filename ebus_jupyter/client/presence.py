"""Presence: who is on a bus, and what each participant says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.terminal import printable

from .arguments import function
from .connection import Connection
from .topic import Holder
from .waiting import NOT_YET

F = TypeVar("F", bound=Callable[[], Any])

_codec: Codec[Any] = Codec()


class Seat:
    """One participant of a bus.

    Attributes:
        who: The participant.
        here: False while its connection is lost.
        since: When it joined, in seconds since the epoch, by the broker's clock.
        state: What it says of itself; None if it says nothing.
        activity: What the server knows of a kernel: "idle", "busy", "restarting" or "dead"; "" for everyone else.
    """

    def __init__(self, who: Participant, status: str, since: float, state: Any, activity: str) -> None:
        self.who = who
        self.here = status == "here"
        self.since = since
        self.state = state
        self.activity = activity

    def __repr__(self) -> str:
        away = "" if self.here else ", away"
        return printable(f"<{self.who.kind} of {self.who.name or self.who.user}{away}: {self.state!r}>")


class PresenceView:
    """The participants of one bus; `Bus.presence`. Iterating over it yields their seats."""

    def __init__(self, connection: Connection, holder: Holder) -> None:
        self._connection = connection
        self._holder = holder  # a callback keeps the bus open
        self._topic = holder.topic
        self._callbacks: list[Callable[[], Any]] = []
        self._due = False

    def set(self, state: Any = None, **fields: Any) -> None:
        """Say something of yourself, until you leave the bus or say something else.

        Others learn the newest state. Of states that follow each other fast, such as a cursor's, they may not see each.

        Args:
            state: Any value that can travel on a bus.
            fields: The same, as a mapping: ``set(typing=True)``.

        It takes the right to write to the bus. Who may only read is seen by others, and a `Forbidden` is told to
        `client.on_error`.

        Raises:
            TypeMismatch: The value can't travel on a bus.
            TooLarge: It is larger than the server's limit ``presence_bytes``.
        """
        data = _codec.encode(fields or state, f"{self._topic.name}'s presence")
        with self._connection.lock:
            self._connection.session.set_presence(self._topic.channel, data)
        self._connection.wake_sender()

    def seats(self, timeout: float = 5.0) -> list[Seat]:
        """Everyone on the bus, this client included.

        Args:
            timeout: Seconds to wait for the broker, in the first call. Default: 5.

        Raises:
            TimeoutError: The broker has not answered.
            Closed: The bus, or the client, has ended.
            RuntimeError: The call would block the client's own event loop.
        """
        channel = self._topic.channel
        self._watch()
        if not channel.presence_known:
            self._connection.ensure_may_block("presence.seats()")
            self._topic.arrivals.wait(self._known, timeout, "the broker has not answered")
        with self._connection.lock:
            return [Seat(*seat) for seat in channel.participants.values()]

    def _known(self) -> Any:
        channel = self._topic.channel
        if channel.error is not None:
            raise channel.error.anew()
        return True if channel.presence_known else NOT_YET

    def __iter__(self) -> Iterator[Seat]:
        return iter(self.seats())

    def on_change(self, callback: F) -> F:
        """Call ``callback()`` after each change, on the client's callback thread; usable as a decorator.

        Returns:
            ``callback``.
        """
        self._callbacks.append(function(callback, "callback"))
        if len(self._callbacks) == 1:
            self._topic.presence_changed.each(self._changed)
        self._watch()
        return callback

    def off_change(self, callback: Callable[[], Any]) -> None:
        """Stop calling ``callback``."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)
        if not self._callbacks:
            self._topic.presence_changed.discard(self._changed)

    def close(self) -> None:
        """Stop all callbacks. Called when the bus is closed."""
        self._callbacks.clear()
        self._topic.presence_changed.discard(self._changed)

    def _changed(self) -> None:
        if not self._due:  # a slow callback is called once for all the changes in the meantime
            self._due = True
            self._connection.call(self._call)

    def _call(self) -> None:
        self._due = False
        for callback in [*self._callbacks]:
            self._connection.call(callback)

    def _watch(self) -> None:
        with self._connection.lock:
            self._connection.session.watch_presence(self._topic.channel)
        self._connection.wake_sender()
