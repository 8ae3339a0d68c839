"""How one process stands with its providers and with what keeps its data: for the admin plane, `/readyz?verbose` and the metrics.

All of it is put together when somebody asks; requests pay nothing for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

from proxy.core.board import TargetState, circuit, seconds_out
from proxy.core.protocols import Clock, Services
from proxy.dispatch import Upstream
from proxy.health import Checker
from proxy.routing.table import Table
from proxy.settings import Settings
from proxy.settings.access import is_open

#: What the database was said to be holds for so many seconds: whoever can connect may ask.
_HOLDS = 1.0

#: How long the database may take to answer, in seconds.
_PATIENCE = 1.0

#: Targets of a provider that no table names and that are shown: clients choose among names of models without end.
_MOST_OTHERS = 200

#: States of a circuit, the best first.
STATES = ("closed", "half_open", "open")

Key: TypeAlias = tuple[str, str | None]
Answers: TypeAlias = Callable[[float], Awaitable[bool]]


def served_by(table: Table) -> dict[Key, list[str]]:
    """The configured targets, by provider and model there, each with the public names that it serves."""
    found: dict[Key, set[str]] = {}
    for name, target in table.targets.items():
        found.setdefault((target.provider, target.model), set()).add(name)
    for name, route in table.routes.items():
        for candidate in route.candidates:
            found.setdefault((candidate.target.provider, candidate.target.model), set()).add(name)
    return {key: sorted(names) for key, names in found.items()}


def target_now(state: TargetState, clock: Clock) -> dict[str, Any]:
    """One target's state, with times as seconds since the epoch."""
    now = clock.monotonic()
    left = seconds_out(state, now)
    return {
        "state": circuit(state, now),
        "until": clock.time() + left if left else None,
        "failures": state.failures,
        "ejections": state.ejections,
        "in_flight": state.in_flight,
        "first_token_seconds": state.first_token,
    }


class Standing:
    """What is known of the configuration in force, which `use` tells. `exposed`: whether other machines reach the data plane."""

    def __init__(self, services: Services, *, exposed: bool | None = None) -> None:
        self.checker = Checker(services)
        self._exposed = exposed
        self._clock = services.clock
        self._board = services.board
        self._metrics = services.metrics
        self._settings = Settings()
        self._served: dict[Key, list[str]] = {}
        self._answers: Answers | None = None
        self._database: tuple[float, str] | None = None
        self._asking = asyncio.Lock()
        self._states = services.metrics.gauge(
            "llm_target_state", "Targets whose circuit is closed, half_open or open, in each worker.", "provider", "model", "state"
        )

    def use(self, settings: Settings, table: Table, upstreams: Mapping[str, Upstream], answers: Answers | None) -> None:
        """`answers` asks the database whether it is there, for so many seconds at most; None: there is none."""
        self._settings, self._served, self._answers = settings, served_by(table), answers
        self._board.keep(self._served)
        self.checker.watch(settings, table, upstreams)

    # -- what is told --

    async def now(self) -> dict[str, Any]:
        """All of it, for administrators; see `proxy.http.providers`."""
        return {"providers": self.providers(), **await self._stores()}

    async def told(self) -> dict[str, Any]:
        """For whoever can connect: states alone, and the providers' names only where everybody is served."""
        names = {name: self.checker.health(name).state for name in self._settings.providers}
        shown = names if is_open(self._settings, exposed=self._exposed) else Counter(names.values())
        return {"providers": dict(shown), **await self._stores()}

    async def _stores(self) -> dict[str, str | None]:
        return {"database": await self.database(), "redis": self.redis()}

    def providers(self) -> list[dict[str, Any]]:
        """Every provider with its targets, as plain values."""
        unused = TargetState()
        states = self._board.states()
        found = []
        for name, section in self._settings.providers.items():
            own = [key for key in self._served if key[0] == name]
            others = [key for key in states if key[0] == name and key not in self._served]
            shared = self._board.provider(name)
            found.append(
                {
                    "name": name,
                    "kind": getattr(section, "kind", None),
                    "health": asdict(self.checker.health(name)),
                    "limit": None if shared.limit is None else int(shared.limit),
                    "targets": [
                        {"model": key[1], "serves": self._served.get(key, []), **target_now(states.get(key, unused), self._clock)}
                        for key in own + others[:_MOST_OTHERS]
                    ],
                }
            )
        return found

    def redis(self) -> str | None:
        """`up` or `down`, as its last use found it; None where there is none."""
        gauge = self._metrics.gauges.get("comporta_redis_degraded")
        if gauge is None or not gauge.children:
            return None
        return "down" if any(child.value for child in gauge.children.values()) else "up"

    async def database(self) -> str | None:
        """`up` or `down`, at most a second old; None where there is none."""
        answers = self._answers
        if answers is None:
            return None
        async with self._asking:
            now = self._clock.monotonic()
            if self._database is None or now - self._database[0] > _HOLDS:
                self._database = (now, "up" if await answers(_PATIENCE) else "down")
            return self._database[1]

    def count(self) -> None:
        """Bring the gauge up to date. A name that a client made up is no label: those are counted together."""
        now, unused = self._clock.monotonic(), TargetState()
        states = self._board.states()
        self._states.children.clear()
        for key in {**dict.fromkeys(self._served), **states}:
            if key[0] not in self._settings.providers:
                continue
            model = key[1] if key in self._served else None
            found = circuit(states.get(key, unused), now)
            for state in STATES:
                self._states.labels(key[0], model or "other", state).value += state == found
