"""A shared mapping: `core.client.replica` on a bus that retains by key."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from typing import Any, Self, TypeVar
from weakref import ref

from ebus_jupyter.core.client.replica import MISSING, Change, Replica, _same
from ebus_jupyter.errors import Conflict, EbusError, Lagged, TypeMismatch

from .arguments import function, seconds, text
from .bus import Bus
from .stream import start_reader
from .topic import ERRORS_KEPT
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

    A value that can't be decoded here (another participant has opened the bus without its type) is skipped, as in a
    `Stream`: the state goes on showing what it showed. The bus stays open as long as a state of it is in use, or has
    listeners. ``with`` closes the state.

    Attributes:
        bus: The bus.
        ready: Whether the entries that were there have arrived.
        error: Why the state has ended; None while it lives.
        errors: The last 100 values that could not be decoded, each a `TypeMismatch` with ``bus``, ``offset`` and ``sender``.

    Raises:
        TimeoutError: The entries did not arrive.
    """

    def __init__(self, bus: Bus[T, T], timeout: float = 15.0) -> None:
        self.bus = bus
        self.ready = False
        self.error: EbusError | None = None
        self.errors: deque[TypeMismatch] = deque(maxlen=ERRORS_KEPT)
        self._connection = bus.connection
        self._replica = Replica()
        self._unanswered: set[str] = set()
        self._waiting: dict[str, bytes | None] = {}  # the encoded values that wait for the answer; None: a removal
        self._listeners: list[Callable[[Change], Any]] = []
        self._changes: deque[Change] = deque()
        self._telling = threading.Lock()
        self._refreshing = False
        self._reader = start_reader(bus.connection, bus.topic, "start")
        self._follower = _Follower(self)
        bus.arrivals.each(self._follower)
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
        value: T = self._replica.shown(key) if isinstance(key, str) else MISSING
        if value is MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: T) -> None:
        key = text(key, "key")
        self._write(key, value, self.bus.codec.encode(value, f"{self.bus.name}[{key!r}]"))

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._write(text(key, "key"), MISSING, None)

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

        A write of this state's own to ``key`` that has no answer yet comes first.

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
        key = text(key, "key")
        self._connection.ensure_may_block("state.replace()")
        entry = f"{self.bus.name}[{key!r}]"
        deadline = time.monotonic() + seconds(timeout)

        def compare() -> Any:
            with self._connection.lock:
                if key in self._unanswered:
                    return NOT_YET
                return self._replica.offset(key) if _equal(self._replica.shown(key), old) else None

        offset = self.bus.arrivals.wait(compare, timeout, f"an earlier write of {entry} has no answer")
        if offset is None:
            return False
        try:
            ack = self.bus.remove(key, expect=offset) if new is MISSING else self.bus.write(new, key=key, expect=offset)
            reached = ack.result(max(0.0, deadline - time.monotonic()))
        except Conflict as conflict:
            with contextlib.suppress(TimeoutError):
                self._wait_for(getattr(conflict, "actual", 0), deadline, entry)
            return False
        # The offset is known before the message is here: reading back what was just set must not show what was before.
        self._wait_for(reached, deadline, f"{entry} was replaced, but")
        return True

    def _wait_for(self, offset: int, deadline: float, what: str) -> None:
        self.bus.arrivals.wait(
            lambda: True if self.bus.last >= offset and not self._is_behind() else NOT_YET,
            max(0.0, deadline - time.monotonic()),
            f"{what} has not come back",
        )

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

        A `Change` has ``key``, ``old``, ``new`` (`MISSING`: no such entry) and ``local`` (made here). Listeners are told of the
        changes in their order, one at a time: on the client's callback thread, and of a local change on the thread that makes
        it, unless another thread is telling them just then; that one goes on with it.

        Returns:
            ``listener``.
        """
        self._listeners.append(function(listener, "listener"))
        self._follower.kept = self
        return listener

    def off_change(self, listener: Callable[[Change], Any]) -> None:
        """Stop calling ``listener``."""
        if listener in self._listeners:
            self._listeners.remove(listener)
        if not self._listeners:
            self._follower.kept = None

    def clone(self) -> State[T]:
        """Another object for the same state, to be closed by itself."""
        return State(self.bus.clone())

    def close(self) -> None:
        """Leave the state, and call no listener any more. The state itself continues."""
        self._listeners.clear()
        self._follower.kept = None
        self.bus.arrivals.discard(self._follower)
        self.bus.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- writing ----------------------------------------------------------------------------------------------------

    def _write(self, key: str, value: Any, data: bytes | None) -> None:
        """Show a value, and send it: ``data``, or None for a removal. It is encoded once: a program may go on changing it."""
        self.bus.ensure_open()
        send_now = False
        try:
            with self._connection.lock:
                send_now = key not in self._unanswered
                if send_now:
                    self._unanswered.add(key)
                else:
                    self._waiting[key] = data
                change, _ = self._replica.write(key, value)
                if change.new is not change.old:
                    self._note([change])
            if send_now:
                self._connection.publish(
                    self.bus.topic.channel, partial(self._settled, key), data or _NIL, key=key, deleted=data is None
                )
        except BaseException:  # refused, or interrupted: the key must not wait for an answer that never comes
            if send_now:
                self._answered(key, 0)
            raise
        self._tell()

    def _settled(self, key: str, offset: int, error: EbusError | None) -> None:
        """The write of ``key`` has its answer. Called on any thread, also on one that must neither wait nor fail."""
        if error is not None:
            self.bus.topic.unseen.add(
                f"{self.bus.name}[{key!r}] was not accepted, and shows what the server has: {error}"
            )
        self._answered(key, offset)

    def _answered(self, key: str, offset: int) -> None:
        with self._connection.lock:
            changes, send_again = self._replica.accepted(key, offset) if offset else self._replica.refused(key)
            data = self._waiting.pop(key, None)
            if not send_again:
                self._unanswered.discard(key)
            self._note(changes)
        if send_again:
            self._connection.publish_soon(
                self.bus.topic.channel, partial(self._settled, key), data or _NIL, key=key, deleted=data is None
            )
        if changes and self._listeners:
            self._connection.call(self._tell)
        self.bus.arrivals.notify()

    # --- following the bus ------------------------------------------------------------------------------------------

    def _is_behind(self) -> bool:
        with self._connection.lock:
            return not self._reader.caught_up

    def _follow(self) -> None:
        """Apply everything that has arrived; called again, on the client's thread, whenever more arrives."""
        if self.error is not None:
            return
        changes: list[Change] = []
        skipped: list[TypeMismatch] = []
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
                try:
                    value = MISSING if delivery.deleted else self.bus.emits_codec.decode(delivery.value)
                except BaseException as error:  # of a program's own type; nothing may get past the client's thread
                    skipped.append(self.bus.topic.unreadable(delivery, error))
                    continue
                changes += self._replica.apply(delivery.key or "", delivery.offset, value)
            if self._reader.caught_up:
                if self._refreshing:
                    self._refreshing = False
                    changes += self._replica.end_snapshot()
                self.ready = True
            self._note(changes)
        for mismatch in skipped:
            self.errors.append(mismatch)
            if self.bus.topic.is_news(mismatch):
                self._connection.report(mismatch, "a message was skipped")
        if changes and self._listeners:
            self._connection.call(self._tell)

    # --- telling listeners ------------------------------------------------------------------------------------------

    def _note(self, changes: list[Change]) -> None:
        # Called with the connection's lock held, so that changes lie in the order in which the state has shown them.
        if self._listeners:
            self._changes.extend(changes)

    def _tell(self) -> None:
        while self._changes:
            if not self._telling.acquire(blocking=False):
                return  # the thread that is telling looks again when it is done
            try:
                while self._changes:
                    self._tell_one(self._changes.popleft())
            except BaseException:
                self._connection.call(self._tell)
                raise
            finally:
                self._telling.release()

    def _tell_one(self, change: Change) -> None:
        for listener in [*self._listeners]:
            try:
                listener(change)
            except Exception:
                logger.exception("a listener of %s failed", self.bus.name)


class _Follower:
    """Calls a state when messages arrive, and does not keep it alive, except while it has listeners."""

    __slots__ = ("_arrivals", "_state", "kept")

    def __init__(self, state: State[Any]) -> None:
        self._state = ref(state)
        self._arrivals = state.bus.arrivals
        self.kept: State[Any] | None = None

    def __call__(self) -> None:
        state = self._state()
        if state is None:
            self._arrivals.discard(self)
        else:
            state._follow()


def _equal(a: Any, b: Any) -> bool:
    if _same(a, b):
        return True
    try:
        return (a == b) is True
    except Exception:
        return False
