from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from ebus_jupyter.backends.base import Backend
from ebus_jupyter.backends.sqlite import SqliteBackend


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
