"""Logs in one SQLite file: a server's default. An append that was answered survives the process being killed.

Durability
    One transaction for each batch. With ``synchronous="NORMAL"`` it survives the process; "FULL" waits for the disk, and
    survives a loss of power too.

Blocking
    A commit takes microseconds, less than handing it to another thread, and runs on the event loop's thread. Work that
    waits for the disk (a checkpoint, a commit with "FULL") runs on another thread: notebooks share the event loop.

The file and its lock are `sqlite_file`'s, the tables and queries `sqlite_log`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ebus_jupyter.core.broker.entry import Entry, by_bus
from ebus_jupyter.core.broker.kept import Kept
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import BusSpec
from ebus_jupyter.errors import BackendError

from .base import too_many_buses
from .sqlite_file import CHECKPOINT_BYTES, FAILURES, PAGE_BYTES, DatabaseFile, explained, explanation
from .sqlite_log import BusHead, Tables

PATIENCE_SECONDS = 2.0
"""The time that a new process waits for the file: a server that was told to restart may not have ended yet."""


SPARE_PAGES = 1024
"""The free pages that the file keeps for what is written next. Those above it are returned, so many at a time."""


class SqliteBackend:
    """Keeps logs in the file ``path``.

    The file is opened at the first call, which raises what stands in the way.

    Args:
        path: The file. It is created, readable for its owner only, where there is none. Two more files lie beside it while
            it is in use; a copy of a file in use is of no value without them.
        synchronous: "NORMAL" survives a killed process; "FULL" survives a loss of power too, and waits for the disk with
            every batch.
        max_bytes: The bytes that one bus may hold; a log over this bound drops its oldest entries.
        dedupe: The number of one client's writes whose ids a bus remembers.
        dedupe_bytes: The bytes that these ids may take, of all clients of a bus.
        max_buses: The number of buses that are kept.
        patience: Seconds to wait for a file that another process has.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        max_bytes: int = Limits().log_bytes,
        dedupe: int = Limits().dedupe,
        dedupe_bytes: int = Limits().dedupe_bytes,
        max_buses: int = Limits().kept_buses,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        if synchronous not in ("NORMAL", "FULL"):
            raise ValueError(f'synchronous is "NORMAL" or "FULL", not {synchronous!r}')
        self.path = Path(path)
        self._file = DatabaseFile(self.path, synchronous, patience)
        self._tables = Tables(max_bytes, max(1, dedupe), dedupe_bytes)
        self._waits_for_disk = synchronous == "FULL"
        self._max_buses = max_buses
        self._lock = asyncio.Lock()  # held by the task that uses the connection
        self._heads: dict[str, BusHead | None] = {}  # of the buses that were opened; None: to be read from the file
        self._uncheckpointed = 0  # bytes in the write-ahead log, approximately
        self._checkpoint: asyncio.Task[None] | None = None

    # --- the seam ---------------------------------------------------------------------------------------------------

    async def open(self, bus: str, spec: BusSpec | None, epoch: str) -> Kept | None:
        async with self._lock:
            db = self._file.connection or await self._file.open()
            with explained(f"{bus} could not be read"):
                found = self._tables.load(db, bus)
                if found is None and spec is not None:
                    if self._tables.count(db) >= self._max_buses:
                        raise too_many_buses(self._max_buses)
                    self._tables.create(db, bus, spec, epoch)
                    found = self._tables.load(db, bus)
            if found is None:
                return None
            head, kept = found
            # Most buses are silent: the head of an empty one is read again when it is written to.
            self._heads[bus] = head if kept.last else None
            return kept

    def read(self, bus: str, after: int, max_bytes: int) -> tuple[list[Entry], int]:
        db = self._file.connection
        with explained(f"{bus} could not be read"):
            if db is None:
                raise BackendError("the log is closed: the broker is shutting down.")
            return self._tables.read(db, self._head(db, bus), after, max_bytes)

    async def append(self, batch: Sequence[Entry]) -> Sequence[Entry]:
        async with self._lock:
            db = self._file.connection or await self._file.open()
            if self._waits_for_disk:
                await _on_thread(self._write, db, batch)
            else:
                self._write(db, batch)
        self._checkpoint_if_due()
        return batch

    def append_now(self, batch: Sequence[Entry]) -> Sequence[Entry] | None:
        db = self._file.connection
        if db is None or self._lock.locked() or self._waits_for_disk:
            return None
        self._write(db, batch)
        self._checkpoint_if_due()
        return batch

    async def buses(self) -> dict[str, BusSpec]:
        async with self._lock:
            db = self._file.connection or await self._file.open()
            with explained("the buses could not be listed"):
                return self._tables.specs(db)

    async def alter(self, bus: str, spec: BusSpec) -> None:
        async with self._lock:
            db = self._file.connection or await self._file.open()
            with explained(f"{bus} could not be altered"):
                self._tables.alter(db, bus, spec)
            head = self._heads.get(bus)
            if head is not None:
                head.size = spec.size

    async def delete(self, bus: str) -> None:
        async with self._lock:
            db = self._file.connection or await self._file.open()
            with explained(f"{bus} could not be deleted"), db:
                db.execute("BEGIN IMMEDIATE")
                self._tables.delete(db, bus)
            self._heads.pop(bus, None)
            if self._free_pages(db) > SPARE_PAGES:
                self._uncheckpointed = CHECKPOINT_BYTES + 1
        self._checkpoint_if_due()

    async def backup(self, path: str | Path) -> None:
        """Write a copy of the file, as it is at one moment, to ``path``, which must not exist. Writes wait meanwhile."""
        async with self._lock:
            db = self._file.connection or await self._file.open()
            with explained(f"the copy {path} could not be made"):
                await _on_thread(db.execute, "VACUUM INTO ?", (str(path),))

    async def compact(self) -> int:
        """Return the space of what was deleted to the file system. Writes wait meanwhile.

        Returns:
            By how many bytes the file has shrunk.
        """
        async with self._lock:
            db = self._file.connection or await self._file.open()
            before = self._file.size(db)
            with explained("the file could not be compacted"):
                await _on_thread(db.execute, "VACUUM")
                await _on_thread(lambda: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
            return before - self._file.size(db)

    async def aclose(self) -> None:
        self._file.refuse_opening()
        async with self._lock:
            self._file.close()
            self._heads.clear()
        if self._checkpoint is not None:
            await self._checkpoint

    # --- appending --------------------------------------------------------------------------------------------------

    def _write(self, db: sqlite3.Connection, batch: Sequence[Entry]) -> None:
        try:
            size = None
            if len(batch) == 1:
                entry = batch[0]
                size = self._tables.append_alone(db, self._head(db, entry.bus), entry)
            if size is None:
                self._write_batch(db, batch)
            else:
                self._uncheckpointed += PAGE_BYTES + size
        except FAILURES as error:
            raise explanation("the write could not be kept", error) from error

    def _write_batch(self, db: sqlite3.Connection, batch: Sequence[Entry]) -> None:
        parts = by_bus(batch)
        heads = {uri: msgspec.structs.replace(self._head(db, uri)) for uri in parts}
        try:
            db.execute("BEGIN IMMEDIATE")
            for uri, entries in parts.items():
                # A small commit changes about four pages besides those of its values.
                self._uncheckpointed += 4 * PAGE_BYTES + self._tables.append(db, heads[uri], entries)
            db.execute("COMMIT")
        except BaseException:
            for entry in batch:
                entry.offset = 0
            for uri, head in heads.items():
                if head.retain == "keys":  # the copy shares its marks of removed keys with the original
                    self._heads[uri] = None
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._heads.update(heads)

    def _head(self, db: sqlite3.Connection, uri: str) -> BusHead:
        head = self._heads.get(uri)
        if head is None and uri in self._heads:
            found = self._tables.load(db, uri)
            head = self._heads[uri] = None if found is None else found[0]
        if head is None:
            raise BackendError(f"{uri} is not open here (it may just have been deleted).")
        return head

    def _checkpoint_if_due(self) -> None:
        if self._uncheckpointed > CHECKPOINT_BYTES and self._checkpoint is None:
            self._checkpoint = asyncio.create_task(self._make_checkpoint())

    async def _make_checkpoint(self) -> None:
        # A checkpoint that fails loses nothing: SQLite tries again by itself, and the next write reports what is wrong.
        with contextlib.suppress(sqlite3.Error):
            async with self._lock:
                db = self._file.connection
                if db is not None:
                    await _on_thread(lambda: db.execute("PRAGMA wal_checkpoint").fetchall())
                self._uncheckpointed = 0
            while await self._return_some_space():
                continue
        self._uncheckpointed, self._checkpoint = 0, None

    async def _return_some_space(self) -> bool:
        """Return a few megabytes to the file system, where there are more than enough; appends come in between."""
        async with self._lock:
            db = self._file.connection
            if db is None or self._free_pages(db) <= SPARE_PAGES:
                return False
            await _on_thread(self._return_space, db)
            return True

    @staticmethod
    def _free_pages(db: sqlite3.Connection) -> int:
        """The free pages that the file could return."""
        if db.execute("PRAGMA auto_vacuum").fetchone() != (2,):
            return 0  # it was made by a version that asked for none of this
        free: int = db.execute("PRAGMA freelist_count").fetchone()[0]
        return free

    @staticmethod
    def _return_space(db: sqlite3.Connection) -> None:
        db.execute(f"PRAGMA incremental_vacuum({SPARE_PAGES})").fetchall()
        db.execute("PRAGMA wal_checkpoint").fetchall()


async def _on_thread(function: Callable[..., object], *args: object) -> None:
    """Call ``function`` on another thread, and wait for it to return, even where the calling task is cancelled meanwhile."""
    done = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait([done])
        raise
