"""One bus in the broker: what a write goes through, and how its readers are served.

A write is checked in this order, and refused at the first check that fails: known already (a retry: answered with its
first offset), size, type, key, expected offset, filter. What passes becomes an `Append`. Nothing is delivered until the
backend reports it back (`commit`): the log precedes the fan-out, and one broker or ten take the same way.

A reader is *live* (it has everything, and gets the next bytes with all the others) or *behind* (its socket is full, or
it resumes): then it is an offset in the log, and is served from there, a portion at a time, until it is live again. So a
slow reader costs nothing, and slows nobody.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any

import msgspec

from ebus_jupyter.errors import (
    BackendError,
    Conflict,
    EbusError,
    Filtered,
    FilterUnavailable,
    Lagged,
    RateLimited,
    TooLarge,
    TypeMismatch,
)

from . import frames
from .address import Address
from .effects import Append, Deliver, Effect, Filter, Send
from .entry import Entry, Id, Kept, sender_id
from .limits import Limits
from .log import Log
from .message import OWNER, BusSpec, Participant
from .presence import Presence
from .schema import Validator


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


class Writer(msgspec.Struct):
    """Who writes: a participant, and the bytes that stand for it in every message of its own."""

    who: Participant
    encoded: bytes

    @property
    def id(self) -> str:
        return self.who.id


class Pending(msgspec.Struct, gc=False):
    """A write that waits for the filter's verdict, or behind one of its sender that does."""

    entry: Entry
    deadline: float
    value: bytes | None = None
    refused: EbusError | None = None


