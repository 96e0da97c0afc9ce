"""The laws of `ebus_jupyter.backends.base`.

The test file of a backend has a fixture ``backend`` and inherits `Laws`. For a backend whose logs outlive it, it also has a
fixture ``reopen`` (closes the backend, returns its successor) and inherits `DurableLaws`. For a shared engine it inherits
`SharedLaws`; the fixture's ``deliver()`` returns once the feed has reported everything that was appended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from ebus_jupyter.backends.base import Backend
from ebus_jupyter.core.broker.entry import Entry
from ebus_jupyter.core.broker.kept import Kept
from ebus_jupyter.core.protocol.message import BusSpec, Participant
from ebus_jupyter.errors import BackendError, TooLarge

VOTES = "ebus:server/votes"
TEAMS = "ebus:user/ann%40example.org/teams"

Reopen = Callable[[Backend], Awaitable[Backend]]

_counts: dict[str, int] = {}


def write(value: str = "", *, bus: str = VOTES, who: str = "ann", id: int = 0, **fields: Any) -> Entry:
    """A write, ready to be appended. Without an ``id`` it is the sender's next one."""
    _counts[who] = id or _counts.get(who, 0) + 1
    sender = msgspec.msgpack.encode(Participant(who, "page", who))
    return Entry(bus, _counts[who], 1.5, sender, msgspec.msgpack.encode(value), **fields)


async def begin(backend: Backend, bus: str = VOTES, **spec: Any) -> Backend:
    assert await backend.open(bus, BusSpec(**spec), "epoch-1") is not None
    return backend


async def append(backend: Backend, *batch: Entry) -> list[int]:
    """Append ``batch``, and return the offsets."""
    return [entry.offset for entry in await backend.append(batch)]


async def kept(backend: Backend, bus: str = VOTES) -> Kept:
    found = await backend.open(bus, None, "never used")
    assert found is not None
    return found


def values(entries: Sequence[Entry]) -> list[str]:
    return [msgspec.msgpack.decode(entry.value) for entry in entries]


def ids(found: Kept) -> dict[tuple[str, int], int]:
    return dict(found.ids())


async def check_max_buses_of_two(backend: Backend) -> None:
    """Check a backend that keeps two buses at most."""
    await begin(backend)
    await begin(backend, TEAMS)
    await backend.append([write("a", bus=TEAMS)])
    with pytest.raises(TooLarge, match="keeps 2 buses") as full:
        await backend.open("ebus:server/third", BusSpec(), "epoch-1")
    assert full.value.details["limit"] == "kept_buses"
    assert await backend.open("ebus:server/third", None, "never used") is None
    assert values((await kept(backend, TEAMS)).entries) == ["a"]
    await backend.delete(VOTES)
    await begin(backend, "ebus:server/third")


