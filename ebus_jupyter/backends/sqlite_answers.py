"""The SQLite backend's table of accepted writes, by client: what makes a retry the same write after a restart.

``answers``
    The chunks of each client's record on each bus (see `core.broker.answers`), numbered from 1. Row 0 of a client holds the
    highest id that was forgotten, in ``high``.

The newest writes of a bus are not here but in ``messages`` and ``runs`` (see `sqlite_log`), until so many are there that they
are folded in together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from ebus_jupyter.core.broker.answers import CHUNK_BYTES, RECORD_BYTES, RUNS, Answers, Chunk, KeptAnswers
from ebus_jupyter.core.broker.entry import Run

_INSERT = "INSERT OR REPLACE INTO answers VALUES (?,?,?,?,?,?,?,?)"


class AnswerTable:
    """The queries. None of them begins or ends a transaction.

    Args:
        dedupe: The number of one client's writes that a bus remembers.
        max_bytes: The bytes that all records of a bus may take.
    """

    def __init__(self, dedupe: int, max_bytes: int) -> None:
        self._dedupe = dedupe
        self._max_bytes = max_bytes

    @staticmethod
    def create(db: sqlite3.Connection) -> None:
        """Make the table."""
        db.execute(
            "CREATE TABLE answers (bus INT, sender TEXT, n INT, user TEXT, low INT, high INT, writes INT, packed BLOB,"
            " PRIMARY KEY (bus, sender, n)) WITHOUT ROWID"
        )

    @staticmethod
    def delete(db: sqlite3.Connection, bus: int) -> None:
        """Forget everything about a bus."""
        db.execute("DELETE FROM answers WHERE bus = ?", (bus,))

    @staticmethod
    def load(db: sqlite3.Connection, bus: int) -> list[KeptAnswers]:
        """The records of a bus."""
        found: list[KeptAnswers] = []
        rows = db.execute(
            "SELECT sender, n, user, low, high, writes, packed FROM answers WHERE bus = ? ORDER BY sender, n", (bus,)
        )
        for sender, n, user, low, high, writes, packed in rows:
            if not found or found[-1].sender != sender:
                found.append(KeptAnswers(sender, user, 0 if n else high, []))
            if n:
                found[-1].chunks.append(Chunk(low, high, writes, packed))
        return found

    def fold(self, db: sqlite3.Connection, bus: int, recent: Iterable[Run], size: int | None) -> int:
        """Add runs to the records of their clients.

        Args:
            db: The database.
            bus: The bus's row.
            recent: The runs, in the order of offsets.
            size: What the last call has returned; None: not known.

        Returns:
            The bytes that the records of the bus take, approximately and at most.
        """
        if size is None:
            (size,) = db.execute(
                "SELECT coalesce(sum(length(packed) + ?), 0) FROM answers WHERE bus = ?",
                (CHUNK_BYTES + RECORD_BYTES, bus),
            ).fetchone()
        clients: dict[tuple[str, str], list[int]] = {}
        for run in recent:
            _add(clients.setdefault((run.sender, run.user), []), run.id, run.offset, run.length)
        for (sender, user), tail in clients.items():
            size += self._fold_client(db, bus, sender, user, tail)
        if size > self._max_bytes:
            size = self._shrink(db, bus)
        return size

    def _fold_client(self, db: sqlite3.Connection, bus: int, sender: str, user: str, tail: list[int]) -> int:
        newest = db.execute(
            "SELECT n, packed FROM answers WHERE bus = ? AND sender = ? AND n > 0 ORDER BY n DESC LIMIT 1",
            (bus, sender),
        ).fetchone()
        n, before = 0, 0
        if newest is not None:
            n, packed = newest
            held = Chunk(0, 0, 0, packed).unpack()
            if len(held) < 3 * RUNS or (held[-3] + held[-1], held[-2] + held[-1]) == (tail[0], tail[1]):
                for i in range(0, len(tail), 3):
                    _add(held, *tail[i : i + 3])
                tail, before, n = held, len(packed) + CHUNK_BYTES, n - 1
        size = -before if newest is not None else RECORD_BYTES
        starts = range(0, len(tail), 3 * RUNS)
        for start in starts:
            n += 1
            chunk = Chunk.of(tail[start : start + 3 * RUNS])
            size += CHUNK_BYTES + len(chunk.packed)
            db.execute(_INSERT, (bus, sender, n, user, *chunk))
        if n > 1 and (len(starts) > 1 or not before):
            self._trim(db, bus, sender, user)
        return size

    def _trim(self, db: sqlite3.Connection, bus: int, sender: str, user: str) -> None:
        """Forget the chunks of a client that are not needed to remember so many writes."""
        newer = 0
        for n, writes in db.execute(
            "SELECT n, writes FROM answers WHERE bus = ? AND sender = ? AND n > 0 ORDER BY n DESC", (bus, sender)
        ):
            if newer >= self._dedupe:
                (high,) = db.execute(
                    "SELECT max(high) FROM answers WHERE bus = ? AND sender = ? AND n <= ?", (bus, sender, n)
                ).fetchone()
                db.execute("DELETE FROM answers WHERE bus = ? AND sender = ? AND n <= ?", (bus, sender, n))
                db.execute(_INSERT, (bus, sender, 0, user, 0, high, 0, b""))
                return
            newer += writes

    def _shrink(self, db: sqlite3.Connection, bus: int) -> int:
        answers = Answers(self._dedupe, self._max_bytes)
        answers.load(self.load(db, bus), ())
        self.delete(db, bus)
        size = 0
        for record in answers.keep():
            size += RECORD_BYTES
            if record.forgotten:
                db.execute(_INSERT, (bus, record.sender, 0, record.user, 0, record.forgotten, 0, b""))
            for n, chunk in enumerate(record.chunks, start=1):
                size += CHUNK_BYTES + len(chunk.packed)
                db.execute(_INSERT, (bus, record.sender, n, record.user, *chunk))
        return size


def _add(tail: list[int], id_: int, offset: int, length: int) -> None:
    if tail and tail[-3] + tail[-1] == id_ and tail[-2] + tail[-1] == offset:
        tail[-1] += length
    else:
        tail += (id_, offset, length)
