"""The laws of `ebus_jupyter.backends.base`. A test file of a backend has the fixture ``backend`` and inherits `Laws`.

One whose log outlives it has the fixture ``reopen`` too (ends the backend, returns its successor), and inherits
`DurableLaws`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from ebus_jupyter.backends.base import Backend
from ebus_jupyter.core.broker.entry import Entry, Kept
from ebus_jupyter.core.protocol.message import BusSpec, Participant
from ebus_jupyter.errors import BackendError, TooLarge

VOTES = "ebus:server/votes"
TEAMS = "ebus:user/ann%40example.org/teams"

Reopen = Callable[[Backend], Awaitable[Backend]]

_counts: dict[str, int] = {}


def write(value: str = "", *, bus: str = VOTES, who: str = "ann", id: int = 0, **fields: Any) -> Entry:
    """A write, ready to be kept; each the sender's next, where no ``id`` is given."""
    _counts[who] = id or _counts.get(who, 0) + 1
    sender = msgspec.msgpack.encode(Participant(who, "page", who))
    return Entry(bus, _counts[who], 1.5, sender, msgspec.msgpack.encode(value), **fields)


async def began(backend: Backend, bus: str = VOTES, **spec: Any) -> Backend:
    assert await backend.open(bus, BusSpec(**spec), "epoch-1") is not None
    return backend


async def kept(backend: Backend, bus: str = VOTES) -> Kept:
    found = await backend.open(bus, None, "never used")
    assert found is not None
    return found


def values(entries: Sequence[Entry]) -> list[str]:
    return [msgspec.msgpack.decode(entry.value) for entry in entries]


def ids(found: Kept) -> dict[tuple[str, int], int]:
    return dict(found.ids())


async def keeps_two_buses_and_no_third(backend: Backend) -> None:
    """What one that was told to keep two does."""
    await began(backend)
    await began(backend, TEAMS)
    await backend.append([write("a", bus=TEAMS)])
    with pytest.raises(TooLarge, match="keeps 2 buses") as full:
        await backend.open("ebus:server/third", BusSpec(), "epoch-1")
    assert full.value.details["limit"] == "kept_buses"
    assert await backend.open("ebus:server/third", None, "never used") is None
    assert values((await kept(backend, TEAMS)).entries) == ["a"]
    await backend.delete(VOTES)
    await began(backend, "ebus:server/third")


