"""Reading a bus: `Stream`, of values or of messages, for ``async for``, ``for``, or one item at a time."""

from __future__ import annotations

import contextlib
import copy
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

from ebus_jupyter.core.client.reader import Reader, Since
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Message
from ebus_jupyter.errors import Closed, EbusError, Lagged, TypeMismatch

from .arguments import whole
from .connection import Connection, Status
from .topic import ERRORS_KEPT, Holder, Topic
from .waiting import NOT_YET

T = TypeVar("T")

BEGIN_SECONDS = 5.0
"""The time that a new stream waits until the broker sends it all that is written from then on."""


def start_reader(connection: Connection, topic: Topic, since: Since) -> Reader:
    """A reader of a bus.

    One that reads from now on waits, up to `BEGIN_SECONDS`, until it can miss nothing that is written after this call. It
    does not wait while the connection is lost, nor on the connection's own loop.
    """
    connection.ensure_not_interrupted("bus.stream()")
    with connection.lock:
        reader = Reader(connection.session, topic.channel, since)
        connection.request_page(reader)
    connection.wake_sender()
    if since is None and not connection.on_own_loop:
        with contextlib.suppress(TimeoutError):
            topic.arrivals.wait(
                lambda: _has_begun(connection, topic, reader) if connection.session.live else None,
                BEGIN_SECONDS,
                "the broker has not answered",
            )
    return reader


def _has_begun(connection: Connection, topic: Topic, reader: Reader) -> Any:
    with connection.lock:
        return None if reader.has_begun or topic.channel.read_error is not None else NOT_YET


def message_of(delivery: frames.Delivery, value: T, filtered_by: str = "") -> Message[T]:
    """A message as programs see it, with its value decoded."""
    return Message(
        offset=delivery.offset,
        id=delivery.message_id,
        time=delivery.time,
        value=value,
        sender=delivery.sender,
        key=delivery.key,
        deleted=delivery.deleted,
        filtered_by=filtered_by,
    )


