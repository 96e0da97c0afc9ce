"""The SQLite backend's file: its lock, its versions, and its failures."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ebus_jupyter.backends import sqlite_file, sqlite_log
from ebus_jupyter.backends.sqlite import SqliteBackend
from ebus_jupyter.core.broker.entry import sender_id
from ebus_jupyter.core.protocol.message import BusSpec
from ebus_jupyter.errors import BackendError
from tests.contracts.backend import TEAMS, VOTES, append, begin, ids, kept, values, write

# --- the lock ---------------------------------------------------------------------------------------------------------


OPEN = """
import asyncio, sys
from ebus_jupyter.backends.sqlite import SqliteBackend
from ebus_jupyter.errors import BackendError
try: asyncio.run(SqliteBackend(sys.argv[1], patience=0).buses())
except BackendError as error: print(error)
"""
"""A program that opens a database, and prints why it can't."""


async def open_in_another_process(path: Path) -> str:
    run = [sys.executable, "-c", OPEN, str(path)]
    root = Path(__file__).parents[2]
    return (await asyncio.to_thread(subprocess.run, run, cwd=root, capture_output=True, text=True, check=True)).stdout


@pytest.mark.asyncio
async def test_file_is_readable_for_its_owner_only(backend: SqliteBackend, path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o644)
    await begin(backend)
    await backend.append([write("secret")])
    beside = [file for file in path.parent.iterdir() if not file.name.endswith("-owner")]
    assert {file.name.removeprefix(path.name) for file in beside} == {"", "-wal", "-lock"}, "no shared memory"
    assert {stat.S_IMODE(file.stat().st_mode) for file in beside} == {0o600}


@pytest.mark.asyncio
async def test_second_process_error_names_the_owner_of_the_file(backend: SqliteBackend, path: Path) -> None:
    await begin(backend)
    said = await open_in_another_process(path)
    assert f"in use by process {os.getpid()} on " in said
    assert "stop that one, or give this one a file of its own" in said
    await backend.append([write("still mine")])


@pytest.mark.asyncio
async def test_lock_survives_a_read_of_the_file_by_its_own_process(backend: SqliteBackend, path: Path) -> None:
    await begin(backend)
    path.read_bytes()  # closes a descriptor of the file, which ends SQLite's locks of this process
    assert "in use by process" in await open_in_another_process(path)


@pytest.mark.asyncio
async def test_file_that_a_database_browser_has_open_is_not_in_use(path: Path) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as browser:
        browser.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BackendError, match="is open in a program that is no server") as refused:
            await SqliteBackend(path, patience=0).buses()
    assert not refused.value.details.get("in_use"), "the server takes no other file"
    successor = SqliteBackend(path)
    assert not await successor.buses()
    await successor.aclose()


@pytest.mark.asyncio
async def test_successor_waits_for_the_file(backend: SqliteBackend, path: Path) -> None:
    await begin(backend)
    successor = SqliteBackend(path)
    waiting = asyncio.create_task(successor.buses())
    await asyncio.sleep(0)
    await backend.aclose()
    assert list(await waiting) == [VOTES]
    await successor.aclose()


@pytest.mark.asyncio
async def test_second_backend_in_the_same_process_is_refused(backend: SqliteBackend, path: Path) -> None:
    await begin(backend)
    with pytest.raises(BackendError, match="in use by"):
        await SqliteBackend(path, patience=0).buses()


# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_older_file_is_migrated(backend: SqliteBackend, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await begin(backend)
    await backend.append([write("old")])
    await backend.aclose()

    def add_notes(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE buses ADD COLUMN note TEXT")

    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*sqlite_file.MIGRATIONS, add_notes))
    newer = SqliteBackend(path)
    assert values((await kept(newer)).entries) == ["old"]
    await newer.aclose()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(sqlite_file.MIGRATIONS),)
        assert db.execute("SELECT note FROM buses").fetchall() == [(None,)]
    db.close()