@pytest.mark.asyncio
class Laws:
    """What every backend promises."""

    # --- sequenced --------------------------------------------------------------------------------------------------

    async def test_each_entry_gets_a_greater_offset(self, backend: Backend) -> None:
        await began(backend)
        offsets = [*await backend.append([write("a"), write("b")]), *await backend.append([write("c")])]
        assert offsets == sorted(set(offsets))
        assert offsets[0] > 0
        assert [entry.offset for entry in (await kept(backend)).entries] == offsets
        assert (await kept(backend)).last == offsets[-1]

    async def test_buses_are_counted_apart(self, backend: Backend) -> None:
        await began(backend)
        await began(backend, TEAMS)
        batch = [write("a"), write("b", bus=TEAMS), write("c"), write("d", bus=TEAMS)]
        offsets = await backend.append(batch)
        assert offsets == [entry.offset for entry in batch]
        assert values((await kept(backend)).entries) == ["a", "c"]
        assert values((await kept(backend, TEAMS)).entries) == ["b", "d"]

    async def test_an_offset_that_was_dropped_is_not_given_again(self, backend: Backend) -> None:
        await began(backend, size=1)
        given = [offset for i in range(400) for offset in await backend.append([write(str(i))])]
        assert len(set(given)) == 400

    # --- log before fan-out -----------------------------------------------------------------------------------------

    async def test_what_the_follower_hears_is_kept_already(self, backend: Backend) -> None:
        await began(backend)
        heard: list[Any] = []
        backend.on_committed(lambda entries: heard.append(backend.open(VOTES, None, "")))
        offsets = await backend.append([write("a")])
        assert [entry.offset for entry in (await heard[0]).entries] == offsets

    # --- everyone hears ---------------------------------------------------------------------------------------------

    async def test_each_entry_is_reported_once_and_in_order(self, backend: Backend) -> None:
        await began(backend)
        await began(backend, TEAMS, retain="latest")
        heard: list[Entry] = []
        backend.on_committed(heard.extend)
        await backend.append([write("a", id=7), write("x", bus=TEAMS), write("y", bus=TEAMS)])
        await backend.append([write("b", to=("bob",), echo=False)])
        assert values(heard) == ["a", "x", "y", "b"]
        of_votes = [entry.offset for entry in heard if entry.bus == VOTES]
        assert of_votes == sorted(of_votes)
        assert all(entry.offset for entry in heard)

    async def test_an_entry_comes_back_as_it_went_in(self, backend: Backend) -> None:
        await began(backend, retain="keys")
        whole = write("ä\0", key="k\0", to=("bob", "eve"), echo=False, id=(1 << 53) - 1)
        await backend.append([whole])
        gone = write("", key="gone", deleted=True)
        await backend.append([gone])
        assert (await kept(backend)).entries == [whole, gone]

    # --- whole or nothing -------------------------------------------------------------------------------------------

    async def test_what_is_appended_now_is_as_what_is_awaited(self, backend: Backend) -> None:
        heard: list[Entry] = []
        backend.on_committed(heard.extend)
        await began(backend)
        await backend.append([write("one")])
        offsets = backend.append_now([write("two"), write("three")])
        if offsets is None:  # it takes time, and nothing was kept
            offsets = await backend.append([write("two"), write("three")])
        assert offsets == [2, 3]
        assert values(heard) == values((await kept(backend)).entries) == ["one", "two", "three"]
        with pytest.raises(BackendError, match="not open"):
            if backend.append_now([write(bus=TEAMS)]) is None:
                await backend.append([write(bus=TEAMS)])

    async def test_a_bus_that_was_never_opened_takes_nothing(self, backend: Backend) -> None:
        await began(backend)
        heard: list[Entry] = []
        backend.on_committed(heard.extend)
        with pytest.raises(BackendError):
            await backend.append([write("a"), write("b", bus=TEAMS)])
        assert heard == []
        assert (await kept(backend)).entries == []
        (offset,) = await backend.append([write("c")])
        assert offset == (await kept(backend)).last

    # --- opening ----------------------------------------------------------------------------------------------------

    async def test_without_a_spec_only_what_is_there_is_opened(self, backend: Backend) -> None:
        assert await backend.open(VOTES, None, "e") is None
        assert await backend.buses() == {}

    async def test_who_comes_second_gets_the_first_one_s_spec_and_epoch(self, backend: Backend) -> None:
        first = BusSpec(type="Vote", schema={"type": "object", "x": [1, {}]}, size=3, readers=("ann",), maker="ann")
        begun = await backend.open(VOTES, first, "epoch-1")
        assert begun == Kept(first, "epoch-1")
        again = await backend.open(VOTES, BusSpec(size=9), "epoch-2")
        assert again == begun
        assert await backend.buses() == {VOTES: first}

    async def test_a_deleted_bus_begins_anew(self, backend: Backend) -> None:
        await began(backend)
        await began(backend, TEAMS)
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
    async def test_a_log_keeps_the_last_ones_and_says_what_it_dropped(self, backend: Backend, together: int) -> None:
        await began(backend, size=5)
        for start in range(0, 700, together):
            await backend.append([write(str(i)) for i in range(start, min(start + together, 700))])
        found = await kept(backend)
        assert values(found.entries) == ["695", "696", "697", "698", "699"]
        assert found.floor == found.entries[0].offset - 1

    async def test_the_latest_takes_the_place_of_what_was_before(self, backend: Backend) -> None:
        await began(backend, retain="latest")
        await backend.append([write("a"), write("b")])
        await backend.append([write("c")])
        found = await kept(backend)
        assert values(found.entries) == ["c"]
        assert found.floor == 0  # nobody missed anything that such a bus promises

    async def test_keys_keep_their_last_entry(self, backend: Backend) -> None:
        await began(backend, retain="keys")
        await backend.append([write("1", key="a"), write("2", key="b"), write("3", key="a")])
        await backend.append([write("4", key="c"), write("", key="b", deleted=True)])
        found = await kept(backend)
        assert [(entry.key, entry.deleted) for entry in found.entries] == [("a", False), ("c", False), ("b", True)]
        assert found.floor == 0

    async def test_marks_of_removed_keys_are_bounded(self, backend: Backend) -> None:
        await began(backend, retain="keys", size=2)
        for key in "abc":
            await backend.append([write("1", key=key)])
            await backend.append([write("", key=key, deleted=True)])
        found = await kept(backend)
        assert [entry.key for entry in found.entries] == ["b", "c"]
        assert found.floor == found.entries[0].offset - 2  # the removal of "a"

    async def test_ids_are_known_when_their_messages_are_gone(self, backend: Backend) -> None:
        await began(backend, retain="latest")
        sent = [write(str(i), who=who) for i in range(30) for who in ("ann", "bob")]
        offsets = [offset for entry in sent for offset in await backend.append([entry])]
        offsets += await backend.append(more := [write("x", who="eve") for _ in range(5)])
        expected = {
            (msgspec.msgpack.decode(entry.sender)[0], entry.id): offset
            for entry, offset in zip(sent + more, offsets, strict=True)
        }
        assert ids(await kept(backend)) == expected

    # --- ending -----------------------------------------------------------------------------------------------------

    async def test_it_closes_twice_and_takes_nothing_afterwards(self, backend: Backend) -> None:
        await began(backend)
        await backend.aclose()
        await backend.aclose()
        with pytest.raises(BackendError):
            await backend.append([write("a")])
        with pytest.raises(BackendError):
            await backend.open(VOTES, BusSpec(), "e")


