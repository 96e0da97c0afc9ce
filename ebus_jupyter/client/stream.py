"""Reading a bus: `Stream` of values or of messages, for ``async for``, ``for``, or one value at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ebus_jupyter.core.client.reader import Reader
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Message, message_id
from ebus_jupyter.errors import Closed

from .waiting import NOT_YET

if TYPE_CHECKING:
    from .bus import Bus

T = TypeVar("T")


class Stream(Generic[T]):
    """One reader's way through a bus.

    Streams are independent: each hears everything from where it begins, at its own speed. A stream that is too slow
    raises `Lagged` once and goes on behind what it missed. When the bus ends, it raises `Closed` with the reason.
    """

    def __init__(self, bus: Bus[Any, Any], reader: Reader, make: Callable[[frames.Delivery], Any]) -> None:
        self._bus = bus
        self._reader = reader
        self._make = make
        self._closed = False

    @property
    def status(self) -> str:
        """ "live", "reconnecting" or "closed"."""
        if self._closed or self._reader.bus.read_error is not None:
            return "closed"
        return "live" if self._bus.client.status == "live" else "reconnecting"

    @property
    def caught_up(self) -> bool:
        """Whether everything that has arrived was read."""
        with self._bus.client.lock:
            return self._reader.caught_up

    async def begun(self) -> Stream[T]:
        """This stream, once it hears whatever is written from now on. `Bus.stream` waits for that by itself, except on the
        client's own loop."""
        await self._bus.arrivals.wait_async(lambda: self._bus.begun(self._reader))
        return self

    def get_nowait(self) -> T:
        """The next item if there is one; raises LookupError if there is none yet, and what `get` raises."""
        item: T = self._next()
        if item is NOT_YET:
            raise LookupError(f"nothing new on {self._bus.name}.")
        return item

    def get(self, timeout: float | None = None) -> T:
        """The next item, waiting up to ``timeout`` seconds for it (None: as long as it takes).

        Raises:
            TimeoutError: Nothing came.
            Lagged: Messages were missed; the next call goes on behind them.
            Closed: The bus has ended, or this stream was closed.
        """
        self._bus.client.ensure_may_block("stream.get()")
        return self._bus.arrivals.wait(self._next_or_stop, timeout, f"nothing new on {self._bus.name}")

    def get_kept(self, timeout: float = 15.0) -> T:
        """The next item of those that are there already; raises LookupError after the last one, and what `get` raises."""

        def check() -> T:
            item: T = self._next()
            if item is NOT_YET and self.caught_up:
                raise LookupError(f"that was all of {self._bus.name}.")
            return item

        self._bus.client.ensure_may_block("stream.get_kept()")
        return self._bus.arrivals.wait(check, timeout, f"{self._bus.client.where} has not answered")

    def take(self, n: int, timeout: float | None = None) -> list[T]:
        """The next ``n`` items. Raises TimeoutError if one of them takes longer than ``timeout`` seconds."""
        return [self.get(timeout) for _ in range(n)]

    def clone(self) -> Stream[T]:
        """Another stream at the same position, which reads on by itself."""
        with self._bus.client.lock:
            return Stream(self._bus, self._reader.clone(), self._make)

    def close(self) -> None:
        """End this stream (not the bus): whoever waits on it is let go."""
        self._closed = True
        self._bus.arrivals.notify()

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> T:
        # A class with __anext__, not a generator: a generator is finished once it has raised `Lagged`.
        try:
            return await self._bus.arrivals.wait_async(self._next_or_stop)
        except _StoppedError:
            raise StopAsyncIteration from None

    def __iter__(self) -> Stream[T]:
        return self

    def __next__(self) -> T:
        try:
            return self.get()
        except _StoppedError:
            raise StopIteration from None

    def _next_or_stop(self) -> T:
        if self._closed:
            raise _StoppedError("this stream was closed.", reason="closed")
        item: T = self._next()
        return item

    def _next(self) -> Any:
        client = self._bus.client
        with client.lock:
            while True:
                client.request_page(self._reader)
                delivery = self._reader.read_nowait()
                if delivery is None:
                    return NOT_YET
                item = self._make(delivery)
                if item is not NOT_YET:
                    return item


class _StoppedError(Closed):
    """This very stream was closed, by its reader: iteration just ends."""


def to_message(delivery: frames.Delivery, decode: Callable[[Any], Any]) -> Message[Any]:
    """A delivery, as programs see it."""
    return Message(
        offset=delivery.offset,
        id=message_id((delivery.sender.id, delivery.id)),
        time=delivery.time,
        value=None if delivery.deleted else decode(delivery.value),
        sender=delivery.sender,
        key=delivery.key,
        deleted=delivery.deleted,
    )
