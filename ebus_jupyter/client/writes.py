"""The writes of one client that have no answer yet: making room for them, and waiting for their answers."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ebus_jupyter.core.client.channel import Channel
from ebus_jupyter.core.client.session import Session
from ebus_jupyter.errors import EbusError, RateLimited, TypeMismatch

from . import background, guard
from .driver import Driver
from .waiting import NOT_YET, Condition

logger = logging.getLogger("ebus_jupyter")

WRITE_ROOM_SECONDS = 30.0
"""The time that a write waits while the client has as many unanswered writes as it may have."""

Settle = Callable[[int, EbusError | None], None]
"""Called with the outcome of a write: its offset, or 0 and why it was refused. Must not block or raise."""


class Writes:
    """The writes of one client.

    Args:
        session: The protocol's state.
        lock: Held while anything of ``session`` is used.
        driver: Sends what the session has to send.
        where: Where the connection leads, in words.

    Attributes:
        settles: What is called with the outcome of each write without an answer, by the write's id.
        settled: Notified when writes have their answers.
    """

    def __init__(
        self,
        session: Session,
        lock: threading.RLock,
        driver: Driver,
        where: str,
    ) -> None:
        self.lock = lock
        self.settles: dict[int, Settle] = {}
        self.settled = Condition()
        self._session = session
        self._driver = driver
        self._where = where
        self._postponed: deque[tuple[Channel, Settle, bytes, dict[str, Any]]] = deque()

    def publish(self, channel: Channel, settle: Settle, value: bytes, *, wait: bool = True, **options: Any) -> None:
        """Send a write; waits while too many writes have no answer yet.

        Args:
            channel: The bus.
            settle: Called with the outcome, on any thread.
            value: The encoded value.
            wait: False: raise `RateLimited` at once instead of waiting for room.
            options: As for `Session.publish`.

        Raises:
            RateLimited: There was no room for another write, within `WRITE_ROOM_SECONDS` if ``wait``.
        """
        if self.lock._is_owned():  # type: ignore[attr-defined]
            # A finaliser, or a signal handler, has interrupted this client on this thread: what it is at comes first.
            self._postponed.append((channel, settle, value, options))
            background.later(0, self._publish_postponed)
            return
        deadline = 0.0
        while True:
            try:
                with self.lock:
                    if self._postponed:
                        self._add_postponed()
                    self.settles[self._session.publish(channel, value, time.monotonic(), wait=wait, **options)] = settle
                break
            except RateLimited:
                deadline = deadline or time.monotonic() + WRITE_ROOM_SECONDS
                if not wait or self._driver.owns_caller() or time.monotonic() > deadline:
                    raise
                with contextlib.suppress(TimeoutError):
                    self.settled.wait(lambda: self._has_room(len(value)), deadline - time.monotonic(), "no room")
            except (EbusError, TypeError, ValueError):
                raise
            except BaseException:  # an interrupt: what was to be sent may be gone from the session
                self._driver.reconnect()
                raise
        self._driver.send()

    def publish_soon(self, channel: Channel, settle: Settle, value: bytes, **options: Any) -> None:
        """As `publish`, but neither waits nor raises: without room the write is sent later, an error is the write's outcome."""
        with self.lock:
            self._add_soon(channel, settle, value, **options)
        self._driver.send()

    def _add_soon(self, channel: Channel, settle: Settle, value: bytes, **options: Any) -> None:
        # With the lock held: no room can be made between the attempt and the registration.
        try:
            self.settles[self._session.publish(channel, value, time.monotonic(), **options)] = settle
        except RateLimited:
            self.settled.once(partial(self.publish_soon, channel, settle, value, **options))
        except EbusError as error:
            settle(0, error)
        except (TypeError, ValueError) as error:  # an argument that can't be encoded
            settle(0, TypeMismatch(f"{channel.name or 'the bus'}: {guard.describe(error)}"))

    def _publish_postponed(self) -> None:
        with self.lock:
            self._add_postponed()
        self._driver.send()

    def _add_postponed(self) -> None:
        """Publish what interrupted this client. Called with the lock held."""
        while self._postponed:
            channel, settle, value, options = self._postponed.popleft()
            self._add_soon(channel, settle, value, **options)

    def _has_room(self, size: int) -> Any:
        with self.lock:
            return True if self._session.has_room(size) or self._session.closed is not None else NOT_YET

    def flush(self, timeout: float) -> int:
        """Send what waits in batches, and wait until every write has its answer; returns how many have none."""
        with self.lock:
            self._add_postponed()
            self._session.flush_all()
        self._driver.send()
        with contextlib.suppress(TimeoutError):
            self.settled.wait(lambda: NOT_YET if self.settles and self._session.closed is None else None, timeout, "")
        return len(self.settles)

    def warn(self, unanswered: int) -> None:
        """Log that so many writes had no answer when the client ended; nothing where there is none."""
        if unanswered:
            logger.warning(
                "%d write%s to %s had no answer when the client ended: nobody knows whether %s accepted. "
                "client.flush(timeout) waits for longer.",
                unanswered,
                "s" * (unanswered != 1),
                self._where,
                "it was" if unanswered == 1 else "they were",
            )

    def end(self, error: EbusError) -> None:
        """Settle every write with ``error``. The session has done so, unless it failed."""
        while self.settles:
            guard.attempt(self.settles.popitem()[1], 0, error)
        self.settled.notify()
