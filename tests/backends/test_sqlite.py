from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from ebus_jupyter.backends import sqlite
from ebus_jupyter.backends.base import Backend
from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.backends.sqlite import CHECKPOINT_BYTES, SqliteBackend
from ebus_jupyter.core.broker.entry import Entry, Kept
from ebus_jupyter.core.protocol.message import BusSpec, Participant
from ebus_jupyter.errors import BackendError
from tests.contracts.backend import (
    TEAMS,
    VOTES,
    DurableLaws,
    began,
    ids,
    keeps_two_buses_and_no_third,
    kept,
    values,
    write,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jupyter" / "ebus.sqlite"


@pytest_asyncio.fixture
async def backend(path: Path) -> AsyncIterator[SqliteBackend]:
    made = SqliteBackend(path)
    yield made
    await made.aclose()


@pytest_asyncio.fixture
async def reopen(path: Path) -> AsyncIterator[Callable[[Backend], Awaitable[Backend]]]:
    made: list[SqliteBackend] = []

    async def again(backend: Backend) -> Backend:
        await backend.aclose()
        made.append(SqliteBackend(path))
        return made[-1]

    yield again
    for backend in made:
        await backend.aclose()


class TestSqlite(DurableLaws):
    pass


class TestFullSync(DurableLaws):
    @pytest_asyncio.fixture
    async def backend(self, path: Path) -> AsyncIterator[SqliteBackend]:
        made = SqliteBackend(path, synchronous="FULL")
        yield made
        await made.aclose()


# --- room -----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_log_of_large_values_drops_its_oldest_before_its_size_is_reached(path: Path) -> None:
    backend = await began(SqliteBackend(path, max_bytes=100_000))
    for letter in "abcdefghijklmnopqrstuvwxyz":
        await backend.append([write(letter * 10_000)])
    found = await kept(backend)
    assert "".join(value[0] for value in values(found.entries)) == "rstuvwxyz"
    assert found.floor == 17
    await backend.aclose()


@pytest.mark.asyncio
async def test_of_values_that_were_written_together_only_those_over_the_bound_go(path: Path) -> None:
    backend = await began(SqliteBackend(path, max_bytes=100_000))
    await backend.append([write(letter * 40_000) for letter in "abc"])
    await backend.append([write("d" * 10_000)])
    found = await kept(backend)
    assert "".join(value[0] for value in values(found.entries)) == "bcd"
    assert found.floor == 1
    await backend.aclose()


@pytest.mark.asyncio
async def test_the_file_of_a_busy_bus_stops_growing(backend: SqliteBackend, path: Path) -> None:
    await began(backend, size=100)

    async def write_more() -> int:
        for _ in range(100):
            await backend.append([write("x" * 500) for _ in range(50)])
        backend._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]
        return path.stat().st_size

    sizes = [await write_more() for _ in range(8)]
    assert sizes[-1] <= sizes[-3]
    assert sizes[-1] < 1_500_000  # of 20 MB that were written


@pytest.mark.asyncio
async def test_the_write_ahead_log_is_brought_in_beside_the_loop(backend: SqliteBackend, path: Path) -> None:
    await began(backend, size=10)
    assert backend._connection is not None
    where: list[int] = []  # a checkpoint was made: by which thread
    backend._connection.set_trace_callback(
        lambda statement: where.append(threading.get_ident()) if "wal_checkpoint" in statement else None
    )
    heard: list[Entry] = []
    backend.on_committed(heard.extend)
    for _ in range(200):
        await backend.append([write("x" * 100_000)])
        await asyncio.sleep(0)
    assert [entry.offset for entry in heard] == list(range(1, 201))
    assert len(where) >= 4  # of 20 MB
    assert threading.get_ident() not in where
    assert path.with_name(path.name + "-wal").stat().st_size < 3 * CHECKPOINT_BYTES


@pytest.mark.asyncio
async def test_a_file_is_closed_when_its_last_checkpoint_is_done(path: Path) -> None:
    backend = await began(SqliteBackend(path))
    while backend._checkpoint is None:
        await backend.append([write("x" * 1_000_000)])
    last = (await kept(backend)).last
    await backend.aclose()
    again = SqliteBackend(path)
    assert (await kept(again)).last == last
    await again.aclose()


@pytest.mark.asyncio
async def test_who_is_cancelled_while_the_disk_works_leaves_nothing_half_done(path: Path) -> None:
    backend = await began(SqliteBackend(path, synchronous="FULL"))
    writing = asyncio.create_task(backend.append([write("tea")]))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await backend.append([write("coffee", id=2)]) == [2]
    assert values((await kept(backend)).entries) == ["tea", "coffee"]
    await backend.aclose()


@pytest.mark.asyncio
async def test_there_are_no_more_buses_than_it_was_told_to_keep(path: Path) -> None:
    backend = SqliteBackend(path, max_buses=2)
    await keeps_two_buses_and_no_third(backend)
    await backend.aclose()


