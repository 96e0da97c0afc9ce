"""The answers to the writes of one bus, by client: what makes a retry the same write as the first attempt.

Each client instance has a record of its own, which its own writes alone push answers out of, the oldest first. A client has
at most 10,000 writes without an answer (`Session.max_pending`), and a record holds that many (`Limits.dedupe`), however long
the line was cut and whatever others write meanwhile. What a record has forgotten is never accepted again: it knows up to
which id it has forgotten.

A record is small: adjacent writes are one *run*, and older runs are packed into *chunks* of a few bytes for each run. All
records of a bus have `Limits.dedupe_bytes`. Over that the user who has the most of them gives way: first the older answers
of its largest record, then whole records, of the clients that are gone before those that are here. Only the retry of a
client whose whole record went, because its user had thousands of newer ones, may be accepted twice.

Refusals are kept as ranges of ids with the error's code, in memory alone. A write that is not known counts as refused where
later writes of its client were accepted: it is too late for it. So a client's writes never change places, whatever became of
their answers: after a restart, or where the log failed and nothing was decided.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import msgspec

from ebus_jupyter.errors import BY_CODE, Conflict, ConnectionLost, EbusError, Rejected

from .entry import Run

RUNS = 64
"""The runs in one chunk."""

REFUSALS = 64
"""The ranges of refused writes that a record holds."""

RECORD_BYTES = 300
"""The approximate memory of a record without chunks; a chunk has `CHUNK_BYTES` besides its own."""

CHUNK_BYTES = 150

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[int]).decode

_NO_DETAILS = {"path": "$", "expected": "", "reason": "", "limit": "", "retry_after": 0.0}
"""What a repeated refusal no longer knows."""


class Chunk(NamedTuple):
    """Runs of one client, packed.

    Attributes:
        low: The lowest id in it.
        high: The highest id in it.
        writes: The number of writes.
        packed: The runs.
    """

    low: int
    high: int
    writes: int
    packed: bytes

    @classmethod
    def of(cls, tail: list[int]) -> Chunk:
        """Pack runs: a flat list of ids, offsets and lengths."""
        packed: list[int] = []
        id_ = offset = 0
        for i in range(0, len(tail), 3):
            packed += (tail[i] - id_, tail[i + 1] - offset, tail[i + 2])
            id_, offset = tail[i] + tail[i + 2], tail[i + 1] + tail[i + 2]
        high = max(first + length - 1 for first, length in zip(tail[::3], tail[2::3], strict=True))
        return cls(min(tail[::3]), high, sum(tail[2::3]), _encode(packed))

    def unpack(self) -> list[int]:
        """The argument of `of`."""
        tail = _decode(self.packed)
        id_ = offset = 0
        for i in range(0, len(tail), 3):
            tail[i] += id_
            tail[i + 1] += offset
            id_, offset = tail[i] + tail[i + 2], tail[i + 1] + tail[i + 2]
        return tail


class KeptAnswers(NamedTuple):
    """The accepted writes of one client, as a backend keeps them.

    Attributes:
        sender: The participant's id.
        user: Its user.
        forgotten: The highest id whose answer may be forgotten.
        chunks: The runs, oldest first.
    """

    sender: str
    user: str
    forgotten: int
    chunks: list[Chunk]


class ClientAnswers:
    """The answers to one client's writes to one bus.

    Args:
        user: The client's user.

    Attributes:
        highest: The highest id that has arrived. A higher one is a new write.
        forgotten: The highest id whose answer may be forgotten.
        overtaken: Up to this id, a write that is not known as accepted was refused, or would come behind later ones.
        chunks: The older runs.
    """

    __slots__ = ("_refused", "_tail", "chunks", "forgotten", "highest", "overtaken", "user")

    def __init__(self, user: str) -> None:
        self.user = user
        self.highest = 0
        self.forgotten = 0
        self.overtaken = 0
        self.chunks: list[Chunk] = []
        self._tail: list[int] = []  # the newest runs: id, offset and length of each
        self._refused: list[list[int | str]] | None = None  # first id, last id and code of each range

    @property
    def size(self) -> int:
        """The memory that it takes, approximately."""
        return RECORD_BYTES + 32 * len(self._tail) + sum([CHUNK_BYTES + len(chunk.packed) for chunk in self.chunks])

    @property
    def last(self) -> int:
        """The offset of the last accepted write; 0 where there is none."""
        tail = self._tail or (self.chunks[-1].unpack() if self.chunks else [])
        return tail[-2] + tail[-1] - 1 if tail else 0

    def accept(self, id_: int, offset: int, length: int = 1) -> int:
        """Remember accepted writes.

        Returns:
            The bytes of a chunk that was made to hold them; 0 most often.
        """
        tail = self._tail
        if tail and tail[-3] + tail[-1] == id_ and tail[-2] + tail[-1] == offset:
            tail[-1] += length
            sealed = 0
        else:
            if tail and tail[-3] <= id_ < tail[-3] + tail[-1]:
                return 0  # an engine that servers share has acknowledged it, and reports it now
            sealed = self._seal() if len(tail) >= 3 * RUNS else 0
            self._tail += (id_, offset, length)
        last = id_ + length - 1
        if last > self.highest:
            self.highest = last
        if last > self.overtaken:
            self.overtaken = last
        return sealed

    def _seal(self) -> int:
        chunk = Chunk.of(self._tail)
        self.chunks.append(chunk)
        self._tail = []
        return CHUNK_BYTES + len(chunk.packed)

    def refuse(self, id_: int, code: str) -> None:
        """Remember a refused write."""
        if id_ > self.highest:
            self.highest = id_
        ranges = self._refused
        if ranges is None:
            ranges = self._refused = []
        if ranges and ranges[-1][1] == id_ - 1 and ranges[-1][2] == code:
            ranges[-1][1] = id_
            return
        ranges.append([id_, id_, code])
        if len(ranges) > REFUSALS:
            self.overtaken = max(self.overtaken, ranges.pop(0)[1])  # type: ignore[assignment]

    def forgive(self, code: str) -> None:
        """Forget the refusals with this code."""
        if self._refused is not None:
            self._refused = [refused for refused in self._refused if refused[2] != code] or None

    def offset_of(self, id_: int) -> int | None:
        """The offset of an accepted write; None where it is not known as one."""
        found = _find(self._tail, id_)
        if found is None:
            for chunk in reversed(self.chunks):
                if chunk.low <= id_ <= chunk.high and (found := _find(chunk.unpack(), id_)) is not None:
                    break
        return found

    def refusal_of(self, id_: int) -> str | None:
        """The code of a write that was not accepted; None where it is new. To be asked after `offset_of`."""
        for first, last, code in reversed(self._refused or ()):
            if first <= id_ <= last:  # type: ignore[operator]
                return str(code)
        if id_ <= self.forgotten:
            return ConnectionLost.code
        return Rejected.code if id_ <= self.overtaken else None

    def trim(self, writes: int) -> None:
        """Forget the chunks that are not needed to remember so many writes."""
        kept = sum(self._tail[2::3]) + sum([chunk.writes for chunk in self.chunks])
        while self.chunks and kept - self.chunks[0].writes >= writes:
            kept -= self.chunks[0].writes
            self._forget(1)

    def halve(self) -> None:
        """Forget the older half of the chunks."""
        self._forget((len(self.chunks) + 1) // 2)

    def _forget(self, number: int) -> None:
        self.forgotten = max([self.forgotten, *[chunk.high for chunk in self.chunks[:number]]])
        del self.chunks[:number]

    def load(self, kept: KeptAnswers) -> None:
        """Take over what a backend has kept, before anything else."""
        self.forgotten = max(self.forgotten, kept.forgotten)
        self.chunks = list(kept.chunks)
        self.highest = max([self.highest, self.forgotten, *[chunk.high for chunk in kept.chunks]])

    def keep(self, sender: str) -> KeptAnswers:
        """What `load` takes over."""
        tail = [Chunk.of(self._tail)] if self._tail else []
        return KeptAnswers(sender, self.user, self.forgotten, [*self.chunks, *tail])


class Answers:
    """The answers to the writes of one bus.

    Args:
        dedupe: The writes of one client that are remembered.
        max_bytes: The memory of all records.
        present: The ids of the participants that are connected.
    """

    __slots__ = ("_clients", "_dedupe", "_max_bytes", "_next_shrink", "_present", "_size")

    def __init__(self, dedupe: int, max_bytes: int, present: Container[str] = ()) -> None:
        self._dedupe = dedupe
        self._max_bytes = max_bytes
        self._present = present
        self._clients: dict[str, ClientAnswers] = {}
        self._size = 0
        self._next_shrink = (
            0  # where those who are here need more than the bound, they are not looked at for each write
        )

    def get(self, sender: str) -> ClientAnswers | None:
        """The record of a client; None where it has none."""
        return self._clients.get(sender)

    def of(self, sender: str, user: str) -> ClientAnswers:
        """The record of a client, a new one where it has none."""
        client = self._clients.get(sender)
        if client is None:
            client = self._clients[sender] = ClientAnswers(user)
            self._grow(RECORD_BYTES, sender)
        return client

    def accept(self, sender: str, client: ClientAnswers, id_: int, offset: int, length: int = 1) -> None:
        """Remember accepted writes of a client."""
        sealed = client.accept(id_, offset, length)
        if sealed:
            client.trim(self._dedupe)
            self._grow(sealed, sender)

    def _grow(self, size: int, sender: str) -> None:
        self._size += size
        if self._size > self._max_bytes and self._size > self._next_shrink:
            self._shrink(sender)

    def _shrink(self, latest: str) -> None:
        sizes = {sender: client.size for sender, client in self._clients.items()}
        self._size = sum(sizes.values())
        users: dict[str, list[str]] = {}
        for sender, client in self._clients.items():
            users.setdefault(client.user, []).append(sender)
        heap = [(-sum([sizes[sender] for sender in senders]), user) for user, senders in users.items()]
        heapify(heap)
        while heap and self._size > self._max_bytes - self._max_bytes // 8:
            negative, user = heappop(heap)
            largest = max(users[user], key=sizes.__getitem__)
            if self._clients[largest].chunks:
                self._clients[largest].halve()
                freed = sizes[largest] - self._clients[largest].size
                sizes[largest] -= freed
            else:
                gone = [sender for sender in users[user] if sender not in self._present and sender != latest]
                gone.sort(key=lambda sender: self._clients[sender].last)
                del gone[1 + len(gone) // 8 :]
                for sender in gone:
                    del self._clients[sender]
                    users[user].remove(sender)
                freed = sum([sizes[sender] for sender in gone])
            self._size -= freed
            if freed and users[user]:
                heappush(heap, (negative + freed, user))
        self._next_shrink = self._size + self._max_bytes // 8

    def load(self, kept: Iterable[KeptAnswers], recent: Iterable[Run]) -> None:
        """Take over what a backend has kept: the records, and the runs since they were made."""
        for record in kept:
            self.of(record.sender, record.user).load(record)
        for run in recent:
            self.accept(run.sender, self.of(run.sender, run.user), run.id, run.offset, run.length)
        for client in self._clients.values():
            client.overtaken = client.highest
        self._size = sum([client.size for client in self._clients.values()])
        if self._size > self._max_bytes:
            self._shrink("")

    def keep(self) -> list[KeptAnswers]:
        """What `load` takes over."""
        return [client.keep(sender) for sender, client in self._clients.items()]


def runs_of(kept: Iterable[KeptAnswers]) -> Iterator[Run]:
    """The runs in what a backend has kept."""
    for record in kept:
        for chunk in record.chunks:
            tail = chunk.unpack()
            for i in range(0, len(tail), 3):
                yield Run(record.sender, tail[i], tail[i + 1], tail[i + 2], record.user)


def repeated(code: str, bus: str, actual: int) -> EbusError:
    """The answer to a repeated write that was refused with ``code`` when it first came.

    Args:
        code: The error's code.
        bus: The bus's name.
        actual: The present offset of what the write expected another offset of.
    """
    if code == ConnectionLost.code:
        return ConnectionLost(
            f"{bus}: this write came before, and its answer is no longer remembered. It is not accepted again: read the bus "
            "to see whether it was."
        )
    details = {"actual": actual} if code == Conflict.code else _NO_DETAILS
    return BY_CODE.get(code, Rejected)(f"{bus}: this write came before, and was not accepted ({code}).", **details)


def _find(tail: list[int], id_: int) -> int | None:
    for i in range(len(tail) - 3, -1, -3):
        if tail[i] <= id_ < tail[i] + tail[i + 2]:
            return tail[i + 1] + id_ - tail[i]
    return None
