"""Logs in one SQLite file: the default of a server. What `append` has answered survives a killed process.

One file, one process
    The file belongs to whoever opened it first, until that process ends, however it ends: the lock is the operating
    system's. (It is held for good, so the write-ahead log needs no shared memory; a home folder on NFS will do, as long
    as its file locks work.) A second broker gets a `BackendError` that says who has the file.

Durability
    One transaction a batch. With ``synchronous="NORMAL"`` it survives the process; "FULL" waits for the disk, and
    survives a loss of power too. Which offset was the last is kept apart from the messages, in their transaction: none is
    given twice, even where every message was dropped.

Room
    A bus holds what `core.protocol.log` says. The file may hold a little more: entries that were written together lie in one
    row, rows are dropped many at a time, and `open` leaves out what is over the bound. Space that was freed is used
    again, not given back.

A commit takes microseconds, less than handing it to another thread: it is done on the event loop's own. What waits for
the disk (a checkpoint, a commit with "FULL") is done beside the loop, which a notebook's kernels share.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from ebus_jupyter.core.broker.entry import Entry, Kept, Run, by_bus, runs
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.log import Log
from ebus_jupyter.core.protocol.message import BusSpec, Retain
from ebus_jupyter.errors import BackendError

from .base import Sink, no_room

PRUNE = 256
"""How many entries a log of any size may hold above its bound before they are dropped, so that dropping is cheap."""

PATIENCE_SECONDS = 2.0
"""How long a new process waits for the file: a server that was told to restart may not have ended yet."""

CHECKPOINT_BYTES = 4 << 20
"""About how much the write-ahead log holds before it is brought into the file."""

PAGE_BYTES = 4096
"""What SQLite writes at least; a commit of ours changes about four of its pages, and those of its values."""

APPLICATION = int.from_bytes(b"ebus", "big")
"""Marks the file as ours, in its `application_id`."""


def _begin(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    db.execute("CREATE TABLE buses (id INTEGER PRIMARY KEY, uri TEXT UNIQUE, spec BLOB, epoch TEXT, floor INT)")
    db.execute(
        "CREATE TABLE messages (bus INT, offset INT, key TEXT, size INT, entries BLOB, PRIMARY KEY (bus, offset))"
    )
    db.execute("CREATE UNIQUE INDEX messages_by_key ON messages (bus, key) WHERE key IS NOT NULL")
    # The writes that were accepted last, kept longer than their messages: a retry is known over a restart. The newest
    # run of a bus is never dropped: it says which offset was the last.
    db.execute(
        "CREATE TABLE runs (bus INT, offset INT, sender TEXT, id INT, length INT, PRIMARY KEY (bus, offset))"
        " WITHOUT ROWID"
    )


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_begin,)
"""What makes the schema: the function at n brings a file of version n to n + 1. Only ever added to."""

# REPLACE: on a bus with keys a new entry takes the place of the last one of its key.
_INSERT = "INSERT OR REPLACE INTO messages VALUES (?,?,?,?,?)"

SEGMENT = (256, 1 << 20)
"""How many entries, and about how many bytes, one row of a log holds at most."""

_encode = msgspec.msgpack.Encoder().encode
_spec = lru_cache(256)(msgspec.msgpack.Decoder(BusSpec).decode)  # there are many buses of few kinds
_entries = msgspec.msgpack.Decoder(list[Entry])


class _Bus(msgspec.Struct):
    """What has to be known of a bus to append to it.

    Attributes:
        floor: As in `Kept`; of a log, what is gone from the file (what is over the bound may still be there).
        size: The bus's bound.
        bytes: What the file holds for it; only counted where a log is retained.
        removed: On a bus with keys: the marks of removed keys, by key, the oldest first.
        forgotten: The last offset up to which ids were pruned.
    """

    id: int
    retain: Retain
    size: int
    last: int
    floor: int
    bytes: int
    removed: dict[str | None, int]
    forgotten: int = 0


class SqliteBackend:
    """Keeps buses in the file ``path``, which is made (for its owner alone) where there is none.

    The file is opened at the first call; that call raises what stands in the way.

    Args:
        path: The file. Two more lie beside it while it is in use; a copy of a file in use is of no value without them.
        synchronous: "NORMAL" survives a killed process; "FULL" survives power loss, at the price of a wait for the disk
            with every batch.
        max_bytes: What one bus may hold; over it a log loses its oldest entries.
        dedupe: Of how many writes a bus remembers the ids.
        max_buses: How many buses it keeps.
        patience: Seconds to wait for a file that another process still has.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        max_bytes: int = Limits().log_bytes,
        dedupe: int = Limits().dedupe,
        max_buses: int = Limits().kept_buses,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        if synchronous not in ("NORMAL", "FULL"):
            raise ValueError(f'synchronous is "NORMAL" or "FULL", not {synchronous!r}')
        self.path = Path(path)
        self._synchronous = synchronous
        self._max_bytes = max_bytes
        self._dedupe = max(1, dedupe)
        self._max_buses = max_buses
        self._patience = patience
        self._lock = asyncio.Lock()  # whoever uses the connection
        self._connection: sqlite3.Connection | None = None
        self._logged = 0  # bytes in the write-ahead log, about
        self._checkpoint: asyncio.Task[None] | None = None
        self._open: dict[str, _Bus | None] = {}  # None: to be read from the file again
        self._sink: Sink | None = None
        self._closed = False

    # --- the seam ---------------------------------------------------------------------------------------------------

    async def open(self, bus: str, spec: BusSpec | None, epoch: str) -> Kept | None:
        async with self._lock:
            db = self._connection or await self._connect()
            with self._explained(f"{bus} could not be read"):
                state, kept = self._load(db, bus)
                if kept is None and spec is not None:
                    (others,) = db.execute("SELECT count(*) FROM buses").fetchone()
                    if others >= self._max_buses:
                        raise no_room(self._max_buses)
                    db.execute(
                        "INSERT INTO buses (uri, spec, epoch, floor) VALUES (?,?,?,0)", (bus, _encode(spec), epoch)
                    )
                    state, kept = self._load(db, bus)
            if kept is not None:
                self._open[bus] = state if kept.last else None  # most are silent: read it again when it is written to
            return kept

    async def append(self, batch: Sequence[Entry]) -> list[int]:
        async with self._lock:
            db = self._connection or await self._connect()
            if self._synchronous == "FULL":
                await _beside(self._write, db, batch)
            else:
                self._write(db, batch)
        return self._kept(batch)

    def append_now(self, batch: Sequence[Entry]) -> list[int] | None:
        db = self._connection
        if db is None or self._lock.locked() or self._synchronous == "FULL":
            return None
        self._write(db, batch)
        return self._kept(batch)

    def _kept(self, batch: Sequence[Entry]) -> list[int]:
        if self._logged > CHECKPOINT_BYTES and self._checkpoint is None:
            self._checkpoint = asyncio.create_task(self._bring_in())
        if self._sink is not None:
            self._sink(batch)
        return [entry.offset for entry in batch]

    def on_committed(self, sink: Sink) -> None:
        self._sink = sink

    async def buses(self) -> dict[str, BusSpec]:
        async with self._lock:
            db = self._connection or await self._connect()
            with self._explained("the buses could not be listed"):
                return {uri: _spec(spec) for uri, spec in db.execute("SELECT uri, spec FROM buses")}

    async def delete(self, bus: str) -> None:
        async with self._lock:
            db = self._connection or await self._connect()
            with self._explained(f"{bus} could not be deleted"), db:
                found = db.execute("SELECT id FROM buses WHERE uri = ?", (bus,)).fetchone()
                if found is not None:
                    db.execute("BEGIN IMMEDIATE")
                    for table, column in (("messages", "bus"), ("runs", "bus"), ("buses", "id")):
                        db.execute(f"DELETE FROM {table} WHERE {column} = ?", found)  # noqa: S608
            self._open.pop(bus, None)

    async def aclose(self) -> None:
        self._closed = True
        async with self._lock:
            db, self._connection = self._connection, None
            self._open.clear()
            if db is not None:
                with contextlib.suppress(OSError):
                    self._note.unlink()
                with contextlib.suppress(sqlite3.Error):  # what was answered is in the file already
                    db.close()
        if self._checkpoint is not None:
            await self._checkpoint

    # --- appending --------------------------------------------------------------------------------------------------

    def _write(self, db: sqlite3.Connection, batch: Sequence[Entry]) -> None:
        parts = by_bus(batch)
        with self._explained("the write could not be kept"):
            after = {uri: msgspec.structs.replace(self._bus(db, uri)) for uri in parts}
            try:
                db.execute("BEGIN IMMEDIATE")
                for uri, entries in parts.items():
                    self._append(db, after[uri], entries)
                db.execute("COMMIT")
            except BaseException:
                for entry in batch:
                    entry.offset = 0
                for uri, bus in after.items():
                    if bus.retain == "keys":  # the copy shares its marks of removed keys
                        self._open[uri] = None
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            self._open.update(after)

    async def _bring_in(self) -> None:
        """A checkpoint. Where it fails nothing is lost: SQLite tries again by itself, and the next write says what is wrong."""
        async with self._lock:
            db = self._connection
            if db is not None:
                with contextlib.suppress(sqlite3.Error):
                    await _beside(lambda: db.execute("PRAGMA wal_checkpoint").fetchall())
            self._logged, self._checkpoint = 0, None

    def _bus(self, db: sqlite3.Connection, uri: str) -> _Bus:
        bus = self._open.get(uri)
        if bus is None and uri in self._open:
            bus = self._open[uri] = self._load(db, uri)[0]
        if bus is None:
            raise BackendError(f"{uri} is not open here (it may just have been deleted).")
        return bus

    def _append(self, db: sqlite3.Connection, bus: _Bus, entries: list[Entry]) -> None:
        floor = bus.floor
        self._logged += 4 * PAGE_BYTES
        recent = [(bus.id, *run) for run in runs(entries, bus.last)]
        db.executemany("INSERT INTO runs (bus, sender, id, offset, length) VALUES (?,?,?,?,?)", recent)
        for entry in entries:
            bus.last = entry.offset = bus.last + 1
        match bus.retain:
            case "log":
                self._append_log(db, bus, entries)
            case "latest":
                db.execute("DELETE FROM messages WHERE bus = ?", (bus.id,))
                self._insert(db, bus, entries[-1:])
            case "keys":
                self._append_keys(db, bus, entries)
        if bus.floor > floor:
            db.execute("UPDATE buses SET floor = ? WHERE id = ?", (bus.floor, bus.id))
        known = bus.last - self._dedupe
        if known - bus.forgotten > PRUNE:
            db.execute(
                "DELETE FROM runs WHERE bus = ? AND offset <= ? AND offset + length - 1 <= ?", (bus.id, known, known)
            )
            bus.forgotten = known

    def _append_log(self, db: sqlite3.Connection, bus: _Bus, entries: list[Entry]) -> None:
        if len(entries) > bus.size:
            del entries[: -bus.size]
            db.execute("DELETE FROM messages WHERE bus = ?", (bus.id,))
            bus.floor, bus.bytes = bus.last - bus.size, 0
        bus.bytes += self._insert(db, bus, entries)
        self._prune(db, bus)

    def _append_keys(self, db: sqlite3.Connection, bus: _Bus, entries: list[Entry]) -> None:
        newest: dict[str | None, Entry] = {}
        dropped: list[tuple[int, str | None]] = []
        for entry in entries:
            newest[entry.key] = entry
            bus.removed.pop(entry.key, None)
            if entry.deleted:
                bus.removed[entry.key] = entry.offset
                if len(bus.removed) > bus.size:
                    key = next(iter(bus.removed))
                    bus.floor = max(bus.floor, bus.removed.pop(key))
                    newest.pop(key, None)
                    dropped.append((bus.id, key))
        db.executemany("DELETE FROM messages WHERE bus = ? AND key = ?", dropped)
        for entry in newest.values():
            self._insert(db, bus, [entry])

    def _insert(self, db: sqlite3.Connection, bus: _Bus, entries: Sequence[Entry]) -> int:
        """Returns how many bytes they count for."""
        rows = list(_rows(bus, entries))
        db.executemany(_INSERT, rows)
        size = sum([row.size for row in rows])
        self._logged += size
        return size

    def _prune(self, db: sqlite3.Connection, bus: _Bus) -> None:
        """Drop the rows of which nothing is retained, once they are so many that it is worth it."""
        excess = bus.last - bus.floor - bus.size
        if excess <= PRUNE + bus.size // 8 and bus.bytes <= self._max_bytes + self._max_bytes // 8:
            return
        floor = bus.floor
        for last, size in db.execute("SELECT offset, size FROM messages WHERE bus = ? ORDER BY offset", (bus.id,)):
            if last > bus.last - bus.size and bus.bytes - size < self._max_bytes:
                break
            bus.bytes -= size
            floor = last
        db.execute("DELETE FROM messages WHERE bus = ? AND offset <= ?", (bus.id, floor))
        bus.floor = floor

    # --- reading ----------------------------------------------------------------------------------------------------

    def _load(self, db: sqlite3.Connection, uri: str) -> tuple[_Bus | None, Kept | None]:
        found = db.execute("SELECT id, spec, epoch, floor FROM buses WHERE uri = ?", (uri,)).fetchone()
        if found is None:
            return None, None
        number, packed, epoch, floor = found
        last = db.execute(
            "SELECT offset + length - 1 FROM runs WHERE bus = ? ORDER BY offset DESC LIMIT 1", (number,)
        ).fetchone()
        last = 0 if last is None else last[0]
        spec = _spec(packed)
        bus = _Bus(number, spec.retain, spec.size, last, floor, 0, {})
        log: Log[Entry] = Log(retain=spec.retain, size=spec.size, max_bytes=self._max_bytes)
        for (segment,) in db.execute("SELECT entries FROM messages WHERE bus = ? ORDER BY offset", (number,)):
            for entry in _entries.decode(segment):
                bus.bytes += entry.size
                if entry.deleted:
                    bus.removed[entry.key] = entry.offset
                log.append(entry.offset, entry, key=entry.key, deleted=entry.deleted, size=entry.size)
        recent = db.execute(
            "SELECT sender, id, offset, length FROM runs WHERE bus = ? AND offset + length - 1 > ? ORDER BY offset",
            (number, last - self._dedupe),
        )
        return bus, Kept(spec, epoch, last, max(floor, log.floor), list(log), [Run(*run) for run in recent])

    # --- the file ---------------------------------------------------------------------------------------------------

    @property
    def _note(self) -> Path:
        """Where the process that has the file says who it is, for the one that finds it locked."""
        return self.path.with_name(self.path.name + "-owner")

    async def _connect(self) -> sqlite3.Connection:
        """Open the file; the lock is held."""
        waited = 0.0
        while self._connection is None:
            if self._closed:
                raise BackendError("the log is closed: the broker is shutting down.")
            try:
                with self._explained(f"the buses' file {self.path} could not be opened"):
                    self._connection = self._try_connect()
            except BackendError as error:
                if not isinstance(error.__cause__, sqlite3.Error) or _name(error.__cause__) != "SQLITE_BUSY":
                    raise
                if waited >= self._patience:
                    raise self._taken() from None
                await asyncio.sleep(0.05)
                waited += 0.05
        return self._connection

    def _try_connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        if self.path.is_file() and self.path.stat().st_mode & 0o077:
            self.path.chmod(0o600)  # SQLite gives the files beside it the same mode
        db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")  # before the first access: so there will be no shared memory
            version = self._version(db)
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise BackendError(
                    f"{self.path} can't have a write-ahead log ({mode}); put the file on another file system."
                )
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            db.execute(f"PRAGMA journal_size_limit = {4 * CHECKPOINT_BYTES}")
            db.execute(f"PRAGMA wal_autocheckpoint = {4 * CHECKPOINT_BYTES // PAGE_BYTES}")  # before ours: never
            with db:
                db.execute("BEGIN EXCLUSIVE")  # takes the lock, for as long as the connection lasts
                for migrate in MIGRATIONS[version:]:
                    migrate(db)
                db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            with contextlib.suppress(OSError):
                self._note.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        except BaseException:
            db.close()
            raise
        return db

    def _version(self, db: sqlite3.Connection) -> int:
        """The version of the file's schema: 0 where it has none. Refuses a file that is not for us to change."""
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != APPLICATION:
            raise BackendError(f"{self.path} is the database of another program; give the buses a file of their own.")
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise BackendError(
                f"{self.path} was written by a newer ebus_jupyter (schema {version}, this one knows {len(MIGRATIONS)}): "
                "update ebus_jupyter, or move the file away and begin anew."
            )
        return version

    def _taken(self) -> BackendError:
        try:
            who = self._note.read_text(encoding="utf-8")[:200] or "another process"
        except (OSError, UnicodeDecodeError):
            who = "another process"
        return BackendError(
            f"{self.path} is in use by {who}. A file belongs to one server at a time: stop that one, or give this one a "
            "file of its own.",
            in_use=True,
        )

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, msgspec.MsgspecError, OverflowError, UnicodeError) as error:
            raise BackendError(f"{what} ({error}). {_advice(error)}") from error