@pytest.mark.asyncio
class Laws:
    """What every backend promises."""

    # --- sequenced --------------------------------------------------------------------------------------------------

    async def test_each_entry_is_assigned_a_greater_offset(self, backend: Backend) -> None:
        await begin(backend)
        offsets = [*await append(backend, write("a"), write("b")), *await append(backend, write("c"))]
        assert offsets == sorted(set(offsets))
        assert offsets[0] > 0
        assert [entry.offset for entry in (await kept(backend)).entries] == offsets
        assert (await kept(backend)).last == offsets[-1]

    async def test_each_bus_has_offsets_of_its_own(self, backend: Backend) -> None:
        await begin(backend)
        await begin(backend, TEAMS)
        batch = [write("a"), write("b", bus=TEAMS), write("c"), write("d", bus=TEAMS)]
        offsets = await append(backend, *batch)
        assert offsets == [entry.offset for entry in batch]
        assert values((await kept(backend)).entries) == ["a", "c"]
        assert values((await kept(backend, TEAMS)).entries) == ["b", "d"]

    async def test_offset_of_a_dropped_entry_is_not_reused(self, backend: Backend) -> None:
        await begin(backend, size=1)
        given = [offset for i in range(400) for offset in await append(backend, write(str(i)))]
        assert len(set(given)) == 400

    # --- log before fan-out -----------------------------------------------------------------------------------------

    async def test_appended_entries_are_kept_already(self, backend: Backend) -> None:
        await begin(backend)
        offsets = await append(backend, write("a"))
        assert [entry.offset for entry in (await kept(backend)).entries] == offsets

    async def test_append_returns_the_batch_in_order(self, backend: Backend) -> None:
        await begin(backend)
        await begin(backend, TEAMS, retain="latest")
        appended = [*await backend.append([write("a", id=7), write("x", bus=TEAMS), write("y", bus=TEAMS)])]
        appended += await backend.append([write("b", to=("bob",), echo=False)])
        assert values(appended) == ["a", "x", "y", "b"]
        of_votes = [entry.offset for entry in appended if entry.bus == VOTES]
        assert of_votes == sorted(of_votes)
        assert all(entry.offset for entry in appended)

    async def test_entries_are_kept_unchanged(self, backend: Backend) -> None:
        await begin(backend, retain="keys")
        whole = write("ä\0", key="k\0", to=("bob", "eve"), echo=False, id=(1 << 53) - 1)
        await backend.append([whole])
        gone = write("", key="gone", deleted=True)
        await backend.append([gone])
        assert (await kept(backend)).entries == [whole, gone]

    # --- whole or nothing -------------------------------------------------------------------------------------------

    async def test_append_now_keeps_what_append_would(self, backend: Backend) -> None:
        await begin(backend)
        appended = [*await backend.append([write("one")])]
        more = backend.append_now([write("two"), write("three")])
        if more is None:  # it takes time, and nothing was kept
            more = await backend.append([write("two"), write("three")])
        assert [entry.offset for entry in more] == [2, 3]
        appended += more
        assert values(appended) == values((await kept(backend)).entries) == ["one", "two", "three"]
        with pytest.raises(BackendError, match="not open"):
            if backend.append_now([write(bus=TEAMS)]) is None:
                await backend.append([write(bus=TEAMS)])

    async def test_append_to_an_unopened_bus_keeps_nothing(self, backend: Backend) -> None:
        await begin(backend)
        with pytest.raises(BackendError):
            await backend.append([write("a"), write("b", bus=TEAMS)])
        assert (await kept(backend)).entries == []
        (offset,) = await append(backend, write("c"))
        assert offset == (await kept(backend)).last

    # --- opening ----------------------------------------------------------------------------------------------------

    async def test_open_without_a_spec_creates_nothing(self, backend: Backend) -> None:
        assert await backend.open(VOTES, None, "e") is None
        assert await backend.buses() == {}

    async def test_second_open_returns_the_first_spec_and_epoch(self, backend: Backend) -> None:
        first = BusSpec(type="Vote", schema={"type": "object", "x": [1, {}]}, size=3, readers=("ann",), maker="ann")
        begun = await backend.open(VOTES, first, "epoch-1")
        assert begun == Kept(first, "epoch-1")
        again = await backend.open(VOTES, BusSpec(size=9), "epoch-2")
        assert again == begun
        assert await backend.buses() == {VOTES: first}

    async def test_altered_bus_keeps_its_log_and_has_room_for_more(self, backend: Backend) -> None:
        await begin(backend, size=2)
        offsets = await append(backend, *[write(str(i)) for i in range(4)])
        spec = BusSpec(schema={"type": "string"}, size=5, version=2, altered=12.5)
        await backend.alter(VOTES, spec)
        more = [offset for i in range(4, 700) for offset in await append(backend, write(str(i)))]
        found = await kept(backend)
        assert (found.spec, found.epoch) == (spec, "epoch-1")
        assert values(found.entries) == ["695", "696", "697", "698", "699"]
        assert more[0] > offsets[-1]
        assert await backend.buses() == {VOTES: spec}

    async def test_altering_an_absent_bus_creates_nothing(self, backend: Backend) -> None:
        await backend.alter(VOTES, BusSpec(size=5))
        assert await backend.open(VOTES, None, "e") is None

    async def test_deleted_bus_can_be_created_again(self, backend: Backend) -> None:
        await begin(backend)
        await begin(backend, TEAMS)
        await backend.append([write("a"), write("b", bus=TEAMS)])
        await backend.delete(VOTES)
        await backend.delete(VOTES)
        assert await backend.open(VOTES, None, "") is None
        assert list(await backend.buses()) == [TEAMS]
        with pytest.raises(BackendError):
            await backend.append([write("c")])
        assert await backend.open(VOTES, BusSpec(), "epoch-2") == Kept(BusSpec(), "epoch-2")
        assert values((await kept(backend, TEAMS)).entries) == ["b"]

    # --- bounded ----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("together", [1, 3, 700])
    async def test_log_keeps_the_last_entries_and_its_floor(self, backend: Backend, together: int) -> None:
        await begin(backend, size=5)
        for start in range(0, 700, together):
            await backend.append([write(str(i)) for i in range(start, min(start + together, 700))])
        found = await kept(backend)
        assert values(found.entries) == ["695", "696", "697", "698", "699"]
        assert found.floor == found.entries[0].offset - 1

    async def test_latest_replaces_the_previous_entry(self, backend: Backend) -> None:
        await begin(backend, retain="latest")
        await backend.append([write("a"), write("b")])
        await backend.append([write("c")])
        found = await kept(backend)
        assert values(found.entries) == ["c"]
        assert found.floor == 0  # nothing was missed that such a bus promises

    async def test_keys_keep_their_last_entry(self, backend: Backend) -> None:
        await begin(backend, retain="keys")
        await backend.append([write("1", key="a"), write("2", key="b"), write("3", key="a")])
        await backend.append([write("4", key="c"), write("", key="b", deleted=True)])
        found = await kept(backend)
        assert [(entry.key, entry.deleted) for entry in found.entries] == [("a", False), ("c", False), ("b", True)]
        assert found.floor == 0

    async def test_marks_of_removed_keys_are_bounded(self, backend: Backend) -> None:
        await begin(backend, retain="keys", size=2)
        for key in "abc":
            await backend.append([write("1", key=key)])
            await backend.append([write("", key=key, deleted=True)])
        found = await kept(backend)
        assert [entry.key for entry in found.entries] == ["b", "c"]
        assert found.floor == found.entries[0].offset - 2  # the removal of "a"

    async def test_ids_are_remembered_longer_than_messages(self, backend: Backend) -> None:
        await begin(backend, retain="latest")
        sent = [write(str(i), who=who) for i in range(30) for who in ("ann", "bob")]
        offsets = [offset for entry in sent for offset in await append(backend, entry)]
        offsets += await append(backend, *(more := [write("x", who="eve") for _ in range(5)]))
        expected = {
            (msgspec.msgpack.decode(entry.sender)[0], entry.id): offset
            for entry, offset in zip(sent + more, offsets, strict=True)
        }
        assert ids(await kept(backend)) == expected

    async def test_no_other_writer_pushes_an_id_out(self, backend: Backend) -> None:
        await begin(backend)
        first = write("first", who="ann", id=41)
        await backend.append([first])
        for _ in range(21):
            await backend.append([write("x", who="eve") for _ in range(1000)])
        found = await kept(backend)
        assert ids(found)["ann", 41] == first.offset
        packed = sum(len(chunk.packed) for record in found.answers for chunk in record.chunks)
        assert packed + 50 * len(found.recent) < 60_000

    async def test_old_entries_are_read_in_portions(self, backend: Backend) -> None:
        await begin(backend, size=300)
        for start in (0, 400):
            await backend.append(
                [write(str(i), to=("bob",) if i % 7 == 0 else None) for i in range(start, start + 400)]
            )
        for i in range(800, 900):
            await backend.append([write(str(i))])
        read: list[Entry] = []
        while read[-1:] != [] or not read:
            part, floor = backend.read(VOTES, read[-1].offset if read else 600, 2000)
            assert floor == 600
            if not part:
                break
            assert len(part) == 1 or sum(entry.size for entry in part) <= 2000
            read += part
        assert values(read) == [str(i) for i in range(600, 900)]
        assert {entry.to for entry in read} == {None, ("bob",)}
        assert backend.read(VOTES, 599, 2000) == ([], 600)
        assert [entry.offset for entry in backend.read(VOTES, 700, 1)[0]] == [701]
        with pytest.raises(BackendError):
            backend.read(TEAMS, 0, 2000)

    # --- ending -----------------------------------------------------------------------------------------------------

    async def test_closed_backend_refuses_everything(self, backend: Backend) -> None:
        await begin(backend)
        await backend.aclose()
        await backend.aclose()
        with pytest.raises(BackendError):
            await backend.append([write("a")])
        with pytest.raises(BackendError):
            await backend.open(VOTES, BusSpec(), "e")


