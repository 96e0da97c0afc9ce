"""The answers that are larger than their requests: history, lists, participants, and what a slow reader is sent from the log.

A few bytes ask for a page of half a megabyte. So an answer is made only when there is room for it: in one round of sending, a
connection's answers have `Limits.send_bytes` or one answer more, and while its socket is full it is made none. Requests wait
as the few bytes that they are, in order, and are dropped with their connection. Where too many wait, nothing more is read
from the connection.
"""

from __future__ import annotations

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.errors import EbusError

from .agenda import Agenda
from .conn import Conn
from .effects import Effect, Send
from .listings import Listings

Asked = frames.Fetch | frames.List | frames.SetPresence
"""The requests that may have to wait."""


class Replies:
    """What connections are sent on request, or because they have not received it yet.

    Args:
        listings: Answers requests for lists.
        agenda: Takes in the connections that can be sent more.
        limits: The bounds.
    """

    def __init__(self, listings: Listings, agenda: Agenda[Conn], limits: Limits) -> None:
        self._listings = listings
        self._agenda = agenda
        self._limits = limits
        self._round = 0
        self._until_flush: list[Conn] = []

    # --- room -------------------------------------------------------------------------------------------------------

    def count(self, conn: Conn, size: int) -> None:
        """So many bytes of an answer were made for ``conn``."""
        if conn.round != self._round:
            conn.round, conn.answered = self._round, 0
        conn.answered += size

    def _room(self, conn: Conn) -> int:
        return self._limits.send_bytes - (conn.answered if conn.round == self._round else 0)

    @property
    def awaits_flush(self) -> bool:
        """True if a connection waits for `flushed`."""
        return bool(self._until_flush)

    def flushed(self) -> None:
        """A round of sending has ended: there is room in those sockets that are not full."""
        self._round += 1
        if self._until_flush:
            waited, self._until_flush = self._until_flush, []
            for conn in waited:
                if not conn.gone:
                    self._agenda.add(conn)

    def must_wait(self, conn: Conn, frame: frames.ClientFrame) -> bool:
        """True if the frame can't be handled before others of the connection were. Then its turn comes by itself."""
        limits = self._limits
        if len(conn.requests) >= limits.requests and isinstance(frame, Asked):
            return True  # until `serve` has answered some
        if isinstance(frame, frames.Open):
            if conn.opening >= limits.opening or conn.writing_paused:
                return True
            if self._room(conn) <= 0:
                self._until_flush.append(conn)
                return True
        return False

    # --- requests ---------------------------------------------------------------------------------------------------

    def ask(self, conn: Conn, frame: Asked, now: float) -> list[Effect]:
        """Take in a request. It is answered now, or in a later turn."""
        if not conn.requests and not conn.writing_paused and self._room(conn) > 0:
            return self._answer(conn, frame, now)
        self.ask_later(conn, frame)
        return []

    def ask_later(self, conn: Conn, frame: Asked) -> None:
        """Take in a request that is answered in a later turn."""
        conn.requests.append(frame)
        self._wait(conn)

    def listed(self, conn: Conn, effects: list[Effect]) -> list[Effect]:
        """Count what a list has been answered with."""
        for effect in effects:
            if isinstance(effect, Send):
                self.count(conn, len(effect.frame))
            else:
                conn.opening += 1  # the authorizer is asked
        return effects

    def serve(self, conn: Conn, now: float) -> list[Effect]:
        """Answer one request, and send a portion of what the connection has not received."""
        if conn.writing_paused or conn.gone or not (conn.requests or conn.catching_up):
            return []
        effects: list[Effect] = []
        room = self._room(conn)
        if room > 0 and conn.requests:
            effects += self._answer(conn, conn.requests.popleft(), now)
            room = self._room(conn)
        if room > 0 and conn.catching_up:
            number = next(iter(conn.catching_up))
            bus = conn.open[number].bus
            served, size = bus.serve(conn.id, min(room, self._limits.page_bytes))
            effects += served
            self.count(conn, size)
            if not bus.is_catching_up(conn.id):
                conn.catching_up.discard(number)
        self._wait(conn)
        return effects

    def _wait(self, conn: Conn) -> None:
        """See to it that the rest of what the connection waits for gets its turn."""
        if conn.writing_paused:  # until its socket has drained
            return
        if conn.requests or conn.catching_up or conn.unread:
            if self._room(conn) > 0:
                self._agenda.add(conn)
            else:
                self._until_flush.append(conn)

    def _answer(self, conn: Conn, frame: Asked, now: float) -> list[Effect]:
        try:
            match frame:
                case frames.Fetch():
                    bus = conn.access(frame.bus, read=True)
                    answer = frames.encode(bus.page(conn.who, frame))
                case frames.SetPresence():
                    if frame.bus not in conn.open or not conn.open[frame.bus].read:
                        return []  # it has left the bus meanwhile
                    bus = conn.access(frame.bus)
                    answer = frames.encode(frames.Presence(frame.bus, True, bus.presence.snapshot()))
                case frames.List():
                    return self.listed(conn, self._listings.answer(conn, frame, now))
        except EbusError as error:
            answer = frames.encode(frames.refusal(error, req=getattr(frame, "req", 0)))
        self.count(conn, len(answer))
        return [Send(conn.id, answer)]