@pytest.mark.asyncio
async def test_ids_are_forgotten_in_the_end(path: Path) -> None:
    backend = SqliteBackend(path, dedupe=10)
    await began(backend, retain="latest")
    for i in range(1000):
        await backend.append([write(who="ann" if i % 2 else "bob", id=i + 1)])
    assert list(ids(await kept(backend)).values()) == list(range(991, 1001))
    (rows,) = backend._connection.execute("SELECT count(*) FROM runs").fetchone()  # type: ignore[union-attr]
    assert rows < 500
    await backend.aclose()


# --- the same as memory ---------------------------------------------------------------------------------------------

BUSES = {"log": "ebus:server/log", "latest": "ebus:server/latest", "keys": "ebus:server/keys"}

_some_write = st.tuples(
    st.sampled_from(sorted(BUSES)), st.sampled_from("abcd"), st.booleans(), st.integers(0, 90), st.sampled_from("xyz")
)
_append = st.tuples(st.just("append"), st.lists(_some_write, min_size=1, max_size=12))
_steps = st.lists(
    st.one_of(
        _append,
        _append,
        st.tuples(st.just("open"), st.sampled_from(sorted(BUSES))),
        st.tuples(st.sampled_from(["delete", "begin anew"]), st.sampled_from(sorted(BUSES))),
        st.tuples(st.just("restart"), st.none()),
    ),
    min_size=3,
    max_size=25,
)


def _comparable(found: Kept | None, dedupe: int) -> Any:
    if found is None:
        return None
    return found.spec, found.epoch, found.last, found.floor, found.entries, list(found.ids())[-dedupe:]


@settings(max_examples=80, deadline=None)
@given(steps=_steps, size=st.integers(1, 5), max_bytes=st.integers(60, 400), dedupe=st.integers(1, 20))
def test_it_keeps_what_memory_keeps(steps: list[Any], size: int, max_bytes: int, dedupe: int) -> None:
    """Whatever is appended, opened and deleted, and however often the process ends in between."""
    bounds = {"max_bytes": max_bytes, "dedupe": dedupe}

    async def both() -> None:
        memory, disk = MemoryBackend(**bounds), SqliteBackend(folder + "/b", **bounds)
        count = 0
        for step, what in [*(("open", retain) for retain in BUSES), *steps]:
            if step == "append":
                batch = []
                for retain, key, deleted, length, who in what:
                    count += 1
                    sender = msgspec.msgpack.encode(Participant(who, "page", who))
                    keyed = {"key": key, "deleted": deleted} if retain == "keys" else {}
                    batch.append(Entry(BUSES[retain], count, 0.5, sender, b"v" * length, **keyed))
                copy = [msgspec.structs.replace(entry) for entry in batch]
                answers = await asyncio.gather(memory.append(batch), disk.append(copy), return_exceptions=True)
                assert repr(answers[0]) == repr(answers[1])
                assert batch == copy
            elif step in ("open", "begin anew"):
                if step == "begin anew":
                    await memory.delete(BUSES[what])
                    await disk.delete(BUSES[what])
                spec = BusSpec(retain=what, size=size)
                opened = [await backend.open(BUSES[what], spec, "e") for backend in (memory, disk)]
                assert _comparable(opened[0], dedupe) == _comparable(opened[1], dedupe)
            elif step == "delete":
                await memory.delete(BUSES[what])
                await disk.delete(BUSES[what])
            else:
                open_before = list(disk._open)
                await disk.aclose()
                disk = SqliteBackend(folder + "/b", **bounds)
                for uri in open_before:
                    await disk.open(uri, None, "")
            assert await memory.buses() == await disk.buses()
        for uri in BUSES.values():
            found = [await backend.open(uri, None, "") for backend in (memory, disk)]
            assert _comparable(found[0], dedupe) == _comparable(found[1], dedupe)
        await disk.aclose()

    # Rows of a log are dropped as early as can be, so that few entries suffice to see it.
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite, "PRUNE", 2)
        patch.setattr(sqlite, "SEGMENT", (3, 100))
        asyncio.run(both())


# --- the file -------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_nobody_else_can_read_it(backend: SqliteBackend, path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o644)
    await began(backend)
    await backend.append([write("secret")])
    beside = [file for file in path.parent.iterdir() if not file.name.endswith("-owner")]
    assert len(beside) == 2  # the file and its log; no shared memory
    assert {stat.S_IMODE(file.stat().st_mode) for file in beside} == {0o600}


@pytest.mark.asyncio
async def test_a_second_server_is_told_who_has_the_file(backend: SqliteBackend, path: Path) -> None:
    await began(backend)
    script = (
        "import asyncio, sys\n"
        "from ebus_jupyter.backends.sqlite import CHECKPOINT_BYTES, SqliteBackend\n"
        "from ebus_jupyter.errors import BackendError\n"
        "try: asyncio.run(SqliteBackend(sys.argv[1], patience=0).buses())\n"
        "except BackendError as error: print(error)\n"
    )
    run = [sys.executable, "-c", script, str(path)]
    root = Path(__file__).parents[2]
    said = (await asyncio.to_thread(subprocess.run, run, cwd=root, capture_output=True, text=True, check=True)).stdout
    assert f"in use by process {os.getpid()} on " in said
    assert "stop that one, or give this one a file of its own" in said
    await backend.append([write("still mine")])