class BusState:
    """One bus. Methods return effects; the broker has checked who may call them."""

    def __init__(
        self, address: Address, number: int, kept: Kept, limits: Limits, connections: Mapping[str, int]
    ) -> None:
        self._connections = connections  # participants' ids to their connections: the broker's own table
        self.address = address
        self.uri = str(address)
        self.name = address.name
        self.number = number
        self.spec: BusSpec = kept.spec
        self.epoch = kept.epoch
        self.limits = limits
        self.creator = ""  # of an unnamed bus: it lives as long as this participant
        self.idle_since = 0.0
        self.owners: list[int] = []  # connections that offer to filter; the first one does
        self.presence = Presence()
        self.watchers: dict[int, None] = {}  # here and below, sets in dicts: an empty one is small, and there are many
        self.readers: dict[int, Participant] = {}
        self.behind: dict[int, tuple[int, int]] = {}  # the offset reached, and the log's floor when that reading began
        self.in_flight: dict[Id, None] = {}
        self._validator = Validator(self.spec.schema)
        self._emits = self._validator if self.spec.emits is None else Validator(self.spec.emits)
        self._recent: OrderedDict[Id, int | EbusError] = OrderedDict()  # the offset, or why it was refused
        self._lanes: dict[str, deque[Pending]] = {}
        self._asked: dict[int, tuple[str, Pending]] = {}
        self._last_ask = 0
        self._waiting: OrderedDict[Id, tuple[Writer, frames.Publish, float]] = OrderedDict()
        self._alone = False  # what is in flight was let in on the condition that nothing overtakes it
        self._audience: tuple[int, ...] | None = None
        self.log: Log[Record] = Log(retain=self.spec.retain, size=self.spec.size, max_bytes=limits.log_bytes)
        for entry in kept.entries:
            self._record(entry)
        for id_, offset in kept.ids():
            self._remember(id_, offset)
        self.log.last = max(self.log.last, kept.last)
        self.log.floor = max(self.log.floor, kept.floor)

    @property
    def in_use(self) -> bool:
        """Whether someone is here, or something is on its way."""
        return bool(len(self.presence) or self.readers or self.in_flight or self._waiting)

    # --- writing ----------------------------------------------------------------------------------------------------

    def publish(self, writer: Writer, frame: frames.Publish, now: float) -> list[Effect]:
        """Take a write that is not `known`. Raises what refuses it."""
        try:
            if self._waiting or self._must_wait(frame):
                if len(self._waiting) >= self.limits.pending:
                    raise self._crowded()
                self._waiting[writer.id, frame.id] = writer, frame, now
                return []
            return self._take(writer, frame, now)
        except EbusError as error:
            self._remember((writer.id, frame.id), error)  # another copy of it may still be on its way
            raise

    def known(self, id_: Id) -> list[Effect] | None:
        """The answer to a retry: what it was the first time, or nothing yet; None where the write is new."""
        answer = self._recent.get(id_)
        if isinstance(answer, EbusError):
            return self._answer(id_[0], error_frame(answer, id_=id_[1], bus=self.number))
        if answer is not None:
            return self._answer(id_[0], frames.Ok(self.number, id_[1], answer))
        if id_ in self.in_flight or id_ in self._waiting:
            return []  # it will be answered when the first attempt is
        return None

    def _must_wait(self, frame: frames.Publish) -> bool:
        """Whether the last offset, or the last free key, can't be told before the writes on their way have their offsets."""
        return bool(self.in_flight) and (self._alone or frame.expect is not None or self._may_be_full(frame))

    def _take(self, writer: Writer, frame: frames.Publish, now: float) -> list[Effect]:
        self._check(frame)
        self._alone = frame.expect is not None and self.spec.filter is not None
        entry = Entry(
            bus=self.uri,
            id=frame.id,
            time=now,
            sender=writer.encoded,
            value=bytes(frames.NIL if frame.deleted else frame.value),
            key=frame.key,
            deleted=frame.deleted,
            to=None if frame.to is None else tuple(frame.to),
            echo=frame.echo,
        )
        if self.spec.filter is not None:
            return self._ask(entry, writer, now)
        return self._append(writer.id, entry)

    def _may_be_full(self, frame: frames.Publish) -> bool:
        return not frame.deleted and self.log.full_for(frame.key, others=len(self.in_flight))

    def _check(self, frame: frames.Publish) -> None:
        size = len(frame.value)
        if size > self.limits.value_bytes:
            raise TooLarge(
                f"{self.name}: the value has {size} bytes, at most {self.limits.value_bytes} may travel (the server's limit "
                "`value_bytes`). Send it in pieces, or raise the limit.",
                limit="value_bytes",
            )
        if frame.to is not None and len(frame.to) > self.limits.recipients:
            raise TooLarge(
                f"{self.name}: at most {self.limits.recipients} users can be named in to=.", limit="recipients"
            )
        if frame.to is not None and any(len(user) > self.limits.name_chars for user in frame.to):
            raise TooLarge(
                f"{self.name}: a user in to= has at most {self.limits.name_chars} characters.", limit="name_chars"
            )
        keyed = self.spec.retain == "keys"
        if keyed is (frame.key is None):
            raise TypeMismatch(
                f"{self.name} {'retains by key: say which with key=' if keyed else 'has no keys: leave out key='}.",
                path="$",
                expected="key",
            )
        if frame.key is not None and len(frame.key) > self.limits.name_chars:
            raise TooLarge(f"{self.name}: a key has at most {self.limits.name_chars} characters.", limit="name_chars")
        if frame.deleted:
            if not keyed:
                raise TypeMismatch(f"{self.name} has no keys to remove.", path="$", expected="key")
        else:
            self._validator.check(frame.value, self.name)
            if self.log.full_for(frame.key, size):
                raise TooLarge(
                    f"{self.name} is full ({self.spec.size} keys, {self.limits.log_bytes} bytes at most). Remove a key first.",
                    limit="size",
                )
        if frame.expect is not None:
            actual = self.log.offset_of(frame.key)
            if actual != frame.expect:
                what = self.name if frame.key is None else f"{self.name}[{frame.key!r}]"
                raise Conflict(
                    f"{what} is at offset {actual}, not {frame.expect}: someone wrote first. Read again and retry.",
                    actual=actual,
                )

    def _append(self, writer: str, entry: Entry) -> list[Effect]:
        self.in_flight[writer, entry.id] = None
        return [Append(entry)]

    def settled(self) -> list[Effect]:
        """Go on with the writes that waited for others' offsets."""
        effects: list[Effect] = []
        while self._waiting and not self._must_wait(next(iter(self._waiting.values()))[1]):
            _, (writer, frame, now) = self._waiting.popitem(last=False)
            try:
                effects += self._take(writer, frame, now)
            except EbusError as error:
                effects += self.refuse(writer.id, frame.id, error)
        return effects

    def accepted(self, writer: str, id_: int, offset: int) -> None:
        """The backend has kept this write. Its report may still be on the way, but a retry has its answer."""
        if (writer, id_) not in self._recent:
            self._remember((writer, id_), offset)

    def refuse(self, writer: str, id_: int, error: EbusError) -> list[Effect]:
        """Tell the writer why a write that it waits for is not accepted; a retry would come behind its later writes."""
        self.in_flight.pop((writer, id_), None)
        if not isinstance(error, BackendError):  # what could not be kept may be tried again: nothing was decided
            self._remember((writer, id_), error)
        return self._answer(writer, error_frame(error, id_=id_, bus=self.number))

    def _answer(self, writer: str, frame: frames.Ok | frames.Error) -> list[Effect]:
        conn = self._connections.get(writer)
        return [] if conn is None else [Send(conn, frames.encode(frame))]

    def _crowded(self) -> RateLimited:
        return RateLimited(
            f"{self.name}: {self.limits.pending} writes are waiting already (the server's limit `pending`). "
            "Await acks as you write.",
            retry_after=1.0,
            limit="pending",
        )

    # --- filtering --------------------------------------------------------------------------------------------------

    def _ask(self, entry: Entry, writer: Writer, now: float) -> list[Effect]:
        """Send a write to the filter. Each sender has a lane of its own, so that its writes keep their order."""
        if self.spec.filter == OWNER and not self.owners:
            raise FilterUnavailable(
                f"{self.name} is filtered by a kernel that is away; nothing is accepted unfiltered. Try again when it is back, "
                "or run the cell that makes the bus."
            )
        lane = self._lanes.setdefault(writer.id, deque())
        if len(lane) >= self.limits.pending:
            raise self._crowded()
        pending = Pending(entry, now + self.limits.filter_seconds)
        lane.append(pending)
        self.in_flight[writer.id, entry.id] = None
        self._last_ask = ask = self._last_ask + 1
        self._asked[ask] = (writer.id, pending)
        if self.spec.filter == OWNER:
            question = frames.FilterAsk(self.number, ask, msgspec.Raw(entry.value), public(writer.who))
            return [Send(self.owners[0], frames.encode(question))]
        assert self.spec.filter is not None
        return [Filter(self.address, ask, self.spec.filter, entry.value, writer.who)]

    def filtered(self, ask: int, value: bytes, error: EbusError | str | None) -> list[Effect]:
        """The filter's verdict: the value to keep, a reason to refuse it, or why the filter itself failed."""
        writer, pending = self._asked.pop(ask, (None, None))
        if writer is None or pending is None:
            return []  # too late: it was refused when its time was up
        if isinstance(error, str):
            pending.refused = Filtered(f"{self.name}: {error}", reason=error)
        elif error is not None:
            pending.refused = error
        else:
            pending.value = value
        return self._drain_lane(writer)

    def _drain_lane(self, writer: str) -> list[Effect]:
        effects: list[Effect] = []
        lane = self._lanes.get(writer)
        while lane and (lane[0].value is not None or lane[0].refused is not None):
            pending = lane.popleft()
            error = pending.refused
            if error is None:
                assert pending.value is not None
                try:
                    if len(pending.value) > self.limits.value_bytes:
                        raise TooLarge(f"{self.name}: the filter's answer is too large.", limit="value_bytes")
                    if not pending.entry.deleted:
                        self._emits.check(pending.value, f"{self.name} (its filter's answer)")
                        pending.entry.value = pending.value
                except EbusError as wrong:
                    error = wrong
            if error is None:
                effects += self._append(writer, pending.entry)
            else:
                effects += self.refuse(writer, pending.entry.id, error)
        if not lane:
            self._lanes.pop(writer, None)
        return effects

    def expire_filters(self, now: float, reason: str = "") -> list[Effect]:
        """Refuse what the filter has not answered in time; with a ``reason``, everything it was asked."""
        effects: list[Effect] = []
        for ask, (writer, pending) in list(self._asked.items()):
            if reason or pending.deadline <= now:
                why = reason or f"did not answer within {self.limits.filter_seconds:g} s"
                del self._asked[ask]
                pending.refused = FilterUnavailable(f"{self.name}: the filter {why}; the write was not accepted.")
                effects += self._drain_lane(writer)
        return effects

    # --- reading ----------------------------------------------------------------------------------------------------

    def commit(self, entries: list[Entry]) -> list[Effect]:
        """The backend reports these as kept: deliver them."""
        effects: list[Effect] = []
        batch: list[Record] = []
        for entry in entries:
            if entry.offset <= self.log.last:
                continue  # reported twice, or part of what was loaded
            record = self._record(entry)
            self.in_flight.pop(record.id, None)
            if record.hidden and self.readers:
                effects += self._deliver(batch)
                batch = []
                effects += [
                    Deliver((conn,), record.bytes_for(who), 1)
                    for conn, who in self.readers.items()
                    if conn not in self.behind
                ]
            else:
                batch.append(record)
        return effects + self._deliver(batch)

    def _deliver(self, batch: list[Record]) -> list[Effect]:
        if self._audience is None:
            self._audience = tuple(conn for conn in self.readers if conn not in self.behind)
        if not batch or not self._audience:
            return []
        joined = batch[0].frame if len(batch) == 1 else b"".join([record.frame for record in batch])
        return [Deliver(self._audience, joined, len(batch))]

    def subscribe(self, conn: int, who: Participant, frame: frames.Subscribe) -> frames.Subscribed:
        """Begin to serve a reader; a resume is whole, or refused with everything that is kept."""
        self.readers[conn] = who
        log = self.log
        answer = frames.Subscribed(frame.req, self.number, self.epoch, log.last, log.last)
        if frame.epoch:
            answer.after = frame.after
            if not self._is_ours(frame):
                answer.after, answer.recovered, answer.fresh, answer.skipped = log.start, False, True, -1
            elif frame.after < log.floor and frame.after != log.start:
                answer.after, answer.recovered, answer.skipped = log.start, False, log.floor - frame.after
                answer.fresh = log.start < frame.after
        self._set_behind(conn, answer.after)
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
        return n.isdecimal() and len(n) < 20 and self._recent.get((sender, int(n))) == frame.after

    def unsubscribe(self, conn: int) -> None:
        self.readers.pop(conn, None)
        self.behind.pop(conn, None)
        self._audience = None

    def hold(self, conn: int) -> None:
        """The connection's socket is full: from here on it is served from the log, once it has drained."""
        if conn in self.readers and conn not in self.behind:
            self._set_behind(conn, self.log.last)

    def _set_behind(self, conn: int, after: int) -> None:
        self.behind[conn] = after, self.log.floor
        self._audience = None

    def serve(self, conn: int, max_bytes: int) -> tuple[list[Effect], int]:
        """Give a reader that is behind its next portion; returns how many bytes that was."""
        effects: list[Effect] = []
        after, known = self.behind[conn]
        who = self.readers[conn]
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
        parts = [record.bytes_for(who) for record in records]
        if not parts and after < self.log.last:  # the newest are kept no more, but the order did go on
            parts = [frames.encode(frames.Advance(self.number, self.log.last))]
        if parts:
            effects.append(Deliver((conn,), b"".join(parts), len(parts)))
        reached = records[-1].offset if records else self.log.last
        if reached >= self.log.last:
            del self.behind[conn]
            self._audience = None
        else:
            self.behind[conn] = reached, known
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
        self._remember(record.id, entry.offset)
        return record

    def _remember(self, id_: Id, answer: int | EbusError) -> None:
        recent = self._recent
        recent[id_] = answer
        recent.move_to_end(id_)  # what is loaded may be older than what is there
        if len(recent) > self.limits.dedupe:
            recent.popitem(last=False)


def public(who: Participant) -> Participant:
    """What others may know of a participant: all but its groups."""
    return msgspec.structs.replace(who, groups=()) if who.groups else who


def message_id(id_: Id) -> str:
    return f"{id_[0]}-{id_[1]}"


def error_frame(error: EbusError, *, req: int = 0, id_: int = 0, bus: int = 0) -> frames.Error:
    return frames.Error(error.code, error.text, req, id_, bus, error.temporary, error.details)
