"""The profiles of hypothesis: moderate by default, thorough with EBUS_HYPOTHESIS=thorough."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

PROFILES = {
    # The same examples every time, so that a failure belongs to the change that is tested.
    "moderate": settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True),
    "thorough": settings(
        max_examples=3000, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
    ),
}
for name, profile in PROFILES.items():
    settings.register_profile(name, profile)
settings.load_profile(os.environ.get("EBUS_HYPOTHESIS", "moderate"))
