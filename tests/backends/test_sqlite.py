"""The SQLite backend: the laws, its bounds, and that it keeps what the memory backend keeps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from ebus_jupyter.backends import sqlite_answers, sqlite_log
from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.backends.sqlite import SqliteBackend
from ebus_jupyter.backends.sqlite_file import CHECKPOINT_BYTES, PAGE_BYTES
from ebus_jupyter.core.broker import answers
from ebus_jupyter.core.broker.entry import Entry
from ebus_jupyter.core.broker.kept import Kept
from ebus_jupyter.core.protocol.message import BusSpec, Participant
from tests.contracts.backend import DurableLaws, append, begin, check_max_buses_of_two, ids, kept, values, write


class TestSqlite(DurableLaws):
    pass


class TestFullSync(DurableLaws):
    @pytest_asyncio.fixture
    async def backend(self, path: Path) -> AsyncIterator[SqliteBackend]:
        made = SqliteBackend(path, synchronous="FULL")
        yield made
        await made.aclose()


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_log_is_bounded_in_bytes(path: Path) -> None:
    backend = await begin(SqliteBackend(path, max_bytes=100_000))
    for letter in "abcdefghijklmnopqrstuvwxyz":
        await backend.append([write(letter * 10_000)])
    found = await kept(backend)
    assert "".join(value[0] for value in values(found.entries)) == "rstuvwxyz"
    assert found.floor == 17
    await backend.aclose()


@pytest.mark.asyncio
async def test_part_of_a_segment_over_the_bound_is_left_out(path: Path) -> None:
    backend = await begin(SqliteBackend(path, max_bytes=100_000))
    await backend.append([write(letter * 40_000) for letter in "abc"])
    await backend.append([write("d" * 10_000)])
    found = await kept(backend)
    assert "".join(value[0] for value in values(found.entries)) == "bcd"
    assert found.floor == 1
    await backend.aclose()


@pytest.mark.asyncio
async def test_file_of_a_busy_bus_stops_growing(backend: SqliteBackend, path: Path) -> None:
    await begin(backend, size=100)

    async def write_more() -> int:
        for _ in range(100):
            await backend.append([write("x" * 500) for _ in range(50)])
        backend._file.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]
        return path.stat().st_size

    sizes = [await write_more() for _ in range(8)]
    assert sizes[-1] <= sizes[-3]
    assert sizes[-1] < 1_500_000  # of 20 MB that were written


@pytest.mark.asyncio
async def test_file_returns_the_space_of_a_deleted_bus(path: Path) -> None:
    backend = await begin(SqliteBackend(path))
    for _ in range(30):
        await backend.append([write("x" * 1_000_000)])
        if backend._checkpoint is not None:
            await backend._checkpoint
    assert path.stat().st_size > 20_000_000
    await backend.delete("ebus:server/votes")
    assert backend._checkpoint is not None
    await backend._checkpoint
    assert path.stat().st_size < 3 * CHECKPOINT_BYTES
    await backend.aclose()


@pytest.mark.asyncio
async def test_number_of_buses_is_bounded(path: Path) -> None:
    backend = SqliteBackend(path, max_buses=2)
    await check_max_buses_of_two(backend)
    await backend.aclose()


@pytest.mark.asyncio
async def test_remembered_ids_are_bounded(path: Path) -> None:
    backend = SqliteBackend(path, dedupe=10)
    await begin(backend, retain="latest")
    for i in range(6000):
        await backend.append([write(who="ann" if i % 2 else "bob", id=i + 1)])
    known = ids(await kept(backend))
    assert all(known["ann" if i % 2 else "bob", i + 1] == i + 1 for i in range(5980, 6000))
    assert len(known) < 1500
    db = backend._file.connection
    assert db is not None
    assert db.execute("SELECT count(*) FROM runs").fetchone() <= (1025,)
    assert db.execute("SELECT count(*) FROM answers").fetchone() < (10,)
    await backend.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize("together", [1, 50])
async def test_opening_reads_the_newest_entries_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(sqlite_log, "RECENT", (100, 1 << 20))
    backend = await begin(SqliteBackend(path), size=5000)
    for start in range(0, 6000, together):
        await backend.append([write(str(i)) for i in range(start, start + together)])
    size = sum(entry.size for entry in backend.read("ebus:server/votes", 1000, 1 << 30)[0])
    await backend.aclose()
    again = SqliteBackend(path)
    db = await again._file.open()
    statements: list[str] = []
    db.set_trace_callback(statements.append)
    found = await kept(again)
    assert 100 <= len(found.entries) < 100 + 256
    assert (found.start, found.floor, found.last) == (found.entries[0].offset - 1, 1000, 6000)
    head = again._heads["ebus:server/votes"]
    assert head is not None
    assert head.bytes >= size
    sums = [statement for statement in statements if "sum(size)" in statement]
    assert len(sums) == 1
    first, last = (int(word) & sqlite_log.OFFSET for word in sums[0].split() if word.isdigit() and len(word) > 8)
    assert last - first < 1100  # not the whole log
    await again.aclose()


# --- lone writes --------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_lone_write_to_a_log_changes_one_page(backend: SqliteBackend, path: Path) -> None:
    await begin(backend)
    log = path.with_name(path.name + "-wal")
    await backend.append([write("first")])
    sizes = []
    for _ in range(5):
        before = log.stat().st_size
        await backend.append([write("next")])
        sizes.append(log.stat().st_size - before)
    assert sizes == [PAGE_BYTES + 24] * 5


@pytest.mark.asyncio
@pytest.mark.parametrize("drop", ["one by one", "at once"])
async def test_lone_writes_are_remembered_once_dropped(path: Path, drop: str) -> None:
    backend = await begin(SqliteBackend(path, dedupe=2000), size=10)
    count = 1000
    for n in range(1, count + 1):
        await backend.append([write(who="ann" if n % 3 else "bob", id=n)])
    if drop == "at once":
        await backend.append([write(who="ann", id=n) for n in range(count + 1, count + 101)])
        count += 100
    await backend.aclose()
    again = SqliteBackend(path, dedupe=2000)
    found = await kept(again)
    assert (found.last, len(found.entries)) == (count, 10)
    assert sorted(ids(found).values()) == list(range(1, count + 1))
    assert await append(again, write("next")) == [count + 1]
    await again.aclose()


@pytest.mark.asyncio
async def test_last_offset_is_kept_where_every_message_was_dropped(path: Path) -> None:
    backend = await begin(SqliteBackend(path, max_bytes=1000))
    assert await append(backend, write("x" * 5000)) == [1]
    assert await append(backend, write("x" * 5000)) == [2]
    await backend.aclose()
    again = SqliteBackend(path, max_bytes=1000)
    assert (await kept(again)).last == 2
    assert await append(again, write("x")) == [3]
    await again.aclose()


# --- blocking ---------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_checkpoint_runs_on_another_thread(backend: SqliteBackend, path: Path) -> None:
    await begin(backend, size=10)
    assert backend._file.connection is not None
    where: list[int] = []  # the thread of each checkpoint
    backend._file.connection.set_trace_callback(
        lambda statement: where.append(threading.get_ident()) if "wal_checkpoint" in statement else None
    )
    offsets: list[int] = []
    for _ in range(200):
        offsets += await append(backend, write("x" * 100_000))
        await asyncio.sleep(0)
    assert offsets == list(range(1, 201))
    assert len(where) >= 4  # of 20 MB
    assert threading.get_ident() not in where
    assert path.with_name(path.name + "-wal").stat().st_size < 3 * CHECKPOINT_BYTES


@pytest.mark.asyncio
async def test_close_waits_for_the_last_checkpoint(path: Path) -> None:
    backend = await begin(SqliteBackend(path))
    while backend._checkpoint is None:
        await backend.append([write("x" * 1_000_000)])
    last = (await kept(backend)).last
    await backend.aclose()
    again = SqliteBackend(path)
    assert (await kept(again)).last == last
    await again.aclose()


@pytest.mark.asyncio
async def test_cancelled_append_is_kept_whole(path: Path) -> None:
    backend = await begin(SqliteBackend(path, synchronous="FULL"))
    writing = asyncio.create_task(backend.append([write("tea")]))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await append(backend, write("coffee", id=2)) == [2]
    assert values((await kept(backend)).entries) == ["tea", "coffee"]
    await backend.aclose()


# --- compared with memory ---------------------------------------------------------------------------------------------


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
        st.tuples(st.sampled_from(["delete", "recreate"]), st.sampled_from(sorted(BUSES))),
        st.tuples(st.just("restart"), st.none()),
    ),
    min_size=3,
    max_size=25,
)


def _comparable(found: Kept | None, dedupe: int) -> Any:
    if found is None:
        return None
    by_client: dict[str, list[tuple[int, int]]] = {}
    for (sender, id_), offset in sorted(found.ids(), key=lambda known: known[1]):
        by_client.setdefault(sender, []).append((id_, offset))
    remembered = {sender: ids[-dedupe:] for sender, ids in by_client.items()}
    return found.spec, found.epoch, found.last, found.floor, found.entries, remembered


@settings(max_examples=80, deadline=None)
@given(steps=_steps, size=st.integers(1, 5), max_bytes=st.integers(60, 400), dedupe=st.integers(1, 20))
def test_keeps_what_memory_keeps(steps: list[Any], size: int, max_bytes: int, dedupe: int) -> None:
    """After any sequence of appends, opens and deletions, with restarts in between."""
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
            elif step in ("open", "recreate"):
                if step == "recreate":
                    await memory.delete(BUSES[what])
                    await disk.delete(BUSES[what])
                spec = BusSpec(retain=what, size=size)
                opened = [await backend.open(BUSES[what], spec, "e") for backend in (memory, disk)]
                assert _comparable(opened[0], dedupe) == _comparable(opened[1], dedupe)
            elif step == "delete":
                await memory.delete(BUSES[what])
                await disk.delete(BUSES[what])
            else:
                open_before = list(disk._heads)
                await disk.aclose()
                disk = SqliteBackend(folder + "/b", **bounds)
                for uri in open_before:
                    await disk.open(uri, None, "")
            assert await memory.buses() == await disk.buses()
        for uri in BUSES.values():
            found = [await backend.open(uri, None, "") for backend in (memory, disk)]
            assert _comparable(found[0], dedupe) == _comparable(found[1], dedupe)
        await disk.aclose()

    # Segments are small and are dropped early, so that few entries suffice to see it.
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_log, "PRUNE", 2)
        patch.setattr(sqlite_log, "FOLD", 4)
        patch.setattr(sqlite_answers, "RUNS", 3)
        patch.setattr(answers, "RUNS", 3)
        patch.setattr(sqlite_log, "SEGMENT", (3, 100))
        asyncio.run(both())
