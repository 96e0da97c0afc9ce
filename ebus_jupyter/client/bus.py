"""A bus, as a program holds it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
from collections.abc import AsyncIterable, Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ebus_jupyter.core.client.channel import Channel
from ebus_jupyter.core.client.reader import Reader, Since
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.message import BusSpec, Message, Participant
from ebus_jupyter.core.protocol.typescript import typescript
from ebus_jupyter.errors import Closed, EbusError, Lagged, TooLarge

from .ack import Ack
from .kernel_filter import KernelFilter
from .stream import Stream, to_message
from .waiting import NOT_YET, Waiting

if TYPE_CHECKING:
    from .client import Client

In = TypeVar("In")
Out = TypeVar("Out")
F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("ebus_jupyter")

CALLBACKS_A_TURN = 100
"""How many messages a callback gets before the loop it runs on may do something else."""


BEGIN_SECONDS = 5.0
"""How long a new stream waits for the broker to hear of it."""


class Topic:
    """What all `Bus` objects of one bus share in this client."""

    def __init__(self, link: Channel) -> None:
        self.channel = link
        self.arrivals = Waiting()
        self.presence_changed = Waiting()
        self.filter: KernelFilter | None = None
        self.holders = 1

    def notify(self) -> None:
        self.arrivals.notify()


class Bus(Generic[In, Out]):
    """A typed broadcast bus: everyone who takes part, the writer included, receives each write, in one order.

    Made by `ebus_jupyter.bus`. A bus is a value: assign it to a widget's trait, pickle it, write its `uri` on another bus.
    """

    def __init__(self, client: Client, topic: Topic, incoming: Codec[In], outgoing: Codec[Out]) -> None:
        self.client = client
        self.topic = topic
        self.presence = PresenceView(self)
        self._incoming = incoming
        self._outgoing = outgoing
        self._callbacks: dict[Any, _Callback] = {}
        self._closed = False

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def channel(self) -> Channel:
        return self.topic.channel

    @property
    def arrivals(self) -> Waiting:
        return self.topic.arrivals

    @property
    def name(self) -> str:
        """The name; an unnamed bus has one that the broker made."""
        return self.channel.name or "(unnamed)"

    @property
    def scope(self) -> str:
        return self.channel.scope

    @property
    def spec(self) -> BusSpec:
        """What the bus is, as everyone who opened it agreed."""
        return self.channel.spec

    @property
    def uri(self) -> str:
        """Names the bus to any client in its scope; with the capability behind ``#`` where it takes one to enter."""
        return self.channel.uri + (f"#{self.channel.cap}" if self.channel.cap else "")

    @property
    def last(self) -> int:
        """The offset of the last message seen here; 0 before the first."""
        return self.channel.last

    @property
    def status(self) -> str:
        """ "live", "reconnecting" or "closed"."""
        if self._closed or self.channel.error is not None:
            return "closed"
        return "live" if self.client.status == "live" and self.channel.number else "reconnecting"

    @property
    def typescript(self) -> str:
        """TypeScript declarations of what is received."""
        return typescript(self.spec.emits or self.spec.schema, self.spec.type or "Value")

    @property
    def model_id(self) -> str:
        """The id of the widget model that stands for this bus in pages; what a widget's trait holds of it."""
        if self.client.handle is None:
            raise RuntimeError("a bus can be given to widgets only where ipywidgets is installed.")
        return self.client.handle(self)

    async def opened(self) -> Bus[In, Out]:
        """Wait until the broker has agreed; at once where `ebus_jupyter.bus` has waited already.

        Raises:
            SpecConflict, Forbidden, NoSuchBus: What `ebus_jupyter.bus` raises.
        """

        def check() -> Any:
            self._check_open()
            return self if self.channel.epoch else NOT_YET

        found: Bus[In, Out] = await self.arrivals.wait_async(check)
        return found

    def __repr__(self) -> str:
        return f"<Bus {self.channel.uri or self.name}: {self.status}>"

    def __reduce__(self) -> Any:
        return (_rebuild, (self.uri, self._incoming.type, self._outgoing.type))

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(
        self,
        value: In,
        *,
        key: str | None = None,
        echo: bool = True,
        to: str | list[str] | None = None,
        expect: int | None = None,
    ) -> Ack:
        """Write a value. It is checked here at once, and sent in the background.

        Args:
            value: What to write.
            key: The entry to set, on a bus with ``retain="keys"``.
            echo: False: everyone hears it but this participant.
            to: Only these users hear it (and this participant).
            expect: Accept it only if the last offset (of ``key``, if given; 0: none) is this one: compare and set.

        Returns:
            Await it, or ask its ``result()``, for the offset; the errors it can raise are listed there.

        Raises:
            TypeMismatch: The value is not of the bus's type.
            TooLarge: The value is larger than the server's limit ``value_bytes``.
            Closed: The bus is closed.
        """
        data = self._incoming.encode(value, self.name)
        limit = self.client.session.limits.get("value_bytes")
        if limit is not None and len(data) > limit:
            raise TooLarge(
                f"{self.name}: the value has {len(data)} bytes, at most {limit} may travel (the server's limit `value_bytes`). "
                "Write it in pieces, or have the limit raised.",
                limit="value_bytes",
            )
        users = [to] if isinstance(to, str) else to
        return self._publish(data, key=key, echo=echo, to=users, expect=expect)

    def remove(self, key: str, *, expect: int | None = None) -> Ack:
        """Remove an entry from a bus with ``retain="keys"``."""
        return self._publish(b"\xc0", key=key, deleted=True, expect=expect)

    def _publish(self, data: bytes, **how: Any) -> Ack:
        self._check_open()
        ack = Ack(self.name, self.client.ensure_may_block)
        self.client.publish(self.channel, ack.settle, data, **how)
        return ack

    def feed(self, source: AsyncIterable[In]) -> Future[int]:
        """Write everything that ``source`` yields, in the background: sensor readings, another service's events.

        It runs on the client's thread, also while the kernel is busy, and asks for the next item when the last is accepted.

        Returns:
            A future of how many were written; ``cancel()`` ends it. It fails with what the source raises, or with the first
            write that is refused.
        """

        async def run() -> int:
            written = 0
            async for item in source:
                await self.write(item)
                written += 1
            return written

        return asyncio.run_coroutine_threadsafe(run(), self.client.loop)

    def flush(self) -> None:
        """Send what ``flush_size`` and ``flush_interval`` hold back."""
        with self.client.lock:
            self.client.session.flush(self.channel)
        self.client.wake_sender()

    # --- reading ----------------------------------------------------------------------------------------------------

    def stream(self, since: Since = None) -> Stream[Out]:
        """The values, as they are written.

        Args:
            since: None: from now on, that is, all that anyone writes after this call has returned. (On the client's own loop,
                which can't wait here, after `await stream.begun()`.) "start": everything kept, then from now on. An offset:
                all after it. -n: the last n, then from now on.

        Yields, as an iterator of either kind: values. Raises `Lagged` where messages were missed, and goes on.
        """
        return Stream(self, self.reader(since), self._value)

    def messages(self, since: Since = None) -> Stream[Message[Out]]:
        """The same as `stream`, with offset, time, id and sender."""
        return Stream(self, self.reader(since), self._message)

    def history(self, n: int = 10, timeout: float = 15.0) -> list[Out]:
        """The last ``n`` values that are kept."""
        self._check_open()
        self.client.ensure_may_block("history()")
        found: list[Out] = []
        stream = self.stream(since=-n) if n > 0 else None
        while stream is not None:
            try:
                found.append(stream.get_kept(timeout))
            except Lagged:
                continue
            except LookupError:
                break
        return found[-n:] if n > 0 else []

    def reader(self, since: Since) -> Reader:
        """A position in this bus, for a stream or a state."""
        self._check_open()
        with self.client.lock:
            reader = Reader(self.client.session, self.channel, since)
            self.client.request_page(reader)
        self.client.wake_sender()
        if since is None and not self.client.on_own_loop:
            with contextlib.suppress(TimeoutError):
                self.arrivals.wait(
                    lambda: self.begun(reader) if self.client.session.live else None, BEGIN_SECONDS, "no answer"
                )
        return reader

    def begun(self, reader: Reader) -> Any:
        """`NOT_YET` as long as a reader may miss what others write now."""
        with self.client.lock:
            return None if reader.has_begun or self.channel.read_error is not None else NOT_YET

    def _value(self, delivery: frames.Delivery) -> Any:
        return NOT_YET if delivery.deleted else self._outgoing.decode(delivery.value)

    def _message(self, delivery: frames.Delivery) -> Any:
        return to_message(delivery, self._outgoing.decode)

    # --- callbacks --------------------------------------------------------------------------------------------------

    def on(self, callback: F) -> F:
        """Call ``callback(value)`` for each value from now on; use it as a decorator. It may be async.

        It runs on the event loop of whoever registers it: a kernel's own, between cells, or the client's thread where no
        loop is running. A cell that is run again replaces the callback it made before. What the callback raises is logged,
        and the next value still comes. End it with `off`.
        """
        return self._listen(callback, self.stream())

    def on_message(self, callback: F) -> F:
        """The same as `on`, with a `Message`."""
        return self._listen(callback, self.messages())

    def off(self, callback: Callable[..., Any]) -> None:
        """End what `on` began."""
        for key in [key for key, registered in self._callbacks.items() if registered.function is callback]:
            self._callbacks.pop(key).close()

    def _listen(self, callback: F, stream: Stream[Any]) -> F:
        named = getattr(callback, "__module__", "") == "__main__" and "<" not in getattr(callback, "__qualname__", "<")
        key = callback.__qualname__ if named else object()
        before = self._callbacks.pop(key, None)
        if before is not None:
            before.close()
        self._callbacks[key] = _Callback(callback, stream, self)
        return callback

    # --- ending -----------------------------------------------------------------------------------------------------

    @property
    def participants(self) -> list[Participant]:
        """Who is on the bus."""
        return [seat.who for seat in self.presence.seats()]

    def close(self) -> None:
        """This object takes no more part in the bus. The bus itself goes on, unless it is unnamed and was made here."""
        if not self._closed:
            self._closed = True
            for callback in self._callbacks.values():
                callback.close()
            self.client.release(self.topic)

    def clone(self) -> Bus[In, Out]:
        """Another object for the same bus, to be closed by itself."""
        self._check_open()
        self.topic.holders += 1
        return Bus(self.client, self.topic, self._incoming, self._outgoing)

    def delete(self, timeout: float = 15.0) -> None:
        """Delete the bus and what it keeps, for everyone: their streams end with `Closed`.

        Raises:
            Forbidden: This participant may not write to the bus.
        """
        self._check_open()
        self.client.ask(lambda: self.client.session.delete(self.channel), timeout)

    def _check_open(self) -> None:
        if self._closed:
            raise _closed_here(self.name)
        if self.channel.error is not None:
            raise self.channel.error


