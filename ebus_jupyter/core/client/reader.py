"""One reader of a bus in a client: a position in the bus's log, with the history before it.

A reader that begins in the past reads in two parts: pages of history that the broker is asked for, as they are read, up
to the offset where the live log began; then the log itself. Nothing is read twice, nothing is left out between them, and
however long the history is, one page of it is in memory.

`read_nowait` holds all the rules; whoever waits only waits until it would return something else.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.errors import EbusError, Lagged

from .channel import Channel, Gap
from .session import Session

Since = int | Literal["start"] | None
"""Where a reader begins: None, with what is written from now on; "start", with everything kept; an offset, after it; -n,
with the last n messages."""


class Reader:
    """Reads one bus from ``since`` on.

    Args:
        session: The client.
        bus: The bus; the reader begins when it is open.
        since: Where; see `Since`.
    """

    def __init__(self, session: Session, bus: Channel, since: Since = None) -> None:
        self._session = session
        self.bus = bus
        self._since = since
        self._resets = bus.resets
        self._cursor: int | None = None  # position in the live log; None until it has begun
        self._past: deque[frames.Delivery | Lagged] = deque()
        self._next_page: int | None = None
        self._asked = 0
        self._in_snapshot = False  # the pages under way are the whole state of a bus with keys
        self._early = not bus.log_epoch
        session.subscribe(bus)
        self._begin()

    def clone(self) -> Reader:
        """Another reader at the same position."""
        twin = Reader.__new__(Reader)
        twin.__dict__.update(self.__dict__)
        twin._past = self._past.copy()
        if self._asked:  # the page under way is this reader's; the twin asks for its own
            twin._asked = 0
        return twin

    def _begin(self) -> None:
        """Fix where the past ends and the live log begins, as soon as there is a live log."""
        bus = self.bus
        if self._cursor is not None or not bus.log_epoch:
            return
        self._resets = bus.resets
        # A reader that was here before the log hears everything in it, even what came together with its beginning.
        self._cursor = bus.log_start if self._early else bus.last
        if self._since is None:
            return
        # What the broker has begun to send after a reconnect may still be on its way: that is history here.
        end = max(self._cursor, bus.target)
        after = 0 if self._since == "start" else self._since
        if after > end:
            # It knows an offset that this history has not reached: it comes from another one.
            self._past.append(Lagged(resume_after=0))
            after = 0
        if after > 0 and after >= bus.log.floor:
            self._cursor = after  # what it wants is here already
        elif end > 0:
            self._cursor = end
            self._begin_pages(after)

    def _begin_pages(self, after: int) -> None:
        self._next_page = after
        self._in_snapshot = after <= 0 and self.bus.spec.retain == "keys"

    @property
    def has_begun(self) -> bool:
        """Whether it is fixed where the past ends: what is written from here on, this reader hears."""
        self._begin()
        return self._cursor is not None

    @property
    def caught_up(self) -> bool:
        """Whether it has read everything there was when the connection was made, and what came since."""
        return (
            self._cursor is not None
            and not (self._past or self._asked or self._next_page is not None)
            and self._cursor >= self.bus.log.last
            and self.bus.last >= self.bus.target
        )

    def request_page(self) -> int:
        """Ask for the next page of history if one is needed; returns its request number, 0 where none is needed."""
        self._begin()
        if self._next_page is None or self._past or self._asked or self.bus.read_error is not None:
            return 0
        assert self._cursor is not None
        self._asked = self._session.fetch(self.bus, self._next_page, self._cursor)
        return self._asked

    def page_received(self, page: frames.Page | None, error: EbusError | None) -> None:
        """The page that `turn` asked for has come, or can't be had."""
        self._asked = 0
        wanted = self._next_page
        self._next_page = None
        if wanted is None:
            return
        if page is None:
            if error is not None and self.bus.error is None:  # what it would have held is missed, and that is said
                self._past.append(Lagged(resume_after=self._cursor or 0))
            return
        if wanted > 0 and page.floor > wanted and not self._in_snapshot:
            start = 0 if self.bus.spec.retain == "keys" else page.floor
            self._past.append(Lagged(skipped=page.floor - wanted, resume_after=start))
            if start == 0:
                self._begin_pages(0)
                return
        self._past.extend(frames.delivery(message) for message in page.messages)
        if page.more:
            self._next_page = page.through

    def read_nowait(self) -> frames.Delivery | None:
        """The next message; None where there is none yet.

        Raises:
            Lagged: Messages were missed. The reader goes on behind them.
            Closed, or what else ended the bus, once everything that arrived has been read. Forbidden, where this client
            may not read it.
        """
        self._begin()
        if self._resets != self.bus.resets:
            self._resets = self.bus.resets
            self._past.clear()
            self._next_page = None
            self._cursor = self.bus.log.floor
            raise Lagged(skipped=self.bus.reset_skipped, resume_after=self._cursor)
        if self._past:
            item = self._past.popleft()
            if isinstance(item, Lagged):
                raise item
            return item
        if self._next_page is None and not self._asked and self._cursor is not None:
            try:
                found = self.bus.log.read(self._cursor, max_bytes=0)
            except Lagged as lag:
                self._cursor = lag.resume_after
                if self.bus.spec.retain == "keys":  # this log is no whole state; the broker has it
                    self._cursor = self.bus.last
                    self._begin_pages(0)
                raise
            if found:
                self._cursor = found[0].offset
                if isinstance(found[0], Gap):
                    raise Lagged(skipped=found[0].skipped, resume_after=found[0].offset)
                return found[0]
        if self.bus.read_error is not None:
            raise self.bus.read_error
        return None