class Stream(Generic[T]):
    """One reader's way through a bus; made by `Bus.stream` and `Bus.messages`.

    Streams are independent: each receives everything from where it begins, at its own speed. A stream that is too slow
    raises `Lagged` once, and then continues after the messages that it missed. When the bus ends, it raises `Closed` with
    the reason.

    A message whose value can't be decoded here (another participant has opened the bus without its type) is skipped: it is
    logged, told to `client.on_error`, and added to ``errors``, as a `TypeMismatch` with ``bus``, ``offset`` and ``sender``.
    So is it in `Bus.history`, in callbacks, and in a `State`. `Bus.deliveries` yields such messages too, still encoded.

    The bus stays open as long as a stream of it is in use. ``with`` closes the stream.

    Attributes:
        errors: The last 100 of those errors.
    """

    def __init__(
        self, connection: Connection, holder: Holder, reader: Reader, make: Callable[[frames.Delivery], Any]
    ) -> None:
        self.errors: deque[TypeMismatch] = deque(maxlen=ERRORS_KEPT)
        self._connection = connection
        self._holder = holder  # keeps the bus open
        self._topic = holder.topic
        self._reader = reader
        self._make = make
        self._kept: deque[T] = deque()  # read by a `take` that could not be completed
        self._unread: frames.Delivery | None = None  # an interrupt came while it was decoded
        self._closed = False

    @property
    def status(self) -> Status:
        """ "live", "reconnecting" or "closed"."""
        if self._closed or self._topic.channel.read_error is not None:
            return "closed"
        return "live" if self._connection.status == "live" else "reconnecting"

    @property
    def caught_up(self) -> bool:
        """True if everything that has arrived was read."""
        with self._connection.lock:
            return not self._kept and self._unread is None and self._reader.caught_up

    @property
    def is_closed(self) -> bool:
        """True once this stream was closed by its reader."""
        return self._closed

    async def begun(self) -> Stream[T]:
        """Wait until this stream receives everything that is written from then on, and return it.

        `Bus.stream` does so by itself, except on the client's own event loop, which it must not block.
        """
        await self._topic.arrivals.wait_async(lambda: _has_begun(self._connection, self._topic, self._reader))
        return self

    def get_nowait(self) -> T:
        """Return the next item.

        Raises:
            LookupError: There is none yet.
            Lagged, Closed: As for `get`.
        """
        item: T = self._next()
        if item is NOT_YET:
            raise LookupError(f"nothing new on {self._topic.name}; stream.get() waits for it.")
        return item

    def get(self, timeout: float | None = None) -> T:
        """Wait for the next item, and return it.

        Args:
            timeout: Seconds to wait. Default: None, without a limit.

        Raises:
            TimeoutError: No item arrived.
            Lagged: Messages were missed; the next call continues after them.
            Closed: The bus has ended, or this stream was closed.
            RuntimeError: The call would block the client's own event loop.
        """
        self._connection.ensure_may_block("stream.get()")
        return self._topic.arrivals.wait(self._next_or_stop, timeout, f"nothing new on {self._topic.name}")

    def get_kept(self, timeout: float = 15.0) -> T:
        """Return the next item of those that are there already.

        Args:
            timeout: Seconds to wait for the broker to send it. Default: 15.

        Raises:
            LookupError: There are no more.
            TimeoutError: The broker has not answered.
            Lagged, Closed, RuntimeError: As for `get`.
        """

        def check() -> T:
            item: T = self._next()
            if item is NOT_YET and self.caught_up:
                raise LookupError(f"that was all of {self._topic.name}.")
            return item

        self._connection.ensure_may_block("stream.get_kept()")
        return self._topic.arrivals.wait(check, timeout, f"{self._connection.where} has not answered")

    def take_kept(self, timeout: float = 15.0) -> list[T]:
        """Return the items that are there already, without those that were missed.

        Args:
            timeout: Seconds to wait for the broker to send each. Default: 15.

        Raises:
            TimeoutError, Closed, RuntimeError: As for `get_kept`.
        """
        items: list[T] = []
        while True:
            try:
                items.append(self.get_kept(timeout))
            except Lagged:
                continue
            except LookupError:
                return items

    def take(self, n: int, timeout: float | None = None) -> list[T]:
        """Wait for the next ``n`` items, and return them.

        Args:
            n: How many.
            timeout: Seconds to wait for each of them. Default: None, without a limit.

        Raises:
            TimeoutError, Lagged, Closed, RuntimeError: As for `get`. The items that had arrived are not lost: the error's
                attribute ``items`` lists them, and the next call of any method begins with them.
        """
        n = whole(n, "n")
        items: list[T] = []
        try:
            while len(items) < n:
                items.append(self.get(timeout))
        except BaseException as error:
            self._kept.extendleft(reversed(items))
            if isinstance(error, TimeoutError | EbusError):
                error.items = items  # type: ignore[union-attr]
            raise
        return items

    def clone(self) -> Stream[T]:
        """Another stream at the same position, independent of this one from then on."""
        with self._connection.lock:
            twin: Stream[T] = Stream(self._connection, self._holder, self._reader.clone(), self._make)
            twin._kept.extend(self._kept)
            twin._unread = self._unread
            return twin

    def close(self) -> None:
        """End this stream, not the bus. Iteration over it stops; a waiting `get` raises `Closed`."""
        self._closed = True
        self._topic.arrivals.notify()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # A class with __anext__, not an async generator: a generator is finished once it has raised `Lagged`.

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self._topic.arrivals.wait_async(self._next_or_stop)
        except _StreamClosedError:
            raise StopAsyncIteration from None

    def __iter__(self) -> Stream[T]:
        return self

    def __next__(self) -> T:
        try:
            return self.get()
        except _StreamClosedError:
            raise StopIteration from None

    def _next_or_stop(self) -> T:
        if self._closed:
            raise _StreamClosedError(
                f"this stream of {self._topic.name} was closed here; make another one with bus.stream().",
                reason="closed",
            )
        item: T = self._next()
        return item

    def _next(self) -> Any:
        with contextlib.suppress(IndexError):
            return self._kept.popleft()
        while True:
            delivery = self._next_delivery()
            if delivery is None:
                return NOT_YET
            try:
                item = self._make(delivery)
            except KeyboardInterrupt:
                self._unread = delivery
                raise
            except BaseException as error:  # of a program's own type: a SystemExit, too, would end the callbacks' loop
                self._skip(self._topic.unreadable(delivery, error))
                continue
            if item is not NOT_YET:
                return item

    def _next_delivery(self) -> frames.Delivery | None:
        unread, self._unread = self._unread, None
        if unread is not None:
            return unread
        with self._connection.lock:
            self._connection.request_page(self._reader)
            try:
                return self._reader.read_nowait()
            except Lagged:
                raise
            except EbusError as error:
                raise copy.copy(error) from None  # the same one is raised for every reader, and each adds to it

    def _skip(self, error: TypeMismatch) -> None:
        self.errors.append(error)
        if self._topic.is_news(error):
            self._connection.report(error, "a message was skipped")


class _StreamClosedError(Closed):
    """This very stream was closed by its reader: iteration ends without an error."""
