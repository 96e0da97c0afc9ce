"""A fresh play for each test of the core."""

from __future__ import annotations

import pytest

from tests.core.play import Play


@pytest.fixture
def play() -> Play:
    return Play()
