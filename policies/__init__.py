"""What happens to a request on its way: a literal table of built-in policies, and whatever is installed beside it.

A policy is a class with `Settings` (a `Section`), built as `Kind(settings, services)`; see docs/add_a_policy.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

from policies.adaptive_limit import AdaptiveLimit
from policies.authenticate import Authenticate
from policies.circuit_breaker import CircuitBreaker
from policies.fallback import Fallback
from policies.hedge import Hedge
from policies.record import Record
from policies.retry import Retry
from policies.timeout import Timeout

BUILT_IN: dict[str, type[Any]] = {
    "adaptive_limit": AdaptiveLimit,
    "circuit_breaker": CircuitBreaker,
    "authenticate": Authenticate,
    "record": Record,
    "retry": Retry,
    "timeout": Timeout,
    "fallback": Fallback,
    "hedge": Hedge,
}


def kinds(wanted: Iterable[str] | None = None) -> dict[str, type[Any]]:
    """Every policy by name: the built-in ones, and the entry points of group `comporta.policies`. A built-in name cannot be taken.

    Where all that are `wanted` are built in, nobody looks for others: that reads the metadata of everything that is installed.
    """
    if wanted is not None and BUILT_IN.keys() >= set(wanted):
        return dict(BUILT_IN)
    found = {entry.name: entry.load() for entry in entry_points(group="comporta.policies")}
    return {**found, **BUILT_IN}
