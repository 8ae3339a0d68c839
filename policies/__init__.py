"""What happens to a request on its way: a literal table of built-in policies, and whatever is installed beside it.

A policy is a class with `Settings` (a `Section`), built as `Kind(settings, services)`; see docs/add_a_policy.md.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from policies.authenticate import Authenticate
from policies.record import Record
from policies.timeout import Timeout

BUILT_IN: dict[str, type[Any]] = {
    "authenticate": Authenticate,
    "record": Record,
    "timeout": Timeout,
}


def kinds() -> dict[str, type[Any]]:
    """Every policy by name: the built-in ones, and the entry points of group `comporta.policies`. A built-in name cannot be taken."""
    found = {entry.name: entry.load() for entry in entry_points(group="comporta.policies")}
    return {**found, **BUILT_IN}
