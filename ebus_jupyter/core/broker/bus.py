"""One bus in the broker: its log, its subscribers, and how messages reach them. (`admission` takes writes in.)

A message is delivered only once the backend has committed it: the log precedes the fan-out.

A subscriber is *live* or *catching up*. A live subscriber has received every message, and receives the next one together
with all other live subscribers, as the same bytes. A subscriber that resumes, or whose socket is full, catches up: it is an
offset in the log, and is served from there in portions until it is live. A slow subscriber therefore costs no memory and
delays no other.

Most buses are silent most of the time, and a broker may hold many of them: the parts that only a busy bus needs are
created on first use.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import BusSpec, Participant, message_id
from ebus_jupyter.errors import BackendError, Lagged

from .account import Account
from .admission import Admission
from .bus_info import BusInfo
from .bus_log import BusLog, Older
from .clock import WallClock
from .effects import Deliver, Effect, Send
from .entry import Entry
from .kept import Kept
from .presence import Presence
from .record import Record


class Subscriber(msgspec.Struct):
    """One subscriber.

    Attributes:
        who: The participant.
        after: The offset that it has reached, while it is catching up; None while it is live.
        floor: The log's floor when it began to catch up.
    """

    who: Participant
    after: int | None = None
    floor: int = 0


class BusState:
    """One bus. Its caller has checked that the participant may do what it asks for.

    Args:
        info: The fixed facts about the bus.
        kept: What the backend keeps of it.
        connections: The connection of each participant, by the participant's id.
        clock: The time of day.
        older: Reads the messages that are not in memory; None: all are.
        account: The account of the user who has made the bus: it holds the log.

    Attributes:
        creator: On an unnamed bus, the id of the participant that made it: the bus lives as long as it is here.
        creator_kernel: The id of the kernel that it is; else "".
        idle_since: The time at which the bus was last opened or left.
        due: The time of its next `tick`; None where nothing waits for time.
    """

    __slots__ = (
        "__weakref__",
        "_admission",
        "_clock",
        "_connections",
        "_latest",
        "_live",
        "account",
        "creator",
        "creator_kernel",
        "due",
        "epoch",
        "idle_since",
        "info",
        "log",
        "presence",
        "subscribers",
    )

    def __init__(
        self,
        info: BusInfo,
        kept: Kept,
        connections: Mapping[str, int],
        clock: WallClock,
        account: Account,
        older: Older | None = None,
    ) -> None:
        self.info = info
        self.due: float | None = None
        self._clock = clock
        self._latest = kept.entries[-1].time if kept.entries else 0.0
        self.account = account
        self.epoch = kept.epoch
        self.creator = self.creator_kernel = ""
        self.idle_since = 0.0
        self.presence = Presence()
        self.subscribers: dict[int, Subscriber] = {}
        self._connections = connections
        self._live: tuple[int, ...] | None = None  # the connections of live subscribers; None: to be found again
        self._admission: Admission | None = None
        self.log = BusLog(info, older)
        self.log.load(kept)
        if kept.answers or kept.recent:
            self.admission.answers.load(kept.answers, kept.recent)
        account.add("log", self.log.bytes)

    def alter(self, spec: BusSpec) -> None:
        """The backend has another spec for the bus. A log that may hold more holds what comes from now on."""
        self.info.alter(spec)
        self.log.altered()

    @property
    def admission(self) -> Admission:
        """Takes its writes in."""
        if self._admission is None:
            self._admission = Admission(self.info, self.log, self._connections, self._clock, self.account, self._latest)
        return self._admission

    @property
    def in_use(self) -> bool:
        """True if a participant is here, or a write is in flight."""
        return bool(self.presence or self.subscribers or self._has_writes_in_flight)

    @property
    def _has_writes_in_flight(self) -> bool:
        return self._admission is not None and not self._admission.is_idle

    def came_again(self, sender: str) -> None:
        """See `Admission.came_again`."""
        if self._admission is not None:
            self._admission.came_again(sender)

    # --- writes -----------------------------------------------------------------------------------------------------

    def commit(self, entries: list[Entry]) -> list[Effect]:
        """The backend has committed these entries: deliver them, and admit the writes that waited for them."""
        effects: list[Effect] = []
        batch: list[Record] = []
        admission = self.admission
        before = self.log.bytes
        for entry in entries:
            if entry.offset <= self.log.last:
                continue  # reported twice, or part of what was loaded
            record = self._add(entry)
            admission.committed(record.id, entry.offset, entry.sender)
            if record.hidden and self.subscribers:
                effects += self._deliver(batch)
                batch = []
                effects += [
                    Deliver((conn,), record.bytes_for(subscriber.who), 1)
                    for conn, subscriber in self.subscribers.items()
                    if subscriber.after is None
                ]
            else:
                batch.append(record)
        self._count_log(before)
        effects += self._deliver(batch)
        effects += admission.resume_waiting()
        return effects

    def _count_log(self, before: int) -> None:
        """Count the bytes of the log, which had ``before``. Where its maker holds too many, it does not grow."""
        log, account = self.log, self.account
        grown = log.bytes
        if grown == before:
            return
        account.add("log", grown - before)
        if grown > before and (excess := account.excess("log")) > 0:
            log.shrink(int(max(before, log.bytes - excess)))
            account.add("log", log.bytes - grown)

    def release(self) -> None:
        """The bus is unloaded: give back what it holds for others."""
        self.account.add("log", -self.log.bytes)
        self.presence.clear()
        if self._admission is not None:
            self._admission.release()

    def _deliver(self, batch: list[Record]) -> list[Effect]:
        if self._live is None:
            self._live = tuple(conn for conn, subscriber in self.subscribers.items() if subscriber.after is None)
        if not batch or not self._live:
            return []
        joined = batch[0].frame if len(batch) == 1 else b"".join([record.frame for record in batch])
        return [Deliver(self._live, joined, len(batch))]

    def _add(self, entry: Entry) -> Record:
        """Encode an entry for its subscribers, and append it to the log."""
        record = Record.of(self.info, entry)
        self.log.append(record, key=entry.key, deleted=entry.deleted)
        return record

    # --- the owner's filter -----------------------------------------------------------------------------------------

    @property
    def filter_owner(self) -> int | None:
        """The connection that runs the owner's filter; None where none does."""
        filter_ = self._admission.filter if self._admission is not None else None
        return filter_.owners[0] if filter_ is not None and filter_.owners else None

    def add_filter_owner(self, conn: int) -> None:
        """``conn`` offers to run the owner's filter; it does so once those before it have gone."""
        filter_ = self.admission.filter
        if filter_ is not None and conn not in filter_.owners:
            filter_.owners += (conn,)

    def remove_filter_owner(self, conn: int, now: float) -> list[Effect]:
        """``conn`` runs the owner's filter no longer. The writes that it was asked about are refused."""
        admission = self._admission
        if admission is None or admission.filter is None or conn not in admission.filter.owners:
            return []
        was_first = admission.filter.owners[0] == conn
        admission.filter.owners = tuple(owner for owner in admission.filter.owners if owner != conn)
        if not was_first:
            return []
        return [*admission.expire(now, "has lost its kernel"), *admission.resume_waiting()]

    # --- time -------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Refuse the writes whose filter took too long, and drop the participants that were away for too long."""
        admission = self._admission
        effects = [] if admission is None else [*admission.expire(now), *admission.resume_waiting()]
        self.presence.expire(now - self.info.limits.gone_seconds)
        return effects

    def next_deadline(self) -> float | None:
        """The time at which `tick` has something to do; None where nothing waits for time."""
        away = self.presence.away_since
        leaves = None if away is None else away + self.info.limits.gone_seconds
        filter_ = None if self._admission is None else self._admission.filter
        asked = None if filter_ is None else filter_.next_deadline
        return asked if leaves is None else leaves if asked is None else min(asked, leaves)

    # --- subscribers ------------------------------------------------------------------------------------------------

    def subscribe(self, conn: int, who: Participant, frame: frames.Subscribe) -> frames.Subscribed:
        """Add a subscriber. A resume is whole, or is refused and everything that is kept is sent instead."""
        log = self.log
        answer = frames.Subscribed(frame.req, self.info.number, self.epoch, log.last, log.last)
        if frame.epoch:
            answer.after = frame.after
            if not self._continues_history(frame):
                answer.after, answer.recovered, answer.fresh, answer.skipped = log.start, False, True, -1
            elif frame.after < log.floor and frame.after != log.start:
                answer.after, answer.recovered, answer.skipped = log.start, False, log.floor - frame.after
                answer.fresh = log.start < frame.after
        self.subscribers[conn] = Subscriber(who, answer.after, log.floor)
        self._live = None
        return answer

    def _continues_history(self, frame: frames.Subscribe) -> bool:
        """True if the subscriber's last message is part of this history.

        The epoch alone does not tell: a store that was restored from an older copy assigns the same offsets again. The
        message's id does.
        """
        if frame.epoch != self.epoch or not 0 <= frame.after <= self.log.last:
            return False
        offset = frame.id_offset or frame.after
        if offset <= 0 or offset < self.log.floor or not frame.last_id:
            return True
        record = self.log.at(offset)
        if record is not None:
            return frame.last_id == message_id(record.id)
        # The message is not in the log: a newer one has replaced it, or it is of another history.
        sender, _, n = frame.last_id.rpartition("-")
        return n.isdecimal() and len(n) < 20 and self.admission.offset_of((sender, int(n))) == offset

    def unsubscribe(self, conn: int) -> None:
        self.subscribers.pop(conn, None)
        self._live = None

    def is_catching_up(self, conn: int) -> bool:
        """True if there are messages in the log that the subscriber has not received."""
        subscriber = self.subscribers.get(conn)
        return subscriber is not None and subscriber.after is not None

    def pause(self, conn: int) -> bool:
        """Deliver nothing more to ``conn``: its socket is full. It catches up from the log later.

        Returns:
            Whether ``conn`` is a subscriber.
        """
        subscriber = self.subscribers.get(conn)
        if subscriber is not None and subscriber.after is None:
            subscriber.after, subscriber.floor = self.log.last, self.log.floor
            self._live = None
        return subscriber is not None

    def serve(self, conn: int, max_bytes: int) -> tuple[list[Effect], int]:
        """Send the next portion to a subscriber that is catching up.

        Returns:
            The effects, and the number of bytes of messages that they send. One message is sent at least.
        """
        effects: list[Effect] = []
        subscriber = self.subscribers[conn]
        after, floor = subscriber.after, subscriber.floor
        assert after is not None, "it is live"
        try:
            records = self._read(after, floor, max_bytes)
        except Lagged as lag:
            notice: frames.Lag | frames.Subscribed = frames.Lag(self.info.number, lag.skipped, lag.resume_after)
            if lag.resume_after < after:  # with keys: a snapshot follows
                notice = frames.Subscribed(
                    0, self.info.number, self.epoch, lag.resume_after, self.log.last, False, lag.skipped, True
                )
            effects.append(Send(conn, frames.encode(notice)))
            after, floor = lag.resume_after, self.log.floor
            records = self.log.read(after, max_bytes=max_bytes)
        parts = [record.bytes_for(subscriber.who) for record in records]
        if not parts and after < self.log.last:  # the newest messages are not kept, but their offsets were assigned
            parts = [frames.encode(frames.Advance(self.info.number, self.log.last))]
        if parts:
            effects.append(Deliver((conn,), b"".join(parts), len(parts)))
        reached = records[-1].offset if records else self.log.last
        if reached >= self.log.last:
            subscriber.after = self._live = None
        else:
            subscriber.after, subscriber.floor = reached, floor
        return effects, sum(map(len, parts))

    def _read(self, after: int, floor: int, max_bytes: int) -> list[Record]:
        try:
            return self.log.read(after, known=floor, max_bytes=max_bytes)
        except BackendError:  # what is in memory can still be served
            resume_after = self.log.in_memory_after
            raise Lagged(skipped=resume_after - after, resume_after=resume_after) from None

    def page(self, who: Participant, frame: frames.Fetch) -> frames.Page:
        """A page of history.

        On a bus with keys the client compares the page's ``floor`` with its own: it alone knows whether it is reading a
        snapshot.
        """
        log = self.log
        until = min(frame.until or log.last, log.last)
        after = frame.after
        if after < 0:  # the last of those that the reader may see
            after = log.before_last(-after, until, lambda record: record.is_visible_to(who))
        after = max(after, log.start)
        try:
            kept = log.read(after, known=log.floor, max_bytes=self.info.limits.page_bytes)
        except Lagged as lag:  # the backend has dropped more than was known here
            after = lag.resume_after
            kept = log.read(after, known=log.floor, max_bytes=self.info.limits.page_bytes)
        records = [record for record in kept if record.offset <= until]
        more = bool(kept) and len(records) == len(kept) and kept[-1].offset < until
        through = records[-1].offset if more else max(until, after)
        messages = [msgspec.Raw(record.frame) for record in records if record.is_visible_to(who)]
        return frames.Page(frame.req, self.info.number, self.epoch, through, log.floor, more, messages)