class Seat:
    """One participant of a bus: ``who``, ``here`` (False while its connection is lost), ``since``, ``state``, ``activity``."""

    def __init__(self, who: Participant, status: str, since: float, state: Any, activity: str) -> None:
        self.who = who
        self.here = status == "here"
        self.since = since
        self.state = state
        self.activity = activity

    def __repr__(self) -> str:
        return f"<{self.who.kind} of {self.who.name or self.who.user}{'' if self.here else ', away'}: {self.state!r}>"


class PresenceView:
    """Who is on a bus, and what they say of themselves."""

    def __init__(self, bus: Bus[Any, Any]) -> None:
        self._bus = bus

    def set(self, state: Any = None, **fields: Any) -> None:
        """Say something of yourself: any value, or fields. It lasts until you leave or say something else."""
        said = fields or state
        client = self._bus.client
        with client.lock:
            client.session.set_presence(self._bus.channel, _any.encode(said, f"{self._bus.name}'s presence"))
        client.wake_sender()

    def seats(self, timeout: float = 5.0) -> list[Seat]:
        """Everyone, with what they say of themselves."""
        client, link = self._bus.client, self._bus.channel
        with client.lock:
            client.session.watch_presence(link)
        client.wake_sender()
        if not link.presence_known:
            client.ensure_may_block("presence.seats()")
            self._bus.topic.presence_changed.wait(
                lambda: True if link.presence_known else NOT_YET, timeout, "nobody has answered"
            )
        with client.lock:
            return [Seat(*seat) for seat in link.participants.values()]

    def __iter__(self) -> Iterator[Seat]:
        return iter(self.seats())

    def on_change(self, callback: Callable[[], Any]) -> None:
        """Call ``callback()`` after each change, on the client's thread."""
        client, topic = self._bus.client, self._bus.topic

        def changed() -> None:
            topic.presence_changed.once(changed)
            callback()

        topic.presence_changed.once(changed)
        with client.lock:
            client.session.watch_presence(self._bus.channel)
        client.wake_sender()


