"""Admission: the path of a write from its writer to the backend.

A write is checked in this order, and refused at the first check that fails: size, recipients, key, type, room for the
key, expected offset, filter. A write that passes becomes an `Append` effect.

Each write is decided once. Its answer, an offset or an error, is remembered (`answers`), and a retry receives the same
answer. (An error of the backend is remembered for the connection that was told of it: a retry over another one may succeed.)

A compare-and-set write (``expect=``), and a write that may need one of the last free keys, can only be checked once every
write in flight has its offset. It waits until then, and later writes wait behind it: each sender's writes keep their order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Id
from ebus_jupyter.errors import BackendError, Conflict, EbusError, RateLimited, TooLarge, TypeMismatch

from .account import Account
from .answers import Answers, ClientAnswers, repeated
from .bus_info import BusInfo
from .bus_log import BusLog
from .clock import WallClock
from .effects import Append, Effect, Send
from .entry import Entry, Writer, recipients_size, sender_key
from .filter_queue import FilterQueue, Pending

_WRITE_BYTES = 256
"""The bytes that a write in flight takes besides its value."""


class Admission:
    """The writes in flight to one bus, and the answers to its most recent ones.

    Args:
        bus: The bus.
        log: Its committed messages.
        connections: The connection of each participant, by the participant's id.
        clock: The time of day, for the stamps of messages.
        maker: The account of the user who has made the bus.
        latest: The stamp of the bus's last message. Stamps never go back, even where the time of day does.

    Attributes:
        answers: What became of each client's writes.
        in_flight: The writes that were admitted and have no offset yet, with their bytes and the accounts that hold them.
        filter: The queue before the bus's filter; None where it has no filter.
    """

    __slots__ = (
        "__weakref__",
        "_bus",
        "_clock",
        "_connections",
        "_exclusive",
        "_latest",
        "_log",
        "_maker",
        "_waiting",
        "answers",
        "filter",
        "in_flight",
    )

    def __init__(
        self,
        bus: BusInfo,
        log: BusLog,
        connections: Mapping[str, int],
        clock: WallClock,
        maker: Account,
        latest: float = 0.0,
    ) -> None:
        self._bus = bus
        self._log = log
        self._connections = connections
        self._clock = clock
        self._latest = latest
        self._maker = maker
        self.answers = Answers(bus.limits.dedupe, bus.limits.dedupe_bytes, connections)
        self._waiting: OrderedDict[Id, tuple[Writer, frames.Publish, float, int]] = OrderedDict()
        self._exclusive = False  # a filtered compare-and-set is in flight: nothing may overtake it
        self.in_flight: dict[Id, tuple[Account, int]] = {}
        self.filter = None if bus.spec.filter is None else FilterQueue(bus)

    @property
    def is_idle(self) -> bool:
        """True if no write is in flight or waiting."""
        return not self.in_flight and not self._waiting

    # --- a write comes in -------------------------------------------------------------------------------------------

    def answer_retry(self, sender: str, frame: frames.Publish) -> list[Effect] | None:
        """Answer a write that was seen before.

        Returns:
            The first attempt's answer; nothing while the first attempt has none; None where the write is new.
        """
        client = self.answers.get(sender)
        if client is None or frame.id > client.highest:
            return None
        offset = client.offset_of(frame.id)
        if offset is not None:
            return self._send(sender, frames.Ok(self._bus.number, frame.id, offset))
        id_ = sender, frame.id
        if id_ in self.in_flight or id_ in self._waiting:
            return []
        code = client.refusal_of(frame.id)
        if code is None:
            return None
        error = repeated(code, self._bus.name, self._log.offset_of(frame.key))
        return self._send(sender, frames.refusal(error, id_=frame.id, bus=self._bus.number))

    def publish(self, writer: Writer, frame: frames.Publish, now: float) -> list[Effect]:
        """Take in a new write.

        Raises:
            EbusError: The write is refused.
        """
        try:
            if self._waiting or (self.in_flight and self._must_wait(frame)):
                if len(self._waiting) >= self._bus.limits.pending:
                    raise self._too_many_waiting()
                size = _size(frame)
                writer.account.take("pending", size)
                frame.value = msgspec.Raw(bytes(frame.value))  # a copy: it may be a part of a large message
                self._waiting[writer.id, frame.id] = writer, frame, now, size
                self._arrived(writer, frame.id)
                return []
            return self._admit(writer, frame, now)
        except RateLimited:
            raise  # nothing was decided: the same write may come again
        except EbusError as error:
            self._record(writer).refuse(frame.id, error.code)  # another copy of it may still be on its way
            raise

    def _record(self, writer: Writer) -> ClientAnswers:
        return self.answers.of(writer.who.id, writer.who.user)

    def _arrived(self, writer: Writer, id_: int) -> None:
        client = self.answers.get(writer.who.id) or self._record(writer)
        if id_ > client.highest:
            client.highest = id_

    def _must_wait(self, frame: frames.Publish) -> bool:
        """True if ``frame`` can't be checked before the writes in flight have their offsets."""
        return bool(self.in_flight) and (
            self._exclusive or frame.expect is not None or (frame.key is not None and self._may_be_full(frame))
        )

    def _may_be_full(self, frame: frames.Publish) -> bool:
        return not frame.deleted and self._log.full_for(frame.key, others=len(self.in_flight))

    def _admit(self, writer: Writer, frame: frames.Publish, now: float) -> list[Effect]:
        self._check(frame)
        account, size = writer.account, _size(frame)
        account.take("pending", size)
        try:
            return self._submit(writer, frame, now, (account, size))
        except EbusError:
            account.add("pending", -size)
            raise

    def _submit(self, writer: Writer, frame: frames.Publish, now: float, held: tuple[Account, int]) -> list[Effect]:
        filter_ = self.filter
        self._exclusive = frame.expect is not None and filter_ is not None
        stamp = self._clock.stamp(now)
        if stamp > self._latest:
            self._latest = stamp
        entry = Entry(
            bus=self._bus.uri,
            id=frame.id,
            time=self._latest,
            sender=writer.encoded,
            value=bytes(frames.NIL if frame.deleted else frame.value),
            key=frame.key,
            deleted=frame.deleted,
            to=None if frame.to is None else tuple(frame.to),
            echo=frame.echo,
        )
        if filter_ is None:
            self.in_flight[writer.who.id, frame.id] = held
            self._arrived(writer, frame.id)
            return [Append(entry)]
        filter_.check_available()
        if filter_.is_full_for(writer.id):
            raise self._too_many_waiting()
        self.in_flight[writer.id, frame.id] = held
        self._arrived(writer, frame.id)
        return [filter_.submit(entry, writer, now)]

    def _check(self, frame: frames.Publish) -> None:
        bus = self._bus
        limits = bus.limits
        size = len(frame.value)
        if size > limits.value_bytes:
            raise TooLarge(
                f"{bus.name}: the value has {size} bytes, at most {limits.value_bytes} may travel (the server's limit "
                "`value_bytes`). Send it in pieces, or raise the limit.",
                limit="value_bytes",
            )
        if (frame.to is not None or not frame.echo) and bus.spec.retain != "log":
            option = "echo=False" if frame.to is None else "to="
            raise TypeMismatch(
                f"{bus.name} retains {bus.spec.retain!r}: everyone holds the same state, so {option} is not possible there. "
                "Use a bus that retains a log.",
                path="$",
                expected="a write for everyone",
            )
        if frame.to is not None:
            if len(frame.to) > limits.recipients:
                raise TooLarge(
                    f"{bus.name}: at most {limits.recipients} users can be named in to=.", limit="recipients"
                )
            if any(len(user) > limits.name_chars for user in frame.to):
                raise TooLarge(
                    f"{bus.name}: a user in to= has at most {limits.name_chars} characters.", limit="name_chars"
                )
        has_keys = bus.spec.retain == "keys"
        if has_keys is (frame.key is None):
            raise TypeMismatch(
                f"{bus.name} {'retains by key: say which with key=' if has_keys else 'has no keys: leave out key='}.",
                path="$",
                expected="key",
            )
        if frame.key is not None and len(frame.key) > limits.name_chars:
            raise TooLarge(f"{bus.name}: a key has at most {limits.name_chars} characters.", limit="name_chars")
        if frame.deleted:
            if not has_keys:
                raise TypeMismatch(f"{bus.name} has no keys to remove.", path="$", expected="key")
        else:
            bus.schema.check(frame.value, bus.name)
            if has_keys and self._log.full_for(frame.key, size):
                raise TooLarge(
                    f"{bus.name} is full ({bus.spec.size} keys, {limits.log_bytes} bytes at most). Remove a key first.",
                    limit="size",
                )
            if has_keys and self._maker.excess("log") > 0 and self._log.grows_by(frame.key, size):
                self._maker.check("log", size)
        if frame.expect is not None:
            self._check_expected(frame)

    def _check_expected(self, frame: frames.Publish) -> None:
        actual = self._log.offset_of(frame.key)
        if actual != frame.expect:
            what = self._bus.name if frame.key is None else f"{self._bus.name}[{frame.key!r}]"
            raise Conflict(
                f"{what} is at offset {actual}, not {frame.expect}: someone wrote first. Read again and retry.",
                actual=actual,
            )

    def _too_many_waiting(self) -> RateLimited:
        pending = self._bus.limits.pending
        return RateLimited(
            f"{self._bus.name}: {pending} writes are waiting already (the server's limit `pending`). Await acks as you write.",
            retry_after=1.0,
            limit="pending",
        )

    def _landed(self, id_: Id) -> None:
        held = self.in_flight.pop(id_, None)
        if held is not None:
            held[0].add("pending", -held[1])

    def release(self) -> None:
        """The bus is unloaded: give back what its writes hold."""
        for account, size in self.in_flight.values():
            account.add("pending", -size)
        for writer, _, _, size in self._waiting.values():
            writer.account.add("pending", -size)
        self.in_flight.clear()
        self._waiting.clear()

    # --- a write is decided -----------------------------------------------------------------------------------------

    def committed(self, id_: Id, offset: int, sender: bytes) -> None:
        """The write is in the log."""
        self._landed(id_)
        self.accepted(id_, offset, sender)

    def refuse(self, sender: str, id_: int, error: EbusError) -> list[Effect]:
        """Refuse a write in flight, and tell its writer why."""
        self._landed((sender, id_))
        client = self.answers.get(sender)
        if client is not None and not isinstance(error, RateLimited):
            # A retry must not be accepted later: it would come behind the sender's later writes.
            client.refuse(id_, error.code)
        return self._send(sender, frames.refusal(error, id_=id_, bus=self._bus.number))

    def came_again(self, sender: str) -> None:
        """A client has opened the bus over another connection. A write that the log only failed to keep may be tried again.

        Over the same connection it may not: whatever comes there is a second copy of what its writer was told of. Nor while
        a write of the same client is under way: it may be a later one, and the retry would come behind it.
        """
        client = self.answers.get(sender)
        if client is not None and not any(id_[0] == sender for ids in (self.in_flight, self._waiting) for id_ in ids):
            client.forgive(BackendError.code)

    def resume_waiting(self) -> list[Effect]:
        """Admit the waiting writes that can be checked now. To be called whenever a write was decided."""
        effects: list[Effect] = []
        while self._waiting and not self._must_wait(next(iter(self._waiting.values()))[1]):
            _, (writer, frame, now, size) = self._waiting.popitem(last=False)
            writer.account.add("pending", -size)
            try:
                effects += self._admit(writer, frame, now)
            except RateLimited:  # until there is room again: later writes of its sender wait behind it
                writer.account.add("pending", size)
                self._waiting[writer.id, frame.id] = writer, frame, now, size
                self._waiting.move_to_end((writer.id, frame.id), last=False)
                break
            except EbusError as error:
                effects += self.refuse(writer.id, frame.id, error)
        return effects

    def filtered(self, request: int, value: bytes, error: EbusError | str | None) -> list[Effect]:
        """Take in the filter's answer; see `FilterQueue.answered`."""
        return [] if self.filter is None else self._decided(self.filter.answered(request, value, error))

    def expire(self, now: float, reason: str = "") -> list[Effect]:
        """Refuse the writes that the filter did not answer in time; with a ``reason``, all that it was asked about."""
        return [] if self.filter is None else self._decided(self.filter.expire(now, reason))

    def _decided(self, writes: Iterable[Pending]) -> list[Effect]:
        effects: list[Effect] = []
        for write in writes:
            if write.error is None:
                effects.append(Append(write.entry))
            else:
                effects += self.refuse(write.sender, write.entry.id, write.error)
        return effects

    def _send(self, participant: str, frame: frames.Ok | frames.Error) -> list[Effect]:
        conn = self._connections.get(participant)
        return [] if conn is None else [Send(conn, frames.encode(frame))]

    # --- memory -----------------------------------------------------------------------------------------------------

    def offset_of(self, id_: Id) -> int | None:
        """The offset that a write was given; None where it is not remembered, or was refused."""
        client = self.answers.get(id_[0])
        return None if client is None else client.offset_of(id_[1])

    def accepted(self, id_: Id, offset: int, sender: bytes) -> None:
        """Remember that a write was accepted. ``sender`` is the encoded participant."""
        client = self.answers.get(id_[0]) or self.answers.of(*sender_key(sender))
        self.answers.accept(id_[0], client, id_[1], offset)


def _size(frame: frames.Publish) -> int:
    """The bytes that a write in flight counts."""
    return len(frame.value) + _WRITE_BYTES + (0 if frame.to is None else recipients_size(frame.to))