@pytest.mark.asyncio
async def test_file_of_the_first_schema_keeps_its_buses(path: Path) -> None:
    entries = [write("a", id=1), write("b", id=2), write("c", id=3)]
    for offset, entry in enumerate(entries, start=5):
        entry.offset = offset
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        sqlite_log.MIGRATIONS[0](db)
        db.execute("PRAGMA user_version = 1")
        spec = msgspec.msgpack.encode(BusSpec(size=100))
        db.executemany("INSERT INTO buses VALUES (?,?,?,'epoch',4)", [(1, VOTES, spec), (2, VOTES + "-2", spec)])
        for offset, segment in ((6, entries[:2]), (7, entries[2:])):
            db.execute("INSERT INTO messages VALUES (1,?,NULL,30,?)", (offset, msgspec.msgpack.encode(segment)))
        db.execute("INSERT INTO runs VALUES (1,5,?,1,3)", (sender_id(entries[0].sender),))
    db.close()
    backend = SqliteBackend(path)
    found = await kept(backend)
    assert (values(found.entries), found.last, found.floor) == (["a", "b", "c"], 7, 4)
    assert list(ids(found).values()) == [5, 6, 7]
    other = await backend.open(VOTES + "-2", None, "")
    assert other is not None
    assert (other.entries, other.last) == ([], 0)
    assert await append(backend, write("d", id=4)) == [8]
    assert values((await kept(backend)).entries) == ["a", "b", "c", "d"]
    await backend.aclose()


@pytest.mark.asyncio
async def test_failed_migration_leaves_the_file_unchanged(
    backend: SqliteBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(backend)
    await backend.aclose()

    def breaks(db: sqlite3.Connection) -> None:
        db.execute("DROP TABLE buses")
        db.execute("SELECT * FROM nothing")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_file, "MIGRATIONS", (*sqlite_file.MIGRATIONS, breaks))
        with pytest.raises(BackendError):
            await SqliteBackend(path).buses()
    backend = SqliteBackend(path)
    assert list(await backend.buses()) == [VOTES]
    await backend.aclose()


@pytest.mark.asyncio
async def test_newer_file_is_refused(backend: SqliteBackend, path: Path) -> None:
    await begin(backend)
    await backend.aclose()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(BackendError, match=r"newer ebus_jupyter .* update ebus_jupyter"):
        await SqliteBackend(path).buses()


@pytest.mark.asyncio
async def test_database_of_another_program_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE buses (number TEXT)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(BackendError, match="another program"):
        await SqliteBackend(path).buses()
    assert path.read_bytes() == before


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_file_that_is_no_database_is_reported_as_damaged(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(BackendError, match="damaged: stop the server"):
        await SqliteBackend(path).buses()


@pytest.mark.asyncio
@pytest.mark.parametrize("where", ["folder", "file/ebus.sqlite"])
async def test_unwritable_path_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match="must be able to write") as refused:
        await SqliteBackend(tmp_path / where).buses()
    assert str(tmp_path / where) in str(refused.value)


@pytest.mark.asyncio
@pytest.mark.parametrize("retain", ["log", "keys"])
async def test_full_disk_keeps_nothing_and_recovers(backend: SqliteBackend, retain: Any) -> None:
    key = {"key": "k"} if retain == "keys" else {}
    await begin(backend, retain=retain)
    await begin(backend, TEAMS)
    await backend.append([write("before", **key)])
    db = backend._file.connection
    assert db is not None
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    batch = [write("small", bus=TEAMS), write("x" * 100_000, **key)]
    with pytest.raises(BackendError, match="disk is full: make room"):
        await backend.append(batch)
    assert [entry.offset for entry in batch] == [0, 0]
    db.execute(f"PRAGMA max_page_count = {1 << 30}")
    assert values((await kept(backend)).entries) == ["before"]
    assert (await kept(backend, TEAMS)).last == 0
    appended = await backend.append([write("after", **key), write("one", bus=TEAMS)])
    assert [entry.offset for entry in appended] == [2, 1]
    assert values(appended) == ["after", "one"]


@pytest.mark.asyncio
async def test_removal_that_was_not_kept_is_forgotten(backend: SqliteBackend) -> None:
    await begin(backend, retain="keys", size=1)
    db = backend._file.connection
    assert db is not None
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(BackendError):
        await backend.append([write("", key="a", deleted=True), write("x" * 100_000, key="b")])
    db.execute(f"PRAGMA max_page_count = {1 << 30}")
    await backend.append([write("", key="c", deleted=True)])
    assert ((await kept(backend)).last, (await kept(backend)).floor) == (1, 0)  # the first mark, and room for it
