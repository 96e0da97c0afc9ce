from __future__ import annotations

import pytest

from ebus_jupyter.backends.memory import MemoryBackend
from tests.contracts.backend import VOTES, Laws, begin, check_max_buses_of_two, ids, kept, values, write


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


class TestMemory(Laws):
    pass


@pytest.mark.asyncio
async def test_log_is_bounded_in_bytes() -> None:
    backend = await begin(MemoryBackend(max_bytes=1000))
    await backend.append([write(letter * 300) for letter in "abcdef"])
    found = await kept(backend)
    assert [value[0] for value in values(found.entries)] == ["d", "e", "f"]
    assert found.floor == 3


@pytest.mark.asyncio
async def test_number_of_buses_is_bounded() -> None:
    await check_max_buses_of_two(MemoryBackend(max_buses=2))


@pytest.mark.asyncio
async def test_remembered_ids_are_bounded() -> None:
    backend = await begin(MemoryBackend(dedupe=10))
    for i in range(1000):
        await backend.append([write(bus=VOTES, who="ann" if i % 2 else "bob", id=i + 1)])
    known = ids(await kept(backend))
    assert all(known["ann" if i % 2 else "bob", i + 1] == i + 1 for i in range(980, 1000))
    assert len(known) < 500
