"""What a load is to be: made by the runner, read by every locust process from its environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

VARIABLE = "COMPORTA_LOAD_PLAN"


@dataclass(frozen=True, slots=True)
class Plan:
    """Seconds, users and prompts of a load; the defaults are those of `locust -f loadtests/chat.py`.

    rate        arrivals a second at the shape's peak; 0 is a closed loop, in which each user waits for its answer before it asks again
    share       of the arrivals, what one generator offers: (its number, of how many)
    zipf        the exponent of the prompts' popularity; 0 makes all equally popular
    patience    seconds that a client waits for the next bytes before it leaves
    gaps        whether each record keeps the times between its tokens
    """

    seconds: float = 30.0
    users: int = 10
    rate: float = 0.0
    shape: str = "flat"
    zipf: float = 1.1
    prompts: int = 1000
    seed: int = 0
    patience: float = 30.0
    gaps: bool = True
    models: tuple[str, ...] = ("steady",)
    rough_models: tuple[str, ...] = ("rough",)
    out: str = "build/load"

    def encode(self) -> str:
        """For the environment of a process."""
        return json.dumps(asdict(self))

    @staticmethod
    def decode(text: str) -> Plan:
        """What `encode` made. Raises ValueError for anything else."""
        given = json.loads(text)
        unknown = set(given) - {field.name for field in fields(Plan)}
        if unknown:
            raise ValueError(f"a plan has no {', '.join(sorted(unknown))}")
        for name in ("models", "rough_models"):
            if name in given:
                given[name] = tuple(given[name])
        return Plan(**given)


def read(environ: Mapping[str, str]) -> Plan:
    """The plan of a process: the one it was given, else the default one."""
    text = environ.get(VARIABLE)
    return Plan() if text is None else Plan.decode(text)


@cache
def current() -> Plan:
    """The plan of this process; its folder for records is there."""
    plan = read(os.environ)
    Path(plan.out).mkdir(parents=True, exist_ok=True)
    return plan