@pytest.mark.asyncio
class DurableLaws(Laws):
    """What a backend whose log outlives it promises besides."""

    @pytest.mark.parametrize("retain", ["log", "latest", "keys"])
    async def test_everything_answered_is_there_after_a_restart(
        self, backend: Backend, reopen: Reopen, retain: Any
    ) -> None:
        await began(backend, retain=retain, size=4)
        for i in range(600):
            await backend.append([write(str(i), key=str(i % 3) if retain == "keys" else None, deleted=i == 100)])
        before = await kept(backend)
        backend = await reopen(backend)
        assert await backend.buses() == {VOTES: BusSpec(retain=retain, size=4)}
        assert await kept(backend) == before
        (offset,) = await backend.append([write("next", key="0" if retain == "keys" else None)])
        assert offset > before.last

    async def test_offsets_go_on_where_everything_was_dropped(self, backend: Backend, reopen: Reopen) -> None:
        await began(backend, retain="keys", size=1)
        await backend.append([write("1", key="a"), write("", key="a", deleted=True)])
        (last,) = await backend.append([write("", key="b", deleted=True)])
        backend = await reopen(backend)
        assert (await kept(backend)).last == last
        (offset,) = await backend.append([write("2", key="a")])
        assert offset > last

    async def test_a_retry_is_known_after_a_restart(self, backend: Backend, reopen: Reopen) -> None:
        await began(backend, retain="latest")
        first = write("first", id=41)
        await backend.append([first])
        for i in range(50):
            await backend.append([write(str(i), who="bob")])
        backend = await reopen(backend)
        assert ids(await kept(backend))["ann", 41] == first.offset

    async def test_what_was_deleted_stays_away(self, backend: Backend, reopen: Reopen) -> None:
        await began(backend)
        await backend.append([write("a")])
        await backend.delete(VOTES)
        backend = await reopen(backend)
        assert await backend.open(VOTES, None, "") is None
        assert await backend.open(VOTES, BusSpec(), "epoch-2") == Kept(BusSpec(), "epoch-2")
