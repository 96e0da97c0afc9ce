"""A shared mapping: `core.client.replica` on a bus that retains by key."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, TypeVar

from ebus_jupyter.core.client.replica import MISSING, Change, Replica
from ebus_jupyter.errors import Conflict, EbusError, Lagged

from .bus import Bus
from .stream import start_reader
from .waiting import NOT_YET

__all__ = ["Change", "State"]

logger = logging.getLogger("ebus_jupyter")

T = TypeVar("T")
L = TypeVar("L", bound=Callable[[Change], Any])

_NIL = b"\xc0"


class State(MutableMapping[str, T]):
    """One mapping that several participants read and write; made by `ebus_jupyter.state`.

    The server puts all writes in one order, and the last write of a key wins, everywhere. What you set shows here at once,
    and no value of someone else's flickers in between (see `core.client.replica`). Reading needs no request: the client's
    thread keeps the local copy up to date, so that even a busy cell reads what others have just set.

    Args:
        bus: A bus with ``retain="keys"``.
        timeout: Seconds to wait for the entries that are there already. Default: 15.

    Attributes:
        bus: The bus.
        ready: Whether the entries that were there have arrived.
        error: Why the state has ended; None while it lives.

    Raises:
        TimeoutError: The entries did not arrive.
    """

    def __init__(self, bus: Bus[T, T], timeout: float = 15.0) -> None:
        self.bus = bus
        self._connection = bus.connection
        self._replica = Replica()
        self._listeners: list[Callable[[Change], Any]] = []
        self._reader = start_reader(bus.connection, bus.topic, "start")
        self._refreshing = False
        self.ready = False
        self.error: EbusError | None = None
        self._follow()
        if not self._connection.on_own_loop:
            bus.arrivals.wait(
                lambda: True if self.ready or self.error else NOT_YET, timeout, f"the state {bus.name} has not arrived"
            )
        if self.error is not None:
            raise self.error.anew()

    async def loaded(self) -> State[T]:
        """Wait until the entries that were there have arrived; at once where `ebus_jupyter.state` has waited already."""

        def check() -> Any:
            if self.error is not None:
                raise self.error.anew()
            return self if self.ready else NOT_YET

        found: State[T] = await self.bus.arrivals.wait_async(check)
        return found

    # --- a mapping --------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> T:
        value: T = self._replica.shown(key)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: T) -> None:
        self.bus.codec.encode(value, f"{self.bus.name}[{key!r}]")
        self._write(key, value)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._write(key, MISSING)

    def __iter__(self) -> Iterator[str]:
        with self._connection.lock:
            return iter(list(self._replica.keys()))

    def __len__(self) -> int:
        with self._connection.lock:
            return len(list(self._replica.keys()))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._replica.shown(key) is not MISSING

    def __repr__(self) -> str:
        return f"<State {self.bus.address or self.bus.name}: {dict(self)!r}>"

    def replace(self, key: str, old: Any, new: Any, timeout: float = 15.0) -> bool:
        """Compare and set: set ``key`` to ``new`` only if it is still ``old`` when the write reaches the server.

        Args:
            key: The entry.
            old: The value that it must have; `MISSING`: it must not exist.
            new: The new value; `MISSING`: remove the entry.
            timeout: Seconds to wait for the server. Default: 15.

        Returns:
            True if the value was set. False if someone else was first; the state then shows their value.

        Raises:
            TimeoutError: The server has not answered.
            RuntimeError: The call would block the client's own event loop.
        """
        with self._connection.lock:
            if self._replica.shown(key) != old:
                return False
            offset = self._replica.offset(key)
        try:
            ack = self.bus.remove(key, expect=offset) if new is MISSING else self.bus.write(new, key=key, expect=offset)
            reached = ack.result(timeout)
        except Conflict:
            return False
        # The offset is known before the message is here: reading back what was just set must not show what was before.
        self.bus.arrivals.wait(
            lambda: True if self.bus.last >= reached and not self._is_behind() else NOT_YET,
            timeout,
            f"{self.bus.name}[{key!r}] was replaced, but has not come back",
        )
        return True

    def flush(self, timeout: float = 15.0) -> None:
        """Wait until the server has accepted, or refused, everything that was set here.

        Args:
            timeout: Seconds to wait. Default: 15.

        Raises:
            TimeoutError: Some writes have no answer yet.
            RuntimeError: The call would block the client's own event loop.
        """
        self._connection.ensure_may_block("state.flush()")
        self.bus.arrivals.wait(
            lambda: NOT_YET if self._replica.busy else True, timeout, f"{self.bus.name} has unanswered writes"
        )

    def on_change(self, listener: L) -> L:
        """Call ``listener(change)`` for each change of what the state shows; usable as a decorator.

        A `Change` has ``key``, ``old``, ``new`` (`MISSING`: no such entry) and ``local`` (made here). The listener is called
        on the thread that makes a local change, and on the client's thread for all others.

        Returns:
            ``listener``.
        """
        self._listeners.append(listener)
        return listener

    def off_change(self, listener: Callable[[Change], Any]) -> None:
        """Stop calling ``listener``."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def clone(self) -> State[T]:
        """Another object for the same state, to be closed by itself."""
        return State(self.bus.clone())

    def close(self) -> None:
        """Leave the state, and call no listener any more. The state itself continues."""
        self._listeners.clear()
        self.bus.close()

    # --- following the bus ------------------------------------------------------------------------------------------

    def _write(self, key: str, value: Any) -> None:
        with self._connection.lock:
            change, send_now = self._replica.write(key, value)
        if send_now:
            self._send(key, value)
        self._tell([change] if change.new is not change.old else [])

    def _send(self, key: str, value: Any) -> None:
        def settled(offset: int, error: EbusError | None) -> None:
            with self._connection.lock:
                if error is None:
                    changes, send_again = self._replica.accepted(key, offset)
                else:
                    changes, send_again = self._replica.refused(key)
                latest = self._replica.shown(key)
            if error is not None:
                logger.warning("%s[%r] was not accepted: %s", self.bus.name, key, error)
            if send_again:
                self._send(key, latest)
            self._tell(changes)
            self.bus.arrivals.notify()

        channel = self.bus.topic.channel
        if channel.error is not None:
            settled(0, channel.error)
        elif value is MISSING:
            self._connection.publish(channel, settled, _NIL, key=key, deleted=True)
        else:
            self._connection.publish(channel, settled, self.bus.codec.encode(value), key=key)

    def _is_behind(self) -> bool:
        with self._connection.lock:
            return not self._reader.caught_up

    def _follow(self) -> None:
        """Apply everything that has arrived; called again, on the client's thread, whenever more arrives."""
        if self.error is not None:
            return
        self.bus.arrivals.once(self._follow)
        changes: list[Change] = []
        with self._connection.lock:
            while True:
                self._connection.request_page(self._reader)
                try:
                    delivery = self._reader.read_nowait()
                except Lagged:
                    self._refreshing = True
                    self._replica.begin_snapshot()
                    continue
                except EbusError as error:
                    self.error = error.with_traceback(None)  # it is kept, and would keep this stack
                    break
                if delivery is None:
                    break
                value = MISSING if delivery.deleted else self.bus.emits_codec.decode(delivery.value)
                changes += self._replica.apply(delivery.key or "", delivery.offset, value)
            if self._reader.caught_up:
                if self._refreshing:
                    self._refreshing = False
                    changes += self._replica.end_snapshot()
                self.ready = True
        self._tell(changes)

    def _tell(self, changes: list[Change]) -> None:
        for change in changes:
            for listener in list(self._listeners):
                try:
                    listener(change)
                except Exception:
                    logger.exception("a listener of %s failed", self.bus.name)
