"""What holds for every test."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# On a shared machine a slow example is no news, and the same examples everywhere make a failure repeatable.
# HYPOTHESIS_PROFILE=thorough looks for more.
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", deadline=None, max_examples=5_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
