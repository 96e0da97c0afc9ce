"""The engine that tests use in place of a shared one keeps the laws of a shared one."""

from __future__ import annotations

import pytest

from tests.contracts.backend import SharedLaws

from .shared import SharedMemory


@pytest.fixture(params=[True, False], ids=["feed first", "acknowledgement first"])
def backend(request: pytest.FixtureRequest) -> SharedMemory:
    return SharedMemory(feed_first=request.param)


class TestSharedMemory(SharedLaws):
    pass
