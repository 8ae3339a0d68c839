"""Models and their targets, for policies that go from one to the next."""

from __future__ import annotations

from proxy.core.call import Call, Target, Timeouts
from proxy.routing.strategies import Candidate
from proxy.routing.table import ModelRoute, Rule


class Patient:
    """Gives every attempt all the time there is."""

    def timeouts(self, call: Call) -> Timeouts:
        return Timeouts()


def model(name: str, *providers: str, fallback: tuple[Rule, ...] = ()) -> ModelRoute:
    """A model at `providers`, the first of them first."""
    return ModelRoute(tuple(Candidate(Target(each, "m", name), priority=at) for at, each in enumerate(providers)), "priority", fallback)