@pytest.mark.asyncio
class DurableLaws(Laws):
    """What a backend promises besides, where its logs outlive it."""

    @pytest.mark.parametrize("retain", ["log", "latest", "keys"])
    async def test_answered_appends_survive_a_restart(self, backend: Backend, reopen: Reopen, retain: Any) -> None:
        await begin(backend, retain=retain, size=4)
        for i in range(600):
            await backend.append([write(str(i), key=str(i % 3) if retain == "keys" else None, deleted=i == 100)])
        before = await kept(backend)
        backend = await reopen(backend)
        assert await backend.buses() == {VOTES: BusSpec(retain=retain, size=4)}
        assert await kept(backend) == before
        (offset,) = await append(backend, write("next", key="0" if retain == "keys" else None))
        assert offset > before.last

    async def test_offsets_continue_where_every_entry_was_dropped(self, backend: Backend, reopen: Reopen) -> None:
        await begin(backend, retain="keys", size=1)
        await backend.append([write("1", key="a"), write("", key="a", deleted=True)])
        (last,) = await append(backend, write("", key="b", deleted=True))
        backend = await reopen(backend)
        assert (await kept(backend)).last == last
        (offset,) = await append(backend, write("2", key="a"))
        assert offset > last

    async def test_ids_are_remembered_after_a_restart(self, backend: Backend, reopen: Reopen) -> None:
        await begin(backend, retain="latest")
        first = write("first", id=41)
        await backend.append([first])
        for i in range(50):
            await backend.append([write(str(i), who="bob")])
        backend = await reopen(backend)
        assert ids(await kept(backend))["ann", 41] == first.offset

    async def test_altered_spec_survives_a_restart(self, backend: Backend, reopen: Reopen) -> None:
        await begin(backend, retain="keys", size=2)
        await backend.append([write("1", key="a"), write("2", key="b")])
        spec = BusSpec(retain="keys", size=3, version=2, altered=1.0)
        await backend.alter(VOTES, spec)
        await backend.append([write("3", key="c")])
        before = await kept(backend)
        backend = await reopen(backend)
        assert await kept(backend) == before
        assert (before.spec, values(before.entries)) == (spec, ["1", "2", "3"])

    async def test_deletion_survives_a_restart(self, backend: Backend, reopen: Reopen) -> None:
        await begin(backend)
        await backend.append([write("a")])
        await backend.delete(VOTES)
        backend = await reopen(backend)
        assert await backend.open(VOTES, None, "") is None
        assert await backend.open(VOTES, BusSpec(), "epoch-2") == Kept(BusSpec(), "epoch-2")


