"""A shared mapping: `core.client.replica` on a bus that retains by key."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from ebus_jupyter.core.client.replica import MISSING, Change, Replica
from ebus_jupyter.errors import Conflict, EbusError, Lagged

from .bus import Bus
from .waiting import NOT_YET

__all__ = ["Change", "State"]

logger = logging.getLogger("ebus_jupyter")

Listener = Callable[[Change], Any]


class State(MutableMapping[str, Any]):
    """One mapping that several participants read and write; made by `ebus_jupyter.state`.

    The server puts all writes in one order, and the last write of a key wins, everywhere. What you set shows here at once;
    a value of someone else's does not flicker in between (see
    `core.client.replica`). Reading asks nobody: the copy is here, kept
    up to date by the client's thread, so that even a busy cell reads what others have just set.

    Args:
        bus: A bus with ``retain="keys"``.
        timeout: How long to wait for what is there already, in seconds.

    Raises:
        TimeoutError: The state did not arrive.
    """

    def __init__(self, bus: Bus[Any, Any], timeout: float = 15.0) -> None:
        self.bus = bus
        self._client = bus.client
        self._replica = Replica()
        self._listeners: list[Listener] = []
        self._reader = bus.reader("start")
        self._refreshing = False
        self.ready = False
        self.error: EbusError | None = None
        self._arrived()
        if not self._client.on_own_loop:
            bus.arrivals.wait(
                lambda: True if self.ready or self.error else NOT_YET, timeout, f"{bus.name} has not arrived"
            )
        if self.error is not None:
            raise self.error

    async def loaded(self) -> State:
        """Wait until what was there has arrived; at once where `ebus_jupyter.state` has waited already."""

        def check() -> Any:
            if self.error is not None:
                raise self.error
            return self if self.ready else NOT_YET

        found: State = await self.bus.arrivals.wait_async(check)
        return found

    # --- a mapping --------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        value = self._replica.shown(key)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self.bus._incoming.encode(value, f"{self.bus.name}[{key!r}]")
        self._write(key, value)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._write(key, MISSING)

    def __iter__(self) -> Iterator[str]:
        with self._client.lock:
            return iter(list(self._replica.keys()))

    def __len__(self) -> int:
        with self._client.lock:
            return len(list(self._replica.keys()))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._replica.shown(key) is not MISSING

    def __repr__(self) -> str:
        return f"<State {self.bus.channel.uri or self.bus.name}: {dict(self)!r}>"

    def replace(self, key: str, old: Any, new: Any, timeout: float = 15.0) -> bool:
        """Set ``key`` to ``new`` only if it is ``old`` (`MISSING`: not there) when the server gets to it: compare and set.

        Returns:
            Whether it was; if not, someone else was first, and the state shows what they set.
        """
        with self._client.lock:
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
            lambda: True if self.bus.last >= reached and not self._behind() else NOT_YET, timeout, "its own write"
        )
        return True

    def flush(self, timeout: float = 15.0) -> None:
        """Wait until the server has everything that was set here."""
        self._client.ensure_may_block("state.flush()")
        self.bus.arrivals.wait(
            lambda: NOT_YET if self._replica.busy else True, timeout, f"{self.bus.name} is not all written"
        )

    def on_change(self, listener: Listener) -> Listener:
        """Call ``listener(change)`` for each change of what is shown: ``key``, ``old``, ``new``, ``local`` (made here).

        Local changes are told on the thread that makes them, others' on the client's thread.
        """
        self._listeners.append(listener)
        return listener

    def off_change(self, listener: Listener) -> None:
        """End what `on_change` began."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def clone(self) -> State:
        """Another view of the same state, to be closed by itself."""
        return State(self.bus.clone())

    def close(self) -> None:
        """Take no more part."""
        self._listeners.clear()
        self.bus.close()

    # --- how it follows the bus -------------------------------------------------------------------------------------

    def _write(self, key: str, value: Any) -> None:
        with self._client.lock:
            change, now = self._replica.write(key, value)
        if now:
            self._send(key, value)
        self._tell([change] if change.new is not change.old else [])

    def _send(self, key: str, value: Any) -> None:
        def settled(offset: int, error: EbusError | None) -> None:
            with self._client.lock:
                changes, again = self._replica.acked(key, offset, accepted=error is None)
                latest = self._replica.shown(key)
            if error is not None:
                logger.warning("%s[%r] was not accepted: %s", self.bus.name, key, error)
            if again:
                self._send(key, latest)
            self._tell(changes)
            self.bus.arrivals.notify()

        link = self.bus.channel
        if link.error is not None:
            settled(0, link.error)
        elif value is MISSING:
            self._client.publish(link, settled, b"\xc0", key=key, deleted=True)
        else:
            self._client.publish(link, settled, self.bus._incoming.encode(value), key=key)

    def _behind(self) -> bool:
        with self._client.lock:
            return not self._reader.caught_up

    def _arrived(self) -> None:
        """The bus has moved: follow it. Called on the client's thread, whenever something arrives."""
        if self.error is not None:
            return
        self.bus.arrivals.once(self._arrived)
        changes: list[Change] = []
        with self._client.lock:
            while True:
                self._client.request_page(self._reader)
                try:
                    delivery = self._reader.read_nowait()
                except Lagged:
                    self._refreshing = True
                    self._replica.begin_snapshot()
                    continue
                except EbusError as error:
                    self.error = error
                    break
                if delivery is None:
                    break
                value = MISSING if delivery.deleted else self.bus._outgoing.decode(delivery.value)
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