@pytest.mark.asyncio
async def test_a_successor_waits_for_the_file_a_moment(backend: SqliteBackend, path: Path) -> None:
    await began(backend)
    successor = SqliteBackend(path)
    waiting = asyncio.create_task(successor.buses())
    await asyncio.sleep(0)
    await backend.aclose()
    assert list(await waiting) == [VOTES]
    await successor.aclose()


@pytest.mark.asyncio
async def test_a_second_broker_in_this_process_is_refused_too(backend: SqliteBackend, path: Path) -> None:
    await began(backend)
    with pytest.raises(BackendError, match="in use by"):
        await SqliteBackend(path, patience=0).buses()


@pytest.mark.asyncio
async def test_an_older_file_is_migrated(backend: SqliteBackend, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await began(backend)
    await backend.append([write("old")])
    await backend.aclose()

    def add_notes(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE buses ADD COLUMN note TEXT")

    monkeypatch.setattr(sqlite, "MIGRATIONS", (*sqlite.MIGRATIONS, add_notes))
    newer = SqliteBackend(path)
    assert values((await kept(newer)).entries) == ["old"]
    await newer.aclose()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(sqlite.MIGRATIONS),)
        assert db.execute("SELECT note FROM buses").fetchall() == [(None,)]
    db.close()


@pytest.mark.asyncio
async def test_a_migration_that_fails_leaves_the_file_as_it_was(
    backend: SqliteBackend, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await began(backend)
    await backend.aclose()

    def breaks(db: sqlite3.Connection) -> None:
        db.execute("DROP TABLE buses")
        db.execute("SELECT * FROM nothing")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "MIGRATIONS", (*sqlite.MIGRATIONS, breaks))
        with pytest.raises(BackendError):
            await SqliteBackend(path).buses()
    backend = SqliteBackend(path)
    assert list(await backend.buses()) == [VOTES]
    await backend.aclose()


@pytest.mark.asyncio
async def test_a_newer_file_is_left_alone(backend: SqliteBackend, path: Path) -> None:
    await began(backend)
    await backend.aclose()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(BackendError, match=r"newer ebus_jupyter .* update ebus_jupyter"):
        await SqliteBackend(path).buses()


@pytest.mark.asyncio
async def test_another_program_s_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE buses (number TEXT)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(BackendError, match="another program"):
        await SqliteBackend(path).buses()
    assert path.read_bytes() == before


@pytest.mark.asyncio
async def test_what_is_no_database_is_named_damaged(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(BackendError, match="damaged: stop the server"):
        await SqliteBackend(path).buses()


@pytest.mark.asyncio
@pytest.mark.parametrize("where", ["folder", "file/ebus.sqlite"])
async def test_a_place_that_can_t_be_written_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match="must be able to write") as refused:
        await SqliteBackend(tmp_path / where).buses()
    assert str(tmp_path / where) in str(refused.value)


@pytest.mark.asyncio
@pytest.mark.parametrize("retain", ["log", "keys"])
async def test_a_full_disk_keeps_nothing_and_then_goes_on(backend: SqliteBackend, retain: Any) -> None:
    key = {"key": "k"} if retain == "keys" else {}
    await began(backend, retain=retain)
    await began(backend, TEAMS)
    await backend.append([write("before", **key)])
    heard: list[Entry] = []
    backend.on_committed(heard.extend)
    db = backend._connection
    assert db is not None
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    batch = [write("small", bus=TEAMS), write("x" * 100_000, **key)]
    with pytest.raises(BackendError, match="disk is full: make room"):
        await backend.append(batch)
    assert heard == []
    assert [entry.offset for entry in batch] == [0, 0]
    db.execute(f"PRAGMA max_page_count = {1 << 30}")
    assert values((await kept(backend)).entries) == ["before"]
    assert (await kept(backend, TEAMS)).last == 0
    assert await backend.append([write("after", **key), write("one", bus=TEAMS)]) == [2, 1]
    assert values(heard) == ["after", "one"]


@pytest.mark.asyncio
async def test_a_removal_that_was_not_kept_is_forgotten(backend: SqliteBackend) -> None:
    await began(backend, retain="keys", size=1)
    db = backend._connection
    assert db is not None
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(BackendError):
        await backend.append([write("", key="a", deleted=True), write("x" * 100_000, key="b")])
    db.execute(f"PRAGMA max_page_count = {1 << 30}")
    await backend.append([write("", key="c", deleted=True)])
    assert ((await kept(backend)).last, (await kept(backend)).floor) == (1, 0)  # the first mark, and room for it
