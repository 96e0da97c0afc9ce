from __future__ import annotations

import pytest

from ebus_jupyter.backends.memory import MemoryBackend
from tests.contracts.backend import VOTES, Laws, began, ids, keeps_two_buses_and_no_third, kept, values, write


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


class TestMemory(Laws):
    pass


@pytest.mark.asyncio
async def test_a_log_of_large_values_drops_its_oldest_before_its_size_is_reached() -> None:
    backend = await began(MemoryBackend(max_bytes=1000))
    await backend.append([write(letter * 300) for letter in "abcdef"])
    found = await kept(backend)
    assert [value[0] for value in values(found.entries)] == ["d", "e", "f"]
    assert found.floor == 3


@pytest.mark.asyncio
async def test_there_are_no_more_buses_than_it_was_told_to_keep() -> None:
    await keeps_two_buses_and_no_third(MemoryBackend(max_buses=2))


@pytest.mark.asyncio
async def test_ids_are_forgotten_in_the_end() -> None:
    backend = await began(MemoryBackend(dedupe=10))
    for i in range(100):
        await backend.append([write(bus=VOTES, who="ann" if i % 2 else "bob", id=i + 1)])
    assert list(ids(await kept(backend)).values()) == list(range(91, 101))
