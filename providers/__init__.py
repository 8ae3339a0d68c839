"""Who can serve: a literal table of built-in kinds, and whatever is installed beside it.

A kind is a class with `Settings` (a `Section` whose `kind` is a literal), built as `Kind(settings)`; see docs/add_a_provider.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

from providers.openai import OpenAI
from providers.sim.provider import Sim

BUILT_IN: dict[str, type[Any]] = {
    "openai": OpenAI,
    "sim": Sim,
}


def kinds(wanted: Iterable[str] | None = None) -> dict[str, type[Any]]:
    """Every kind by name: the built-in ones, and the entry points of group `comporta.providers`. A built-in name cannot be taken.

    Where all that are `wanted` are built in, nobody looks for others: that reads the metadata of everything that is installed.
    """
    if wanted is not None and BUILT_IN.keys() >= set(wanted):
        return dict(BUILT_IN)
    found = {entry.name: entry.load() for entry in entry_points(group="comporta.providers")}
    return {**found, **BUILT_IN}
