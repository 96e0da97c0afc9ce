"""The SQLite backend's tables, and the queries that append to a bus's log and read it.

``buses``
    One row for each bus. ``bytes`` are those of its messages up to offset ``counted``.

``messages``
    The retained entries. Entries of a log that are written together share a row (a *segment*), under the offset of the
    last of them. On a bus with keys each row holds one entry, and a new entry of a key replaces the row of the last one.
    A row's *place* is its bus and its offset in one number: an append changes no index, where its bus has no keys.

``runs``
    The writes accepted most recently, so that a retry is recognised after a restart. A write that comes alone to a log is
    one row of ``messages`` (with its ``sender`` and ``id``) until that is dropped, and only then a run: a lone commit
    changes one page. Once there are `FOLD` of them, they are folded into ``answers`` (see `sqlite_answers`), and the bus's
    row notes the last offset: so no offset is assigned twice, even where every message was dropped.

The file may hold a little more than a bus's bound: segments are dropped as a whole, many at a time, and `Tables.load`
leaves out the entries that are over the bound. Freed space is reused; what is over a few megabytes is returned to the
file system.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from ebus_jupyter.core.broker.bus_log import RECENT
from ebus_jupyter.core.broker.entry import Entry, Run, runs, sender_key
from ebus_jupyter.core.broker.kept import Kept
from ebus_jupyter.core.protocol.log import Log
from ebus_jupyter.core.protocol.message import BusSpec, Retain

from .sqlite_answers import AnswerTable

PRUNE = 256
"""The number of entries by which a log may exceed its bound before the excess is dropped. Dropping many at once is cheap."""

FOLD = 1024
"""The number of writes after which the most recent ones are folded into the records of their clients."""

SEGMENT = (256, 1 << 20)
"""The number of entries, and the approximate number of bytes, that one row of a log holds at most."""


OFFSET_BITS = 40
"""The bits of a place that are the offset; the others are the bus's row."""

OFFSET = (1 << OFFSET_BITS) - 1
"""The offset's part of a place."""

APPLICATION = int.from_bytes(b"ebus", "big")
"""The ``application_id`` that marks a file as ours."""


