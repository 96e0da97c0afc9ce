"""The SQLite backend's file: its lock, its settings, its schema's version, and what its errors mean.

One process
    The file belongs to the process that opened it first, until that process ends, however it ends: the lock is the
    operating system's. A second broker gets a `BackendError` that names the process that has the file.

    It is a lock on a file beside the database, of the kind that belongs to a descriptor (``flock``). SQLite's own locks
    belong to the process, and vanish when any code of the process opens and closes the database: one download would do.
    They are held, too, so the write-ahead log needs no shared memory, and they keep other programs out.

Versions
    The file records the version of its schema. An older file is migrated when it is opened, in one transaction. A newer
    file, or one of another program, is refused and left as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from filelock import FileLock, Timeout

from ebus_jupyter.errors import BackendError

from .sqlite_log import APPLICATION, MIGRATIONS

CHECKPOINT_BYTES = 4 << 20
"""The approximate size at which the write-ahead log is checkpointed into the file."""

PAGE_BYTES = 4096
"""The size of SQLite's pages."""

FAILURES = (sqlite3.Error, OSError, msgspec.MsgspecError, OverflowError, UnicodeError)
"""The errors of SQLite, of the file system, and of a file whose contents are damaged."""

_RETRY_SECONDS = 0.05


class DatabaseFile:
    """The file, and the connection that holds its lock.

    Args:
        path: The file. It is created, readable for its owner only, where there is none.
        synchronous: SQLite's setting of that name.
        patience: Seconds to wait for a file that another process has.

    Attributes:
        connection: None until `open` has returned, and after `close`.
    """

    def __init__(self, path: Path, synchronous: Literal["NORMAL", "FULL"], patience: float) -> None:
        self.path = path
        self.connection: sqlite3.Connection | None = None
        self._synchronous = synchronous
        self._patience = patience
        self._closed = False
        self._lock = FileLock(path.with_name(path.name + "-lock"), blocking=False, mode=0o600, thread_local=False)

    @property
    def _owner_note(self) -> Path:
        """Where the process that has the file leaves its name, for the error of one that finds the file locked."""
        return self.path.with_name(self.path.name + "-owner")

    async def open(self) -> sqlite3.Connection:
        """The connection; opens the file at the first call. One task at a time.

        Raises:
            BackendError: The file can't be opened, or another process has it.
        """
        waited = 0.0
        while self.connection is None:
            if self._closed:
                raise BackendError("the log is closed: the broker is shutting down.")
            with explained(f"the buses' file {self.path} could not be opened"):
                busy = self._try_to_open()
            if busy is not None:
                if waited >= self._patience:
                    raise busy
                await asyncio.sleep(_RETRY_SECONDS)
                waited += _RETRY_SECONDS
        return self.connection

    def _try_to_open(self) -> BackendError | None:
        """Open the file; returns the error where another process has it."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            return self._in_use()
        try:
            self.connection = self._connect()
        except BaseException as error:
            self._lock.release()
            if isinstance(error, sqlite3.Error) and _name_of(error) == "SQLITE_BUSY":
                return BackendError(
                    f"{self.path} is open in a program that is no server, such as a database browser: close it there, and "
                    "start the server again."
                )
            raise
        return None

    def size(self, db: sqlite3.Connection) -> int:
        """The bytes of the database's pages."""
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        return int(pages) * PAGE_BYTES

    def refuse_opening(self) -> None:
        """From now on, `open` raises an error instead of opening the file."""
        self._closed = True

    def close(self) -> None:
        """Release the file."""
        self._closed = True
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                self._owner_note.unlink()
            with contextlib.suppress(sqlite3.Error):  # every answered append is in the file already
                connection.close()
            self._lock.release()

    def _connect(self) -> sqlite3.Connection:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        if self.path.is_file() and self.path.stat().st_mode & 0o077:
            self.path.chmod(0o600)  # SQLite gives the files beside it the same mode
        db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")  # must precede the first access, to avoid shared memory
            version = self._version(db)
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file; before it has a write-ahead log
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise BackendError(
                    f"{self.path} can't have a write-ahead log ({mode}); put the file on another file system."
                )
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            db.execute(f"PRAGMA journal_size_limit = {4 * CHECKPOINT_BYTES}")
            # The backend makes its own checkpoints, earlier than SQLite would with this setting.
            db.execute(f"PRAGMA wal_autocheckpoint = {4 * CHECKPOINT_BYTES // PAGE_BYTES}")
            with db:
                db.execute("BEGIN EXCLUSIVE")  # takes the lock, which is held as long as the connection is open
                for migrate in MIGRATIONS[version:]:
                    migrate(db)
                db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            with contextlib.suppress(OSError):
                self._owner_note.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        except BaseException:
            db.close()
            raise
        return db

    def _version(self, db: sqlite3.Connection) -> int:
        """The version of the file's schema; 0 where it has none. Refuses a file that may not be changed."""
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

    def _in_use(self) -> BackendError:
        try:
            owner = self._owner_note.read_text(encoding="utf-8")[:200] or "another process"
        except (OSError, UnicodeDecodeError):
            owner = "another process"
        return BackendError(
            f"{self.path} is in use by {owner}. A file belongs to one server at a time: stop that one, or give this one a "
            "file of its own.",
            in_use=True,
        )


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an error of SQLite or of the file system into a `BackendError` that says ``what`` failed and what to do."""
    try:
        yield
    except FAILURES as error:
        raise explanation(what, error) from error


def explanation(what: str, error: Exception) -> BackendError:
    """The error that says ``what`` failed and what to do, for one of `FAILURES`."""
    return BackendError(f"{what} ({error}). {_advice(error)}")


def _name_of(error: Exception) -> str:
    """The name of SQLite's primary error code."""
    return "_".join(str(getattr(error, "sqlite_errorname", "")).split("_")[:2])


def _advice(error: Exception) -> str:
    match _name_of(error):
        case "SQLITE_FULL":
            return "The disk is full: make room on it, then write again. Nothing was kept."
        case "SQLITE_CANTOPEN" | "SQLITE_READONLY" | "SQLITE_PERM":
            return "The server must be able to write the file and its folder: check who owns them."
        case "SQLITE_CORRUPT" | "SQLITE_NOTADB" | "SQLITE_FORMAT":
            return (
                "The file is damaged: stop the server, replace the file with a copy or move it away (the buses begin anew "
                "then), and start again."
            )
        case "SQLITE_IOERR":
            return "The disk failed: see the system's log. Nothing was kept."
    if isinstance(error, msgspec.MsgspecError):
        return "The file is damaged, or was written by a newer ebus_jupyter: update it, or move the file away."
    if isinstance(error, OSError):
        return "The server must be able to write the file and its folder: check who owns them."
    return "Nothing was kept; trying again may help."