@pytest.mark.asyncio
class SharedLaws(Laws):
    """What an engine that several brokers share promises besides."""

    async def test_feed_reports_each_entry_once_and_in_order(self, backend: Any) -> None:
        await begin(backend)
        await begin(backend, TEAMS, retain="latest")
        heard: list[Entry] = []
        backend.on_committed(heard.extend)
        sent = [write("a", id=7), write("x", bus=TEAMS), write("y", bus=TEAMS), write("b", to=("bob",), echo=False)]
        appended = [*await backend.append(sent[:3]), *await backend.append(sent[3:])]
        backend.deliver()
        for bus in (VOTES, TEAMS):
            assert [entry for entry in heard if entry.bus == bus] == [entry for entry in appended if entry.bus == bus]

    async def test_what_the_feed_reports_is_kept_already(self, backend: Any) -> None:
        await begin(backend)
        heard: list[Any] = []
        backend.on_committed(lambda entries: heard.append(backend.open(VOTES, None, "")))
        offsets = await append(backend, write("a"))
        backend.deliver()
        assert [entry.offset for entry in (await heard[0]).entries] == offsets

    async def test_every_broker_hears_the_feed(self, backend: Any) -> None:
        await begin(backend)
        heard: list[list[Entry]] = [[], []]
        for sink in heard:
            backend.on_committed(sink.extend)
        await backend.append([write("a")])
        backend.deliver()
        assert [values(entries) for entries in heard] == [["a"], ["a"]]
