"""The shape of a closed loop's load, for locust: `locust -f loadtests/chat.py,loadtests/shapes.py`."""

from __future__ import annotations

from locust import LoadTestShape

from loadtests.plan import current
from loadtests.stages import users_at


class Planned(LoadTestShape):
    """The users that the plan's shape asks for, each second."""

    def tick(self) -> tuple[int, float] | None:
        plan = current()
        passed: float = self.get_run_time()  # type: ignore[no-untyped-call]  # locust has types, but none here
        # An open loop's generators are there from the beginning: their rate follows the curve.
        shape = "flat" if plan.rate else plan.shape
        users = users_at(shape, passed, plan.seconds, plan.users)
        return None if users is None else (users, float(plan.users))
