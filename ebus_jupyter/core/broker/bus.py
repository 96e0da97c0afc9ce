"""One bus in the broker: what it is, and how its readers are served. (How writes get in is `admission`'s.)

Nothing is delivered until the backend reports it back (`commit`): the log precedes the fan-out, and one broker or ten
take the same way.

A reader is *live* (it has everything, and gets the next bytes with all the others) or *behind* (its socket is full, or
it resumes): then it is an offset in the log, and is served from there, a portion at a time, until it is live again. So a
slow reader costs nothing, and slows nobody.

Most buses are silent most of the time, and there may be very many: what only a busy one needs is made when it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.log import Log
from ebus_jupyter.core.protocol.message import BusSpec, Id, Participant, message_id
from ebus_jupyter.core.protocol.validation import Validator
from ebus_jupyter.errors import Lagged

from .admission import Admission
from .effects import Deliver, Effect, Send
from .entry import Entry, Kept, sender_id
from .presence import Presence


class Record(msgspec.Struct, gc=False):
    """One message in the broker's memory: the bytes that its readers get, made once.

    ``to`` and ``but``: the users it is only for, the participant it is not for; everyone else gets ``hidden``.
    """

    offset: int
    id: Id
    frame: bytes
    hidden: bytes = b""
    to: tuple[str, ...] | None = None
    but: str = ""

    def visible(self, who: Participant) -> bool:
        return not self.hidden or (
            who.id != self.but and (self.to is None or who.user in self.to or who.id == self.id[0])
        )

    def bytes_for(self, who: Participant) -> bytes:
        return self.frame if self.visible(who) else self.hidden


class Subscriber(msgspec.Struct):
    """One reader. ``after``: the offset it has reached, where it is behind; None: it is live.

    ``floor``: that of the log when it began to read.
    """

    who: Participant
    after: int | None = None
    floor: int = 0


class BusState:
    """One bus. Methods return effects; the broker has checked who may call them.

    Attributes:
        creator: Of an unnamed bus: it lives as long as this participant.
        owners: Connections that offer to filter; the first one does.
        connections: Participants' ids to their connections: the broker's own table.
    """

    __slots__ = (
        "_admission",
        "_audience",
        "address",
        "connections",
        "creator",
        "emits",
        "epoch",
        "idle_since",
        "limits",
        "log",
        "name",
        "number",
        "owners",
        "presence",
        "spec",
        "subscribers",
        "uri",
        "validator",
    )

    def __init__(
        self, address: Address, number: int, kept: Kept, limits: Limits, connections: Mapping[str, int]
    ) -> None:
        self.connections = connections
        self.address = address
        self.uri = str(address)
        self.name = address.name
        self.number = number
        self.spec: BusSpec = kept.spec
        self.epoch = kept.epoch
        self.limits = limits
        self.creator = ""
        self.idle_since = 0.0
        self.owners: tuple[int, ...] = ()
        self.presence = Presence()
        self.subscribers: dict[int, Subscriber] = {}
        self.validator = Validator.of(self.spec.schema)
        self.emits = self.validator if self.spec.emits is None else Validator.of(self.spec.emits)
        self._audience: tuple[int, ...] | None = None
        self._admission: Admission | None = None
        self.log: Log[Record] = Log(retain=self.spec.retain, size=self.spec.size, max_bytes=limits.log_bytes)
        for entry in kept.entries:
            self.admission.keep(self._record(entry).id, entry.offset)
        for id_, offset in kept.ids():
            self.admission.keep(id_, offset)
        self.log.last = max(self.log.last, kept.last)
        self.log.floor = max(self.log.floor, kept.floor)

    @property
    def admission(self) -> Admission:
        """Where its writes go in."""
        if self._admission is None:
            self._admission = Admission(self)
        return self._admission

    @property
    def in_use(self) -> bool:
        """Whether someone is here, or something is on its way."""
        return bool(self.presence or self.subscribers or self._is_under_way)

    @property
    def _is_under_way(self) -> bool:
        return self._admission is not None and not self._admission.is_idle

    def settled(self) -> list[Effect]:
        """Go on with the writes that waited for others."""
        return [] if self._admission is None else self._admission.settled()

    def filter_lost(self, now: float, reason: str = "") -> list[Effect]:
        """Refuse what the filter has not answered in time; with a ``reason``, everything it was asked."""
        return [] if self._admission is None else self._admission.expire(now, reason)

    def needs_tick(self) -> bool:
        """Whether time may change anything here, though nothing happens."""
        return not self.presence or self.presence.has_away or self._is_under_way

    # --- reading ----------------------------------------------------------------------------------------------------

    def commit(self, entries: list[Entry]) -> list[Effect]:
        """The backend reports these as kept: deliver them."""
        effects: list[Effect] = []
        batch: list[Record] = []
        admission = self.admission
        for entry in entries:
            if entry.offset <= self.log.last:
                continue  # reported twice, or part of what was loaded
            record = self._record(entry)
            admission.landed(record.id, entry.offset)
            if record.hidden and self.subscribers:
                effects += self._deliver(batch)
                batch = []
                effects += [
                    Deliver((conn,), record.bytes_for(reader.who), 1)
                    for conn, reader in self.subscribers.items()
                    if reader.after is None
                ]
            else:
                batch.append(record)
        return effects + self._deliver(batch)

    def _deliver(self, batch: list[Record]) -> list[Effect]:
        if self._audience is None:
            self._audience = tuple(conn for conn, reader in self.subscribers.items() if reader.after is None)
        if not batch or not self._audience:
            return []
        joined = batch[0].frame if len(batch) == 1 else b"".join([record.frame for record in batch])
        return [Deliver(self._audience, joined, len(batch))]

    def subscribe(self, conn: int, who: Participant, frame: frames.Subscribe) -> frames.Subscribed:
        """Begin to serve a reader; a resume is whole, or refused with everything that is kept."""
        log = self.log
        answer = frames.Subscribed(frame.req, self.number, self.epoch, log.last, log.last)
        if frame.epoch:
            answer.after = frame.after
            if not self._is_ours(frame):
                answer.after, answer.recovered, answer.fresh, answer.skipped = log.start, False, True, -1
            elif frame.after < log.floor and frame.after != log.start:
                answer.after, answer.recovered, answer.skipped = log.start, False, log.floor - frame.after
                answer.fresh = log.start < frame.after
        self.subscribers[conn] = Subscriber(who, answer.after, log.floor)
        self._audience = None
        return answer

    def _is_ours(self, frame: frames.Subscribe) -> bool:
        """Whether what the reader saw last is part of this history. A restored older store reuses offsets, so its id counts."""
        if frame.epoch != self.epoch or not 0 <= frame.after <= self.log.last:
            return False
        if frame.after == 0 or frame.after < self.log.floor or not frame.last_id:
            return True
        record = self.log.at(frame.after)
        if record is not None:
            return frame.last_id == message_id(record.id)
        # A newer one has replaced it, or it is none of ours.
        sender, _, n = frame.last_id.rpartition("-")
        return n.isdecimal() and len(n) < 20 and self.admission.offset_of((sender, int(n))) == frame.after

    def unsubscribe(self, conn: int) -> None:
        self.subscribers.pop(conn, None)
        self._audience = None

    def is_catching_up(self, conn: int) -> bool:
        """Whether the connection waits for messages that are in the log."""
        reader = self.subscribers.get(conn)
        return reader is not None and reader.after is not None

    def pause(self, conn: int) -> bool:
        """The connection's socket is full: what it reads here is served from the log, once it has drained.

        Whether it reads here at all.
        """
        reader = self.subscribers.get(conn)
        if reader is not None and reader.after is None:
            reader.after, reader.floor = self.log.last, self.log.floor
            self._audience = None
        return reader is not None

    def serve(self, conn: int, max_bytes: int) -> tuple[list[Effect], int]:
        """Give a reader that is behind its next portion; returns how many bytes that was."""
        effects: list[Effect] = []
        reader = self.subscribers[conn]
        after, known = reader.after, reader.floor
        assert after is not None, "it is live"
        try:
            records = self.log.read(after, known=known, max_bytes=max_bytes)
        except Lagged as lag:
            told: frames.Lag | frames.Subscribed = frames.Lag(self.number, lag.skipped, lag.resume_after)
            if lag.resume_after < after:  # with keys: a snapshot follows
                told = frames.Subscribed(
                    0, self.number, self.epoch, lag.resume_after, self.log.last, False, lag.skipped, True
                )
            effects.append(Send(conn, frames.encode(told)))
            after, known = lag.resume_after, self.log.floor
            records = self.log.read(after, max_bytes=max_bytes)
        parts = [record.bytes_for(reader.who) for record in records]
        if not parts and after < self.log.last:  # the newest are kept no more, but the order did go on
            parts = [frames.encode(frames.Advance(self.number, self.log.last))]
        if parts:
            effects.append(Deliver((conn,), b"".join(parts), len(parts)))
        reached = records[-1].offset if records else self.log.last
        if reached >= self.log.last:
            reader.after = self._audience = None
        else:
            reader.after, reader.floor = reached, known
        return effects, sum(map(len, parts))

    def page(self, who: Participant, frame: frames.Fetch) -> frames.Page:
        """A portion of history. With keys, whoever asks judges by ``floor``: it alone knows whether it reads a snapshot."""
        log = self.log
        until = min(frame.until or log.last, log.last)
        after = log.before_last(-frame.after, until) if frame.after < 0 else frame.after
        after = max(after, log.start)
        kept = log.read(after, known=log.floor, max_bytes=self.limits.page_bytes)
        records = [record for record in kept if record.offset <= until]
        more = bool(kept) and len(records) == len(kept) and kept[-1].offset < until
        through = records[-1].offset if more else max(until, after)
        messages = [msgspec.Raw(record.frame) for record in records if record.visible(who)]
        return frames.Page(frame.req, self.number, self.epoch, through, log.floor, more, messages)

    # --- memory -----------------------------------------------------------------------------------------------------

    def _record(self, entry: Entry) -> Record:
        sender = sender_id(entry.sender)
        encoded: Any = msgspec.Raw(entry.sender)
        frame = frames.Delivery(
            self.number, entry.offset, entry.id, entry.time, encoded, msgspec.Raw(entry.value), entry.key, entry.deleted
        )
        record = Record(entry.offset, (sender, entry.id), frames.encode(frame))
        if entry.to is not None or not entry.echo:
            record.hidden = frames.encode(frames.Advance(self.number, entry.offset))
            record.to = entry.to
            record.but = "" if entry.echo else sender
        self.log.append(entry.offset, record, key=entry.key, deleted=entry.deleted, size=len(record.frame))
        return record
