"""Service level objectives: what a load's figures must keep, from loadtests/slo.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("slo.yaml")

#: Objective -> its path in an operation's figures, and its unit.
_FIGURES: dict[str, tuple[tuple[str, ...], str]] = {
    "error_share": (("error_share",), ""),
    **{
        f"{kind}_{part}_ms": ((f"{kind}_ms", part), " ms")
        for kind in ("first_token", "latency", "gap")
        for part in ("p50", "p95", "p99", "max")
    },
}
LOST = "lost_records"
DEFAULT = "default"


class BadObjectives(ValueError):
    """The file holds something that is no objective."""


@dataclass(frozen=True, slots=True)
class Miss:
    """One objective that was not kept. `value` is None where it was not measured."""

    operation: str
    objective: str
    limit: float
    value: float | None
    unit: str

    def __str__(self) -> str:
        what = f"{self.operation}: {self.objective}"
        if self.value is None:
            return f"{what} was not measured; at most {self.limit:g}{self.unit} are allowed"
        return f"{what} is {self.value:.6g}{self.unit}; at most {self.limit:g}{self.unit} are allowed"


Objectives = dict[str, dict[str, float]]


def read(path: Path) -> Objectives:
    """Operation (or `default`) -> objective -> limit. Raises BadObjectives with what is wrong, OSError."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BadObjectives(f"{path} is no YAML: {error}") from error
    if not isinstance(found, dict):
        raise BadObjectives(f"{path} is no table of operations")
    for operation, limits in found.items():
        if not isinstance(limits, dict):
            raise BadObjectives(f"{path}: {operation} is no table of objectives")
        for name, limit in limits.items():
            if name not in _FIGURES and not (name == LOST and operation == DEFAULT):
                raise BadObjectives(f"{path}: {operation} has no objective {name}; there are {', '.join([*_FIGURES, LOST])}")
            if isinstance(limit, bool) or not isinstance(limit, int | float) or limit < 0:
                raise BadObjectives(f"{path}: {operation}.{name} is {limit!r}, no limit")
    return found


def misses(objectives: Objectives, document: Mapping[str, Any]) -> list[Miss]:
    """What a summary does not keep. An operation's own limits stand before the default ones; of nothing asked, nothing can be kept."""
    return list(_misses(objectives, document))


def _misses(objectives: Objectives, document: Mapping[str, Any]) -> Iterator[Miss]:
    default = objectives.get(DEFAULT, {})
    everything = document["operations"]["all"]
    if not everything["requests"]:
        yield Miss("all", "requests", 0, None, "")
        return
    ledger = document["ledger"]
    if LOST in default and ledger is not None and ledger["lost"] > default[LOST]:
        yield Miss("all", LOST, default[LOST], ledger["lost"], "")
    for operation, figures in document["operations"].items():
        if operation == "all":
            continue
        for name, limit in {**default, **objectives.get(operation, {})}.items():
            if name == LOST:
                continue
            path, unit = _FIGURES[name]
            value = _value(figures, path)
            # A default of streams says nothing of what has no stream.
            if value is None and name not in objectives.get(operation, {}):
                continue
            if value is None or value > limit:
                yield Miss(operation, name, limit, value, unit)


def _value(figures: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    found: Any = figures
    for name in path:
        found = None if found is None else found[name]
    return None if found is None else float(found)
