"""How long hypothesis looks: moderately here, hard with EBUS_HYPOTHESIS=thorough."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.core.play import Play

settings.register_profile("moderate", max_examples=60, stateful_step_count=40, deadline=None)
settings.register_profile(
    "thorough",
    max_examples=2000,
    stateful_step_count=80,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "hunt", max_examples=400, stateful_step_count=60, deadline=None, phases=[Phase.generate, Phase.shrink]
)
settings.load_profile(os.environ.get("EBUS_HYPOTHESIS", "moderate"))


@pytest.fixture
def play() -> Play:
    return Play()