class _Callback:
    """Feeds one callback from one stream, on the loop where it was registered."""

    def __init__(self, function: Callable[..., Any], stream: Stream[Any], bus: Bus[Any, Any]) -> None:
        self.function = function
        self._stream = stream
        self._bus = bus
        self._scheduled = False
        self._task: asyncio.Task[None] | None = None
        self._context = contextvars.copy_context()  # so that what it prints shows under the cell that registered it
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = bus.client.loop
        self._again()

    def close(self) -> None:
        self._stream.close()

    def _again(self) -> None:
        """Look when something arrives, and now."""
        self._bus.arrivals.once(self._schedule)
        self._schedule(again=False)

    def _schedule(self, *, again: bool = True) -> None:
        if again:
            self._bus.arrivals.once(self._schedule)
        if not self._scheduled and self._stream.status != "closed":
            self._scheduled = True
            try:
                self._loop.call_soon_threadsafe(self._drain, context=self._context)
            except RuntimeError:
                self._stream.close()  # its loop is gone, and with it whoever wanted to know

    def _drain(self) -> None:
        self._scheduled = False
        if self._task is not None:
            return  # an async callback is at work; it goes on by itself
        for _ in range(CALLBACKS_A_TURN):
            try:
                item = self._stream.get_nowait()
            except LookupError:
                return
            except Lagged as lag:
                logger.warning("%s: %s", self._bus.name, lag)
                continue
            except EbusError:
                return
            try:
                result = self.function(item)
            except Exception:
                logger.exception("a callback of %s failed", self._bus.name)
                continue
            if inspect.isawaitable(result):
                self._task = self._loop.create_task(self._finish(result))
                return
        self._schedule(again=False)

    async def _finish(self, result: Any) -> None:
        try:
            await result
        except Exception:
            logger.exception("a callback of %s failed", self._bus.name)
        self._task = None
        self._schedule(again=False)


_any: Codec[Any] = Codec()


def _closed_here(name: str) -> EbusError:
    return Closed(f"{name} was closed here; open it again with ebus.bus().", reason="closed")


def _rebuild(uri: str, incoming: Any, outgoing: Any) -> Bus[Any, Any]:
    from .discover import default_client
    from .open import open_bus

    return open_bus(default_client(), uri, incoming, emits=None if outgoing is incoming else outgoing)
