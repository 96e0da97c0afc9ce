"""The way in: what a write goes through before it is the backend's.

It is checked in this order, and refused at the first check that fails: known already (a retry: answered with its first
offset), size, type, key, expected offset, filter. What passes becomes an `Append`.

A write on the condition of an offset, or on one of the last free keys, waits for those on their way: only then can be
told what it meets. Others behind it wait with it, so that each sender's writes keep their order.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import OWNER, Id, Participant, public
from ebus_jupyter.errors import (
    BackendError,
    Conflict,
    EbusError,
    Filtered,
    FilterUnavailable,
    RateLimited,
    TooLarge,
    TypeMismatch,
)

from .effects import Append, Effect, Filter, Send
from .entry import Entry

if TYPE_CHECKING:
    from .bus import BusState


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


class Admission:
    """What is on its way into one bus, and the answers that its last writes got."""

    __slots__ = ("_alone", "_asked", "_bus", "_lanes", "_last_ask", "_recent", "_waiting", "in_flight")

    def __init__(self, bus: BusState) -> None:
        self._bus = bus
        self.in_flight: dict[Id, None] = {}
        self._recent: OrderedDict[Id, int | EbusError] = OrderedDict()  # the offset, or why it was refused
        self._lanes: dict[str, deque[Pending]] = {}
        self._asked: dict[int, tuple[str, Pending]] = {}
        self._last_ask = 0
        self._waiting: OrderedDict[Id, tuple[Writer, frames.Publish, float]] = OrderedDict()
        self._alone = False  # what is in flight was let in on the condition that nothing overtakes it

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self.in_flight and not self._waiting

    def offset_of(self, id_: Id) -> int | None:
        """The offset that a write got; None where it is not known, or got none."""
        found = self._recent.get(id_)
        return found if isinstance(found, int) else None

    def publish(self, writer: Writer, frame: frames.Publish, now: float) -> list[Effect]:
        """Take a write that is not `known`. Raises what refuses it."""
        try:
            if self._waiting or self._must_wait(frame):
                if len(self._waiting) >= self._bus.limits.pending:
                    raise self._crowded()
                self._waiting[writer.id, frame.id] = writer, frame, now
                return []
            return self._take(writer, frame, now)
        except EbusError as error:
            self.keep((writer.id, frame.id), error)  # another copy of it may still be on its way
            raise

    def known(self, id_: Id) -> list[Effect] | None:
        """The answer to a retry: what it was the first time, or nothing yet; None where the write is new."""
        answer = self._recent.get(id_)
        if answer is None:
            # One on its way will be answered when the first attempt is.
            return [] if id_ in self.in_flight or id_ in self._waiting else None
        if isinstance(answer, EbusError):
            return self._answer(id_[0], frames.refusal(answer, id_=id_[1], bus=self._bus.number))
        return self._answer(id_[0], frames.Ok(self._bus.number, id_[1], answer))

    def _must_wait(self, frame: frames.Publish) -> bool:
        """Whether the last offset, or the last free key, can't be told before the writes on their way have their offsets."""
        return bool(self.in_flight) and (
            self._alone or frame.expect is not None or (frame.key is not None and self._may_be_full(frame))
        )

    def _take(self, writer: Writer, frame: frames.Publish, now: float) -> list[Effect]:
        bus = self._bus
        self._check(frame)
        self._alone = frame.expect is not None and bus.spec.filter is not None
        entry = Entry(
            bus=bus.uri,
            id=frame.id,
            time=now,
            sender=writer.encoded,
            value=bytes(frames.NIL if frame.deleted else frame.value),
            key=frame.key,
            deleted=frame.deleted,
            to=None if frame.to is None else tuple(frame.to),
            echo=frame.echo,
        )
        if bus.spec.filter is not None:
            return self._ask(entry, writer, now)
        return self._append(writer.id, entry)

    def _may_be_full(self, frame: frames.Publish) -> bool:
        return not frame.deleted and self._bus.log.full_for(frame.key, others=len(self.in_flight))

    def _check(self, frame: frames.Publish) -> None:
        bus = self._bus
        size = len(frame.value)
        if size > bus.limits.value_bytes:
            raise TooLarge(
                f"{bus.name}: the value has {size} bytes, at most {bus.limits.value_bytes} may travel (the server's limit "
                "`value_bytes`). Send it in pieces, or raise the limit.",
                limit="value_bytes",
            )
        if frame.to is not None and len(frame.to) > bus.limits.recipients:
            raise TooLarge(
                f"{bus.name}: at most {bus.limits.recipients} users can be named in to=.", limit="recipients"
            )
        if frame.to is not None and any(len(user) > bus.limits.name_chars for user in frame.to):
            raise TooLarge(
                f"{bus.name}: a user in to= has at most {bus.limits.name_chars} characters.", limit="name_chars"
            )
        keyed = bus.spec.retain == "keys"
        if keyed is (frame.key is None):
            raise TypeMismatch(
                f"{bus.name} {'retains by key: say which with key=' if keyed else 'has no keys: leave out key='}.",
                path="$",
                expected="key",
            )
        if frame.key is not None and len(frame.key) > bus.limits.name_chars:
            raise TooLarge(f"{bus.name}: a key has at most {bus.limits.name_chars} characters.", limit="name_chars")
        if frame.deleted:
            if not keyed:
                raise TypeMismatch(f"{bus.name} has no keys to remove.", path="$", expected="key")
        else:
            bus.validator.check(frame.value, bus.name)
            if keyed and bus.log.full_for(frame.key, size):
                raise TooLarge(
                    f"{bus.name} is full ({bus.spec.size} keys, {bus.limits.log_bytes} bytes at most). Remove a key first.",
                    limit="size",
                )
        if frame.expect is not None:
            actual = bus.log.offset_of(frame.key)
            if actual != frame.expect:
                what = bus.name if frame.key is None else f"{bus.name}[{frame.key!r}]"
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

    def landed(self, id_: Id, offset: int) -> None:
        """The backend reports this write: it is in the log."""
        self.in_flight.pop(id_, None)
        self.keep(id_, offset)

    def refuse(self, writer: str, id_: int, error: EbusError) -> list[Effect]:
        """Tell the writer why a write that it waits for is not accepted; a retry would come behind its later writes."""
        self.in_flight.pop((writer, id_), None)
        if not isinstance(error, BackendError):  # what could not be kept may be tried again: nothing was decided
            self.keep((writer, id_), error)
        return self._answer(writer, frames.refusal(error, id_=id_, bus=self._bus.number))

    def _answer(self, writer: str, frame: frames.Ok | frames.Error) -> list[Effect]:
        conn = self._bus.connections.get(writer)
        return [] if conn is None else [Send(conn, frames.encode(frame))]

    def _crowded(self) -> RateLimited:
        bus = self._bus
        return RateLimited(
            f"{bus.name}: {bus.limits.pending} writes are waiting already (the server's limit `pending`). "
            "Await acks as you write.",
            retry_after=1.0,
            limit="pending",
        )

    # --- filtering --------------------------------------------------------------------------------------------------

    def _ask(self, entry: Entry, writer: Writer, now: float) -> list[Effect]:
        """Send a write to the filter. Each sender has a lane of its own, so that its writes keep their order."""
        bus = self._bus
        if bus.spec.filter == OWNER and not bus.owners:
            raise FilterUnavailable(
                f"{bus.name} is filtered by a kernel that is away; nothing is accepted unfiltered. Try again when it is back, "
                "or run the cell that makes the bus."
            )
        lane = self._lanes.setdefault(writer.id, deque())
        if len(lane) >= bus.limits.pending:
            raise self._crowded()
        pending = Pending(entry, now + bus.limits.filter_seconds)
        lane.append(pending)
        self.in_flight[writer.id, entry.id] = None
        self._last_ask = ask = self._last_ask + 1
        self._asked[ask] = (writer.id, pending)
        if bus.spec.filter == OWNER:
            question = frames.FilterAsk(bus.number, ask, msgspec.Raw(entry.value), public(writer.who))
            return [Send(bus.owners[0], frames.encode(question))]
        assert bus.spec.filter is not None
        return [Filter(bus.address, ask, bus.spec.filter, entry.value, writer.who)]

    def filtered(self, ask: int, value: bytes, error: EbusError | str | None) -> list[Effect]:
        """The filter's verdict: the value to keep, a reason to refuse it, or why the filter itself failed."""
        writer, pending = self._asked.pop(ask, (None, None))
        if writer is None or pending is None:
            return []  # too late: it was refused when its time was up
        if isinstance(error, str):
            pending.refused = Filtered(f"{self._bus.name}: {error}", reason=error)
        elif error is not None:
            pending.refused = error
        else:
            pending.value = value
        return self._drain_lane(writer)

    def _drain_lane(self, writer: str) -> list[Effect]:
        bus = self._bus
        effects: list[Effect] = []
        lane = self._lanes.get(writer)
        while lane and (lane[0].value is not None or lane[0].refused is not None):
            pending = lane.popleft()
            error = pending.refused
            if error is None:
                assert pending.value is not None
                try:
                    if len(pending.value) > bus.limits.value_bytes:
                        raise TooLarge(f"{bus.name}: the filter's answer is too large.", limit="value_bytes")
                    if not pending.entry.deleted:
                        bus.emits.check(pending.value, f"{bus.name} (its filter's answer)")
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

    def expire(self, now: float, reason: str = "") -> list[Effect]:
        """Refuse what the filter has not answered in time; with a ``reason``, everything it was asked."""
        bus = self._bus
        effects: list[Effect] = []
        for ask, (writer, pending) in list(self._asked.items()):
            if reason or pending.deadline <= now:
                why = reason or f"did not answer within {bus.limits.filter_seconds:g} s"
                del self._asked[ask]
                pending.refused = FilterUnavailable(f"{bus.name}: the filter {why}; the write was not accepted.")
                effects += self._drain_lane(writer)
        return effects

    # --- memory -----------------------------------------------------------------------------------------------------

    def keep(self, id_: Id, answer: int | EbusError) -> None:
        """Remember what a write got: its offset, or why it was refused."""
        recent = self._recent
        held = len(recent)
        recent[id_] = answer
        if len(recent) == held:
            recent.move_to_end(id_)  # it was there: what is loaded may be older than that
        elif held >= self._bus.limits.dedupe:
            recent.popitem(last=False)
