"""A reader: a position in the log of one bus, with the history before it.

A reader that begins in the past reads in two parts: pages of history, requested from the broker one by one, up to the
offset where the live log began; then the log itself. Nothing is read twice, and nothing is left out between the parts.
However long the history is, one page of it is in memory.

`Reader.read_nowait` holds all the rules. A program that waits only waits until it would return something else.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.position import Position
from ebus_jupyter.errors import EbusError, Lagged

from .channel import Channel, Gap
from .session import Session

Since = Position | int | Literal["start"] | None
"""The beginning of a reader: None, from now on; "start", everything that is kept; an offset, after it; -n, the last n
messages; a `Position`, after it, where the bus's history is still the same one: else `Lagged`, and everything that is kept."""


class Reader:
    """Reads the messages of one bus.

    Args:
        session: The client's session.
        channel: The bus. The reader begins when it is open.
        since: The beginning; see `Since`. Default: from now on.
    """

    def __init__(self, session: Session, channel: Channel, since: Since = None) -> None:
        self._session = session
        self.channel = channel
        self._since = since
        self._resets = channel.resets
        self._cursor: int | None = None  # position in the live log; None until it has begun
        self._past: deque[frames.Delivery | Lagged] = deque()
        self._next_page: int | None = None
        self._page_request = 0
        self._expected: Position | None = None  # the first page begins with this message, or the history is another one
        self._in_snapshot = False  # the requested pages are the whole state of a bus with keys
        self._early = not channel.log_epoch
        session.subscribe(channel)
        self._begin()

    def clone(self) -> Reader:
        """Another reader at the same position."""
        twin = Reader.__new__(Reader)
        twin.__dict__.update(self.__dict__)
        twin._past = self._past.copy()
        if self._page_request:  # the requested page is this reader's; the twin requests its own
            twin._page_request = 0
        return twin

    def _begin(self) -> None:
        """Fix the offset between history and live log, as soon as there is a live log."""
        channel = self.channel
        if self._cursor is not None or not channel.log_epoch:
            return
        self._resets = channel.resets
        # A reader that was here before the log reads everything in it, even what arrived together with its beginning.
        self._cursor = channel.log_start if self._early else channel.last
        since = self._since
        if since is None or since == Position():
            return
        # Messages that the broker has begun to send after a reconnect may still be on their way: they count as history.
        end = max(self._cursor, channel.target)
        after = since.offset if isinstance(since, Position) else 0 if since == "start" else since
        if isinstance(since, Position) and since.epoch:
            seen = channel.log.at(after)
            is_other = isinstance(seen, frames.Delivery) and since.id not in ("", seen.message_id)
            if since.epoch != channel.log_epoch or is_other:
                after = end + 1
            elif since.id and seen is None:
                self._expected = since
        if after > end:
            # This history has not reached the given offset: it comes from another one.
            self._past.append(Lagged(resume_after=0))
            after = 0
        if after > 0 and after >= channel.log.floor and self._expected is None:
            self._cursor = after  # the log has everything already
        elif end > 0:
            self._cursor = end
            self._begin_pages(after)

    def _begin_pages(self, after: int) -> None:
        self._next_page = after
        self._in_snapshot = after <= 0 and self.channel.spec.retain == "keys"

    @property
    def has_begun(self) -> bool:
        """True once the reader's beginning is fixed: it misses nothing that is written from here on."""
        self._begin()
        return self._cursor is not None

    @property
    def caught_up(self) -> bool:
        """True if everything was read that was there when the connection was made, and everything since."""
        return (
            self._cursor is not None
            and not (self._past or self._page_request or self._next_page is not None)
            and self._cursor >= self.channel.log.last
            and self.channel.last >= self.channel.target
        )

    def request_page(self) -> int:
        """Request the next page of history if one is needed. Returns the request's number; 0 where none is needed."""
        self._begin()
        if self._next_page is None or self._past or self._page_request or self.channel.read_error is not None:
            return 0
        assert self._cursor is not None
        # The message that is expected is fetched, too.
        after = self._next_page - (self._expected is not None)
        self._page_request = self._session.fetch(self.channel, after, self._cursor)
        return self._page_request

    def page_received(self, page: frames.Page | None, error: EbusError | None) -> None:
        """The page of `request_page` has arrived, or (None) the request has failed with ``error``."""
        self._page_request = 0
        wanted = self._next_page
        self._next_page = None
        if wanted is None:
            return
        if page is None:
            if error is not None and self.channel.error is None:  # the messages of the page count as missed
                self._past.append(Lagged(resume_after=self._cursor or 0))
            return
        try:
            messages = [frames.delivery(message) for message in page.messages]
        except Exception:
            messages = None
        if messages is None or (page.more and page.through <= max(wanted, 0)):
            # A page that can't be read, or leads nowhere: what is left of the history counts as missed.
            self._past.append(Lagged(resume_after=self._cursor or 0))
            return
        expected, self._expected = self._expected, None
        if expected is not None and messages and messages[0].offset == expected.offset:
            first = messages.pop(0)
            if first.message_id != expected.id:
                self._past.append(Lagged(resume_after=0))
                self._begin_pages(0)
                return
        if wanted > 0 and page.floor > wanted and not self._in_snapshot:
            start = 0 if self.channel.spec.retain == "keys" else page.floor
            self._past.append(Lagged(skipped=page.floor - wanted, resume_after=start))
            if start == 0:
                self._begin_pages(0)
                return
        self._past.extend(messages)
        if page.more:
            self._next_page = page.through

    def read_nowait(self) -> frames.Delivery | None:
        """The next message; None where there is none yet.

        Raises:
            Lagged: Messages were missed. The reader goes on after them.
            Forbidden: This client may not read the bus.
            EbusError: The error that the bus was closed with, such as `Closed`, once everything that arrived has been read.
        """
        self._begin()
        if self._resets != self.channel.resets:
            self._resets = self.channel.resets
            self._past.clear()
            self._next_page = None
            self._cursor = self.channel.log.floor
            raise Lagged(skipped=self.channel.reset_skipped, resume_after=self._cursor)
        if self._past:
            item = self._past.popleft()
            if isinstance(item, Lagged):
                raise item
            return item
        if self._next_page is None and not self._page_request and self._cursor is not None:
            try:
                found = self.channel.log.read(self._cursor, max_bytes=0)
            except Lagged as lag:
                self._cursor = lag.resume_after
                if self.channel.spec.retain == "keys":  # only the broker has the whole state
                    self._cursor = self.channel.last
                    self._begin_pages(0)
                raise
            if found:
                self._cursor = found[0].offset
                if isinstance(found[0], Gap):
                    raise Lagged(skipped=found[0].skipped, resume_after=found[0].offset)
                return found[0]
        if self.channel.read_error is not None:
            raise self.channel.read_error.anew()
        return None