def _create_tables(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    db.execute("CREATE TABLE buses (id INTEGER PRIMARY KEY, uri TEXT UNIQUE, spec BLOB, epoch TEXT, floor INT)")
    db.execute(
        "CREATE TABLE messages (bus INT, offset INT, key TEXT, size INT, entries BLOB, PRIMARY KEY (bus, offset))"
    )
    db.execute("CREATE UNIQUE INDEX messages_by_key ON messages (bus, key) WHERE key IS NOT NULL")
    db.execute(
        "CREATE TABLE runs (bus INT, offset INT, sender TEXT, id INT, length INT, PRIMARY KEY (bus, offset))"
        " WITHOUT ROWID"
    )


def _use_places(db: sqlite3.Connection) -> None:
    db.execute(
        "CREATE TABLE places (place INTEGER PRIMARY KEY, bus INT, key TEXT, size INT, sender TEXT, id INT, entries BLOB)"
    )
    db.execute(
        "INSERT INTO places SELECT (bus << ?) | offset, bus, key, size, NULL, NULL, entries FROM messages"
        " ORDER BY bus, offset",
        (OFFSET_BITS,),
    )
    db.execute("DROP TABLE messages")
    db.execute("ALTER TABLE places RENAME TO messages")
    db.execute("CREATE UNIQUE INDEX messages_by_key ON messages (bus, key) WHERE key IS NOT NULL")


def _remember_by_client(db: sqlite3.Connection) -> None:
    AnswerTable.create(db)
    db.execute("ALTER TABLE buses ADD COLUMN folded INT NOT NULL DEFAULT 0")


def _note_sizes(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE buses ADD COLUMN bytes INT NOT NULL DEFAULT 0")
    db.execute("ALTER TABLE buses ADD COLUMN counted INT NOT NULL DEFAULT 0")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _create_tables,
    _use_places,
    _remember_by_client,
    _note_sizes,
)
"""The steps that make the schema: the function at index n takes a file from version n to n + 1. Append only."""

_INSERT = "INSERT OR REPLACE INTO messages VALUES (?,?,?,?,?,?,?)"
_INSERT_ALONE = "INSERT INTO messages VALUES (?,?,NULL,?,?,?,?)"

_DELETE_PLACES = "DELETE FROM messages WHERE place BETWEEN ? AND ?"

_encode = msgspec.msgpack.Encoder().encode
_decode_spec = lru_cache(256)(msgspec.msgpack.Decoder(BusSpec).decode)  # there are many buses of few kinds
_decode_entries = msgspec.msgpack.Decoder(list[Entry]).decode


class BusHead(msgspec.Struct):
    """The end of a bus's log: what must be known to append to it.

    Attributes:
        id: The bus's row.
        retain: What the bus retains.
        size: The bus's bound.
        last: The last offset assigned.
        floor: The last offset that was dropped from the file. (Entries over the bound may still be in it.)
        bytes: The bytes that the file holds for the bus; only counted where a log is retained.
        removed: On a bus with keys: the offsets of the marks of removed keys, by key, oldest first.
        folded: The offset up to which writes were folded into the records of their clients.
        answers: The bytes of these records; None where that is not known.
    """

    id: int
    retain: Retain
    size: int
    last: int
    floor: int
    bytes: int
    removed: dict[str | None, int]
    folded: int = 0
    answers: int | None = None

    def place(self, offset: int) -> int:
        """The place of an offset of this bus."""
        return self.id << OFFSET_BITS | offset


class Tables:
    """The queries. None of them begins or ends a transaction.

    Args:
        max_bytes: The bytes that one bus may hold.
        dedupe: The number of one client's writes whose ids a bus remembers.
        dedupe_bytes: The bytes that these ids may take, of all clients of a bus.
    """

    def __init__(self, max_bytes: int, dedupe: int, dedupe_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._answers = AnswerTable(dedupe, dedupe_bytes)

    # --- buses ------------------------------------------------------------------------------------------------------

    @staticmethod
    def count(db: sqlite3.Connection) -> int:
        """The number of buses."""
        number: int = db.execute("SELECT count(*) FROM buses").fetchone()[0]
        return number

    @staticmethod
    def specs(db: sqlite3.Connection) -> dict[str, BusSpec]:
        """The spec of each bus, by address."""
        return {uri: _decode_spec(spec) for uri, spec in db.execute("SELECT uri, spec FROM buses")}

    @staticmethod
    def create(db: sqlite3.Connection, uri: str, spec: BusSpec, epoch: str) -> None:
        db.execute("INSERT INTO buses (uri, spec, epoch, floor) VALUES (?,?,?,0)", (uri, _encode(spec), epoch))

    @staticmethod
    def alter(db: sqlite3.Connection, uri: str, spec: BusSpec) -> None:
        """Replace a bus's spec: one statement, which is a transaction by itself."""
        db.execute("UPDATE buses SET spec = ? WHERE uri = ?", (_encode(spec), uri))

    @staticmethod
    def delete(db: sqlite3.Connection, uri: str) -> None:
        found = db.execute("SELECT id FROM buses WHERE uri = ?", (uri,)).fetchone()
        if found is not None:
            (id_,) = found
            db.execute(_DELETE_PLACES, (id_ << OFFSET_BITS, id_ << OFFSET_BITS | OFFSET))
            db.execute("DELETE FROM runs WHERE bus = ?", found)
            AnswerTable.delete(db, id_)
            db.execute("DELETE FROM buses WHERE id = ?", found)

    def load(self, db: sqlite3.Connection, uri: str) -> tuple[BusHead, Kept] | None:
        """The end of a bus's log, and all that is kept of the bus; None where there is no such bus."""
        found = db.execute(
            "SELECT id, spec, epoch, floor, folded, bytes, counted FROM buses WHERE uri = ?", (uri,)
        ).fetchone()
        if found is None:
            return None
        id_, packed, epoch, floor, folded, counted_bytes, counted = found
        last = db.execute(
            "SELECT offset + length - 1 FROM runs WHERE bus = ? ORDER BY offset DESC LIMIT 1", (id_,)
        ).fetchone()
        every = id_ << OFFSET_BITS, id_ << OFFSET_BITS | OFFSET
        last_place = db.execute(
            "SELECT place FROM messages WHERE place BETWEEN ? AND ? ORDER BY place DESC LIMIT 1", every
        ).fetchone()
        last = max(folded, 0 if last is None else last[0], 0 if last_place is None else last_place[0] & OFFSET)
        spec = _decode_spec(packed)
        head = BusHead(id_, spec.retain, spec.size, last, floor, 0, {}, folded)
        if spec.retain == "log":
            head.bytes = counted_bytes + _sum_sizes(db, head.place(counted + 1), head.place(last))
            entries, start = _newest(db, head)
        else:
            entries, start = [entry for segment in _segments(db, *every) for entry in _decode_entries(segment)], 0
            head.removed = {entry.key: entry.offset for entry in entries if entry.deleted}
        log: Log[Entry] = Log(retain=spec.retain, size=spec.size, max_bytes=self._max_bytes)
        log.floor = log.last = start
        for entry in entries:
            log.append(entry.offset, entry, key=entry.key, deleted=entry.deleted, size=entry.size)
        if spec.retain == "log":
            floor = max(floor, last - spec.size)
        if log.floor > start:
            floor = max(floor, log.floor)
        if spec.retain == "log":
            start = max(floor, log.floor)
        answers = self._answers.load(db, id_)
        return head, Kept(spec, epoch, last, floor, list(log), answers, _recent(db, head), start)

    @staticmethod
    def read(db: sqlite3.Connection, head: BusHead, after: int, max_bytes: int) -> tuple[list[Entry], int]:
        """The oldest entries after an offset, of a bus that retains a log, and the last offset that was dropped."""
        floor = max(head.floor, head.last - head.size)
        found: list[Entry] = []
        size = 0
        if after >= floor:
            for segment in _segments(db, head.place(after + 1), head.place(head.last)):
                for entry in _decode_entries(segment):
                    if entry.offset <= after:
                        continue
                    size += entry.size
                    if found and size > max_bytes:
                        return found, floor
                    found.append(entry)
        return found, floor

    # --- appending --------------------------------------------------------------------------------------------------

    def append_alone(self, db: sqlite3.Connection, head: BusHead, entry: Entry) -> int | None:
        """Append one entry by one statement, which is a transaction by itself, where the bus needs no other.

        Returns:
            The bytes that were written, approximately; None: nothing was, and `append` is needed.
        """
        offset, size = head.last + 1, entry.size
        if head.retain != "log" or self._is_over(head, offset, head.bytes + size) or offset - head.folded > FOLD:
            return None
        entry.offset = offset
        try:
            row = (head.place(offset), head.id, size, " ".join(sender_key(entry.sender)), entry.id, _encode((entry,)))
            db.execute(_INSERT_ALONE, row)
        except BaseException:
            entry.offset = 0
            raise
        head.last = offset
        head.bytes += size
        return size

    def append(self, db: sqlite3.Connection, head: BusHead, entries: list[Entry]) -> int:
        """Append ``entries`` to the log that ``head`` is the end of, and assign their offsets.

        Returns:
            The bytes that were written, approximately.
        """
        floor = head.floor
        new_runs = [
            (head.id, f"{run.sender} {run.user}", run.id, run.offset, run.length) for run in runs(entries, head.last)
        ]
        db.executemany("INSERT INTO runs (bus, sender, id, offset, length) VALUES (?,?,?,?,?)", new_runs)
        for entry in entries:
            head.last = entry.offset = head.last + 1
        match head.retain:
            case "log":
                size = self._append_log(db, head, entries)
            case "latest":
                db.execute(_DELETE_PLACES, (head.place(0), head.place(OFFSET)))
                size = _insert(db, head, entries[-1:])
            case "keys":
                size = self._append_keys(db, head, entries)
        if head.floor > floor:
            db.execute(
                "UPDATE buses SET floor = ?, bytes = ?, counted = ? WHERE id = ?",
                (head.floor, head.bytes, head.last, head.id),
            )
        if head.last - head.folded > FOLD:
            head.answers = self._answers.fold(db, head.id, _recent(db, head), head.answers)
            db.execute("DELETE FROM runs WHERE bus = ?", (head.id,))
            db.execute(
                "UPDATE buses SET folded = ?, bytes = ?, counted = ? WHERE id = ?",
                (head.last, head.bytes, head.last, head.id),
            )
            head.folded = head.last
        return size

    def _append_log(self, db: sqlite3.Connection, head: BusHead, entries: list[Entry]) -> int:
        if len(entries) > head.size:
            del entries[: -head.size]
            _drop(db, head, head.last)
            head.floor, head.bytes = head.last - head.size, 0
        size = _insert(db, head, entries)
        head.bytes += size
        self._prune(db, head)
        return size

    def _append_keys(self, db: sqlite3.Connection, head: BusHead, entries: list[Entry]) -> int:
        newest: dict[str | None, Entry] = {}
        dropped: list[tuple[int, str | None]] = []
        for entry in entries:
            newest[entry.key] = entry
            head.removed.pop(entry.key, None)
            if entry.deleted:
                head.removed[entry.key] = entry.offset
                if len(head.removed) > head.size:
                    key = next(iter(head.removed))
                    head.floor = max(head.floor, head.removed.pop(key))
                    newest.pop(key, None)
                    dropped.append((head.id, key))
        db.executemany("DELETE FROM messages WHERE bus = ? AND key = ?", dropped)
        return sum([_insert(db, head, [entry]) for entry in newest.values()])

    def _prune(self, db: sqlite3.Connection, head: BusHead) -> None:
        """Drop the segments that are over the bound entirely, once there are enough of them."""
        if not self._is_over(head, head.last, head.bytes):
            return
        floor = head.floor
        places = head.place(0), head.place(OFFSET)
        for place, size in db.execute(
            "SELECT place, size FROM messages WHERE place BETWEEN ? AND ? ORDER BY place", places
        ):
            last = place & OFFSET
            if last > head.last - head.size and head.bytes - size < self._max_bytes:
                break
            head.bytes -= size
            floor = last
        _drop(db, head, floor)
        head.floor = floor

    def _is_over(self, head: BusHead, last: int, size: int) -> bool:
        """True if a log with these ends and that many bytes is over its bound by enough to drop the excess."""
        excess = last - head.floor - head.size
        return excess > PRUNE + head.size // 8 or size > self._max_bytes + self._max_bytes // 8


def _drop(db: sqlite3.Connection, head: BusHead, through: int) -> None:
    """Delete the rows up to an offset. What came alone, and is not folded in yet, is remembered as a run from here on."""
    db.execute(
        "INSERT INTO runs (bus, sender, id, offset, length) SELECT bus, sender, id, place & ?, 1 FROM messages"
        " WHERE place BETWEEN ? AND ? AND sender IS NOT NULL",
        (OFFSET, head.place(head.folded + 1), head.place(through)),
    )
    db.execute(_DELETE_PLACES, (head.place(0), head.place(through)))


def _segments(db: sqlite3.Connection, first: int, last: int) -> Iterator[bytes]:
    for (segment,) in db.execute(
        "SELECT entries FROM messages WHERE place BETWEEN ? AND ? ORDER BY place", (first, last)
    ):
        yield segment


def _sum_sizes(db: sqlite3.Connection, first: int, last: int) -> int:
    size: int
    (size,) = db.execute(
        "SELECT coalesce(sum(size), 0) FROM messages WHERE place BETWEEN ? AND ?", (first, last)
    ).fetchone()
    return size


def _newest(db: sqlite3.Connection, head: BusHead) -> tuple[list[Entry], int]:
    """The newest entries of a log, as many as are held in memory, and the offset after which they are whole."""
    number, max_bytes = RECENT
    newest: list[list[Entry]] = []
    for size, segment in db.execute(
        "SELECT size, entries FROM messages WHERE place BETWEEN ? AND ? ORDER BY place DESC",
        (head.place(0), head.place(head.last)),
    ):
        newest.append(_decode_entries(segment))
        number -= len(newest[-1])
        max_bytes -= size
        if number <= 0 or max_bytes <= 0:
            break
    entries = [entry for segment in reversed(newest) for entry in segment]
    return entries, entries[0].offset - 1 if entries and (number <= 0 or max_bytes <= 0) else head.floor


def _recent(db: sqlite3.Connection, head: BusHead) -> list[Run]:
    """The runs that are not folded in yet, in the order of offsets."""
    found: list[Run] = []
    for key, id_, offset, length in db.execute(
        "SELECT sender, id, offset, length FROM runs WHERE bus = ? UNION ALL"
        " SELECT sender, id, place & ?, 1 FROM messages WHERE place BETWEEN ? AND ? AND sender IS NOT NULL ORDER BY 3",
        (head.id, OFFSET, head.place(head.folded + 1), head.place(head.last)),
    ):
        sender, _, user = key.partition(" ")
        found.append(Run(sender, id_, offset, length, user))
    return found


class _Row(NamedTuple):
    """A row of ``messages``: adjacent entries, under the offset of the last."""

    place: int
    bus: int
    key: str | None
    size: int
    sender: str | None
    id: int | None
    entries: bytes


def _insert(db: sqlite3.Connection, head: BusHead, entries: Sequence[Entry]) -> int:
    """Insert ``entries``, and return their size in bytes."""
    rows = list(_rows(head, entries))
    db.executemany(_INSERT, rows)
    return sum([row.size for row in rows])


def _rows(head: BusHead, entries: Sequence[Entry]) -> Iterator[_Row]:
    start = size = 0
    for i, entry in enumerate(entries):
        if i - start >= SEGMENT[0] or size > SEGMENT[1]:
            yield _row(head, entries[start:i], size)
            start, size = i, 0
        size += entry.size
    yield _row(head, entries[start:], size)


def _row(head: BusHead, entries: Sequence[Entry], size: int) -> _Row:
    last = entries[-1]
    return _Row(head.place(last.offset), head.id, last.key, size, None, None, _encode(entries))
