"""A bus, as a program holds it."""

from __future__ import annotations

import asyncio
import copy
import sys
from collections.abc import AsyncIterable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, Self, TypeVar

from ebus_jupyter.core.client.channel import Channel
from ebus_jupyter.core.client.reader import Since
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.message import BusSpec, Message, Participant
from ebus_jupyter.core.protocol.position import Position
from ebus_jupyter.core.protocol.typescript import typescript
from ebus_jupyter.errors import Closed

from .ack import Ack
from .arguments import beginning, flag, function, text, texts, whole
from .callback import Callbacks
from .connection import REQUEST_SECONDS, Connection, Status
from .owner import Owner
from .presence import PresenceView
from .stream import Stream, message_of, start_reader
from .topic import Holder, Topic
from .waiting import NOT_YET, Condition

In = TypeVar("In")
Out = TypeVar("Out")
F = TypeVar("F", bound=Callable[..., Any])

_NIL = b"\xc0"


class Bus(Generic[In, Out]):
    """A typed broadcast bus: all its participants, the writer included, receive each write, in one order.

    Made by `ebus_jupyter.bus`. ``In`` is the type of what is written, ``Out`` the type of what is received. A bus is a value:
    assign it to a widget's trait, pickle it, write its `uri` on another bus.

    `close` leaves the bus; so does the end of a ``with`` block. A bus that the program has dropped is left as well, once
    nothing of it is in use: a stream, a `State`, a callback or a filter, and a write without an answer, keep it open.

    Attributes:
        presence: Who is on the bus, and what they say of themselves.
        codec: Encodes and decodes what is written.
        emits_codec: Encodes and decodes what is received; ``codec``, unless a filter changes the type.
    """

    def __init__(self, connection: Connection, topic: Topic, codec: Codec[In], emits_codec: Codec[Out]) -> None:
        self.connection = connection
        self.topic = topic
        self.codec = codec
        self.emits_codec = emits_codec
        self._holder = Holder(topic, connection.release)
        self.presence = PresenceView(connection, self._holder)
        self._callbacks = Callbacks(connection, topic)
        self._closed = False

    # --- identity and state -----------------------------------------------------------------------------------------

    @property
    def client(self) -> Owner:
        """The `Client` that opened the bus."""
        assert self.connection.client is not None
        return self.connection.client

    @property
    def channel(self) -> Channel:
        """The protocol's side of the bus. Internal: what programs need of it has a name of its own here."""
        return self.topic.channel

    @property
    def arrivals(self) -> Condition:
        """Notified when messages arrive, and when the bus opens, reconnects or closes."""
        return self.topic.arrivals

    @property
    def name(self) -> str:
        """The bus's name; the broker names an unnamed bus when it opens it."""
        return self.topic.name

    @property
    def scope(self) -> str:
        """ "kernel", "user", "server" or "hub"; "hub:GROUP" for one of its groups."""
        return self.channel.scope

    @property
    def owner(self) -> str:
        """Whose scope it is, where a page has to say so: the kernel's id or the username; else ""."""
        return self.channel.owner

    @property
    def capability(self) -> str:
        """The proof that lets a page enter the bus; "" where it takes none. Made by the broker."""
        return self.channel.cap

    @property
    def address(self) -> str:
        """The bus's URI without its capability, such as ``ebus:server/votes``; "" before the bus is open."""
        return self.channel.uri

    @property
    def uri(self) -> str:
        """The URI by which any client in its scope opens the bus; it ends in ``#CAPABILITY`` where it takes one to enter."""
        return self.address + (f"#{self.capability}" if self.capability else "")

    @property
    def epoch(self) -> str:
        """Names the bus's history; changes when the log begins anew and offsets start again. "" before the bus is open."""
        return self.channel.epoch

    @property
    def last(self) -> int:
        """The offset of the last message that has arrived here; 0 before the first."""
        return self.channel.last

    @property
    def position(self) -> Position:
        """The place that this client has reached, for ``stream(since=position)`` later, also in another process.

        Unlike an offset it tells one history of the bus from another. Its text is ``str(position)``; `Position.parse` reads it.
        """
        with self.connection.lock:
            return self.channel.position

    @property
    def spec(self) -> BusSpec:
        """The bus's specification, to which every opener has agreed."""
        return self.channel.spec

    @property
    def filtered_by(self) -> str:
        """Whose filter sees each write, and may change it: "user:NAME", whose kernel runs it, "server:NAME", or "" for none.

        Without a filter, a message says what its sender wrote. ``bus(…, filter=False)`` insists on that.
        """
        return self.channel.spec.filtered_by

    @property
    def status(self) -> Status:
        """ "live", "reconnecting" or "closed"."""
        if self._closed or self.channel.error is not None:
            return "closed"
        return "live" if self.connection.status == "live" and self.channel.is_open else "reconnecting"

    @property
    def is_receiving(self) -> bool:
        """True once a stream or callback here receives everything that is written."""
        return bool(self.channel.log_epoch)

    @property
    def typescript(self) -> str:
        """TypeScript declarations of what is received."""
        return typescript(self.spec.emits or self.spec.schema, self.spec.type or "Value")

    @property
    def model_id(self) -> str:
        """The id of the widget model that stands for this bus in pages; the value of a widget's trait that holds the bus.

        Raises:
            RuntimeError: The client belongs to a process without widgets.
        """
        if self.client.handle is None:
            raise RuntimeError(
                f"{self.name} can't be given to a widget: its client was not made by ebus.bus() or ebus.connect(). "
                "Open the bus with one of them, where ipywidgets is installed."
            )
        model_id: str = self.client.handle(self)
        return model_id

    async def opened(self) -> Bus[In, Out]:
        """Wait until the broker has agreed, and return this bus; at once where `ebus_jupyter.bus` has waited already.

        Raises:
            SpecConflict, Forbidden, NoSuchBus: As for `ebus_jupyter.bus`.
        """

        def check() -> Any:
            self.ensure_open()
            return self if self.epoch else NOT_YET

        found: Bus[In, Out] = await self.arrivals.wait_async(check)
        return found

    def __repr__(self) -> str:
        return f"<Bus {self.address or self.name}: {self.status}>"

    def __reduce__(self) -> Any:
        # A pickled bus is the public call that opens it again. (The package imports this module, not the reverse.)
        emits = {} if self.emits_codec is self.codec else {"emits": self.emits_codec.type}
        return partial(sys.modules["ebus_jupyter"].bus, **emits), (self.uri, self.codec.type)

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(
        self,
        value: In,
        *,
        key: str | None = None,
        echo: bool = True,
        to: str | list[str] | None = None,
        expect: int | None = None,
        wait: bool = True,
    ) -> Ack:
        """Write a value. It is checked in this call, and sent in the background.

        Args:
            value: What to write.
            key: The entry to set, on a bus with ``retain="keys"``.
            echo: False: this participant does not receive the message. Default: True, it does. As ``to``, only on a bus with
                ``retain="log"``: on others everyone holds the same state.
            to: A username or ``group:NAME``, or several: only these users, and this participant, receive the message.
                Default: everyone.
            expect: Compare and set: accept the write only if this is the last offset (of ``key``, if given; 0: there is none).
            wait: False: refuse the write with `RateLimited`, here or in the ack, where it can't be sent at once: too many
                writes have no answer yet, or the server's rate is reached. Default: True, it is sent as soon as it may be.

        Returns:
            The ack: await it, or call its ``result()``, for the offset. Its errors are listed there.

        Raises:
            TypeMismatch: The value is not of the bus's type.
            TypeError, ValueError: Another argument is none; the error names it.
            TooLarge: The value is larger than the server's limit ``value_bytes``, or the write than ``batch_bytes``.
            RateLimited: 10,000 writes, or 64 MiB of them, have no answer yet: at once, or after half a minute if ``wait``.
                Or, not if ``wait``, the server's rate is reached; ``retry_after`` says for how many seconds.
            Closed: The bus is closed.
        """
        data = self.codec.encode(value, self.name)
        if echo is not True:
            echo = flag(echo, "echo")
        if wait is not True:
            wait = flag(wait, "wait")
        users = None if to is None else texts(to, "to")
        return self._publish(data, key=key, echo=echo, to=users, expect=expect, wait=wait)

    def remove(self, key: str, *, expect: int | None = None) -> Ack:
        """Remove an entry from a bus with ``retain="keys"``.

        Args:
            key: The entry.
            expect: Compare and set: remove it only if this is the offset of its last write.

        Returns:
            The ack, as for `write`.

        Raises:
            Closed: The bus is closed.
        """
        return self._publish(_NIL, key=text(key, "key"), deleted=True, expect=expect)

    def _publish(self, data: bytes, *, key: str | None, expect: int | None, **options: Any) -> Ack:
        if key is not None:
            key = text(key, "key")
        if expect is not None:
            expect = whole(expect, "expect", 0)
        self.ensure_open()
        ack = Ack(self._holder, self.connection.ensure_may_block)
        self.connection.publish(self.channel, ack.settle, data, key=key, expect=expect, **options)
        return ack

    def feed(self, source: AsyncIterable[In]) -> Future[int]:
        """Write everything that ``source`` yields, in the background: sensor readings, another service's events.

        The source runs on the client's callback thread, also while the kernel is busy. The next item is requested when the
        last one is accepted.

        Returns:
            A future of the number of writes; its ``cancel()`` ends the feed. It fails with the exception that the source
            raises, or with the error of the first write that is refused.
        """

        if not isinstance(source, AsyncIterable):
            raise TypeError(
                f"source must be an async iterable, such as an `async def` with `yield`, not a value of type "
                f"{type(source).__name__}. What is here already is written by a loop: `for value in values: bus.write(value)`."
            )

        async def run() -> int:
            written = 0
            async for item in source:
                await self.write(item)
                written += 1
            return written

        return asyncio.run_coroutine_threadsafe(run(), self.connection.loop)

    def flush(self) -> None:
        """Send the writes that ``flush_size`` and ``flush_interval`` hold back."""
        self.connection.flush_batch(self.channel)

    # --- reading ----------------------------------------------------------------------------------------------------

    def stream(self, since: Since = None) -> Stream[Out]:
        """The values, as they are written: an iterator for ``for`` and ``async for``.

        Args:
            since: None (default): what is written after this call has returned. (On the client's own event loop, which can't
                wait here: after `await stream.begun()`.) "start": everything kept, then from now on. An offset: everything
                after it. -n: the last n, then from now on. A `position`: everything after it, or `Lagged` and everything kept
                if the bus was made anew since.

        Returns:
            A stream of its own. It raises `Lagged` where messages were missed, and continues after them.

        Raises:
            Closed: The bus is closed.
        """
        return self._read(since, self._value)

    def messages(self, since: Since = None) -> Stream[Message[Out]]:
        """As `stream`, but yields each `Message`: its value with offset, time, id and sender."""
        return self._read(since, self._message)

    def deliveries(self, since: Since = None) -> Stream[frames.Delivery]:
        """As `messages`, but yields each message as it travelled, its value still encoded: for copying a bus."""
        return self._read(since, lambda delivery: delivery)

    def history(self, n: int = 10, timeout: float = 15.0) -> list[Out]:
        """The last values that are kept.

        Args:
            n: How many at most. Default: 10.
            timeout: Seconds to wait for the broker. Default: 15.

        Raises:
            TimeoutError: The broker has not answered.
            Closed: The bus is closed.
            RuntimeError: The call would block the client's own event loop.
        """
        n = whole(n, "n")
        self.ensure_open()
        self.connection.ensure_may_block("history()")
        return self.stream(since=-n).take_kept(timeout)[-n:] if n > 0 else []

    def _read(self, since: Since, make: Callable[[frames.Delivery], Any]) -> Stream[Any]:
        since = beginning(since)
        self.ensure_open()
        return Stream(self.connection, self._holder, start_reader(self.connection, self.topic, since), make)

    def _value(self, delivery: frames.Delivery) -> Any:
        return NOT_YET if delivery.deleted else self.emits_codec.decode(delivery.value)

    def _message(self, delivery: frames.Delivery) -> Message[Any]:
        value = None if delivery.deleted else self.emits_codec.decode(delivery.value)
        return message_of(delivery, value, self.filtered_by)

    # --- callbacks --------------------------------------------------------------------------------------------------

    def on(self, callback: F) -> F:
        """Call ``callback(value)`` for each value from now on; usable as a decorator. The callback may be async.

        It runs on the event loop that is running where it is registered: a kernel's own, between cells. Where none is
        running, as in a script, it runs on the client's callback thread. A cell that is run again replaces the callback that
        it registered before. An exception that the callback raises is logged, and the next value still arrives. `off` ends
        it. When the bus is deleted, a warning in the log says why it ends, and `client.on_error` is told.

        Returns:
            ``callback``.
        """
        self._callbacks.add(function(callback, "callback"), self.stream())
        return callback

    def on_message(self, callback: F) -> F:
        """As `on`, but calls ``callback(message)`` with a `Message`."""
        self._callbacks.add(function(callback, "callback"), self.messages())
        return callback

    def off(self, callback: Callable[..., Any]) -> None:
        """Stop calling ``callback``."""
        self._callbacks.remove(callback)

    # --- participants and ending ------------------------------------------------------------------------------------

    @property
    def participants(self) -> list[Participant]:
        """Everyone on the bus; see `presence` for what they say of themselves."""
        return [seat.who for seat in self.presence.seats()]

    def close(self) -> None:
        """Leave the bus. The bus itself continues, unless it is unnamed and was made here."""
        if not self._closed:
            self._closed = True
            self._callbacks.close()
            self.presence.close()
            self._holder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def clone(self) -> Bus[In, Out]:
        """Another object for the same bus, to be closed by itself."""
        with self.connection.lock:
            self.ensure_open()
            self.topic.holders += 1
        return Bus(self.connection, self.topic, self.codec, self.emits_codec)

    def delete(self, timeout: float = REQUEST_SECONDS) -> None:
        """Delete the bus and everything it keeps, for everyone: all streams of it end with `Closed`.

        Args:
            timeout: Seconds to wait for the broker. Default: 15.

        Raises:
            Forbidden: This participant may not write to the bus.
            TimeoutError: The broker has not answered.
            RuntimeError: The call would block the client's own event loop.
        """
        self.ensure_open()
        self.connection.request(lambda: self.connection.session.delete(self.channel), timeout)

    def ensure_open(self) -> None:
        """Raise the error that the bus has ended with, if it has."""
        if self._closed:
            raise Closed(f"{self.name} was closed here; open it again with ebus.bus().", reason="closed")
        if self.channel.error is not None:
            raise copy.copy(self.channel.error)  # each raise of the same one would add to its traceback


def _rebuild(uri: str, incoming: Any, outgoing: Any) -> Bus[Any, Any]:
    """Open a bus that was pickled by version 0.1.0 or before: such a pickle names this function."""
    emits = {} if outgoing is incoming else {"emits": outgoing}
    bus: Bus[Any, Any] = sys.modules["ebus_jupyter"].bus(uri, incoming, **emits)
    return bus