async def _beside(function: Callable[..., object], *args: object) -> None:
    """Call ``function`` on another thread, and wait till it is done, even where the caller is cancelled meanwhile."""
    done = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait([done])
        raise


class _Row(NamedTuple):
    """A row of ``messages``: entries side by side, under the offset of the last."""

    bus: int
    offset: int
    key: str | None
    size: int
    entries: bytes


def _rows(bus: _Bus, entries: Sequence[Entry]) -> Iterator[_Row]:
    """``entries``, in rows of a bounded number and size."""
    start = size = 0
    for i, entry in enumerate(entries):
        if i - start >= SEGMENT[0] or size > SEGMENT[1]:
            yield _row(bus, entries[start:i], size)
            start, size = i, 0
        size += entry.size
    yield _row(bus, entries[start:], size)


def _row(bus: _Bus, entries: Sequence[Entry], size: int) -> _Row:
    last = entries[-1]
    return _Row(bus.id, last.offset, last.key, size, _encode(entries))


def _name(error: Exception) -> str:
    """Which of SQLite's errors it is; an extended one by the name that it extends."""
    return "_".join(str(getattr(error, "sqlite_errorname", "")).split("_")[:2])


def _advice(error: Exception) -> str:
    match _name(error):
        case "SQLITE_FULL":
            return "The disk is full: make room on it, then write again. Nothing was kept."
        case "SQLITE_CANTOPEN" | "SQLITE_READONLY" | "SQLITE_PERM":
            return "The server must be able to write the file and its folder: see whom they belong to."
        case "SQLITE_CORRUPT" | "SQLITE_NOTADB" | "SQLITE_FORMAT":
            return (
                "The file is damaged: stop the server, put a copy in its place or move it away (the buses begin anew "
                "then), and start again."
            )
        case "SQLITE_IOERR":
            return "The disk failed: see the system's log. Nothing was kept."
    if isinstance(error, msgspec.MsgspecError):
        return "The file is damaged, or was written by a newer ebus_jupyter: update it, or move the file away."
    if isinstance(error, OSError):
        return "The server must be able to write the file and its folder: see whom they belong to."
    return "Nothing was kept; trying again may help."
