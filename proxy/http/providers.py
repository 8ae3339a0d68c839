"""Providers and their targets over HTTP: whether they are there, who of them is out, and how busy and how fast they are.

Each worker keeps its own account of targets, so a target has the views of all of them beside what they come to together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from proxy.core.errors import ClientError
from proxy.http.api import Asked, Endpoint

#: How each process that serves stands: `worker`, `providers`, `database` and `redis`; see `proxy.standing`.
Standings: TypeAlias = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]

#: The best first.
_STATES = ("closed", "half_open", "open")


class _Shape(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid")


class HealthShown(_Shape):
    """What the checks of a provider found. Nothing that a provider said is in it."""

    state: Literal["unknown", "up", "down", "unchecked"] = Field(description="unknown: no check has ended yet; unchecked: health is off")
    since: datetime | None
    checked_at: datetime | None
    latency_seconds: float | None = Field(description="of the last good check")
    failure: str | None = Field(description="of the last check: auth, dns, connect, tls, timeout, no_list or status")
    kind: str | None = Field(description="the same, as `llm_upstream_failures_total` names it")
    failures: int = Field(description="failed checks in a row")
    models: int | None = Field(description="how many it listed last")
    unlisted_models: list[str] = Field(description="configured models that were not among them")


class CircuitShown(_Shape):
    """Whether a target is in (closed), out (open) or due for the one attempt that will tell (half_open)."""

    state: Literal["closed", "half_open", "open"]
    until: datetime | None = Field(description="while it is out")
    failures: int = Field(description="in a row, of requests")
    ejections: int = Field(description="times in a row that it was taken out for them")
    in_flight: int
    first_token_seconds: float | None = Field(description="moving average of the time to the first content; of all workers the longest")


class CircuitInWorker(CircuitShown):
    worker: int


class TargetShown(CircuitShown):
    """The worst state of all workers, the sum of what is in flight, and each worker's own view."""

    model: str | None = Field(description="its name at the provider; null where requests name none")
    serves: list[str] = Field(description="the public names that lead there")
    workers: list[CircuitInWorker]


class ProviderShown(_Shape):
    name: str
    kind: str | None
    health: HealthShown
    in_flight: int
    limit: int | None = Field(description="attempts at once that policies.adaptive_limit gives it, of all workers together")
    targets: list[TargetShown]


class ProviderList(_Shape):
    data: list[ProviderShown]


class Providers:
    """The endpoints."""

    def __init__(self, standings: Standings) -> None:
        self._standings = standings

    def endpoints(self) -> list[Endpoint]:
        where = "/admin/providers"
        return [
            Endpoint("GET", where, "Providers with their health, and the state of each target.", self.show_all, ProviderList),
            Endpoint("GET", where + "/{name}", "One provider.", self.show, ProviderShown),
        ]

    async def show_all(self, _asked: Asked) -> ProviderList:
        return ProviderList(data=merged(await self._standings()))

    async def show(self, asked: Asked) -> ProviderShown:
        found = [one for one in merged(await self._standings()) if one.name == asked.path["name"]]
        if not found:
            raise ClientError("There is no such provider.", status=404, code="not_found")
        return found[0]


async def told(standings: Standings) -> dict[str, Any]:
    """What `/readyz?verbose` of the admin plane shows beside its own state."""
    found = await standings()
    return {
        "providers": {one.name: one.health.model_dump(mode="json") for one in merged(found)},
        "database": _worst(one.get("database") for one in found),
        "redis": _worst(one.get("redis") for one in found),
    }


def _worst(states: Iterable[str | None]) -> str | None:
    seen = set(states)
    return "down" if "down" in seen else "up" if "up" in seen else None


# -- what several workers come to together --


def merged(standings: Sequence[Mapping[str, Any]]) -> list[ProviderShown]:
    """The providers of all workers' views, in the order of the first."""
    views: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for standing in standings:
        for provider in standing["providers"]:
            views.setdefault(provider["name"], []).append((standing["worker"], provider))
    return [_provider(name, seen) for name, seen in views.items()]


def _provider(name: str, seen: Sequence[tuple[int, Mapping[str, Any]]]) -> ProviderShown:
    targets: dict[str | None, list[tuple[int, Mapping[str, Any]]]] = {}
    for worker, provider in seen:
        for target in provider["targets"]:
            targets.setdefault(target["model"], []).append((worker, target))
    newest = max((provider["health"] for _, provider in seen), key=lambda health: health["checked"] or 0.0)
    limits = [provider["limit"] for _, provider in seen if provider["limit"] is not None]
    shown = [_target(model, views) for model, views in targets.items()]
    return ProviderShown(
        name=name,
        kind=seen[0][1]["kind"],
        health=_health(newest),
        in_flight=sum(target.in_flight for target in shown),
        limit=sum(limits) if limits else None,
        targets=shown,
    )


def _health(found: Mapping[str, Any]) -> HealthShown:
    same = {name: found[name] for name in ("state", "failure", "kind", "failures", "models")}
    return HealthShown(
        since=_moment(found["since"]),
        checked_at=_moment(found["checked"]),
        latency_seconds=found["latency"],
        unlisted_models=list(found["unlisted"]),
        **same,
    )


def _target(model: str | None, seen: Sequence[tuple[int, Mapping[str, Any]]]) -> TargetShown:
    views = [view for _, view in seen]
    averages = [view["first_token_seconds"] for view in views if view["first_token_seconds"] is not None]
    return TargetShown(
        model=model,
        serves=max((view["serves"] for view in views), key=len),
        state=max((view["state"] for view in views), key=_STATES.index),
        until=_moment(max(view["until"] or 0.0 for view in views) or None),
        failures=max(view["failures"] for view in views),
        ejections=max(view["ejections"] for view in views),
        in_flight=sum(view["in_flight"] for view in views),
        first_token_seconds=max(averages, default=None),
        workers=[_in_worker(worker, view) for worker, view in seen],
    )


def _in_worker(worker: int, view: Mapping[str, Any]) -> CircuitInWorker:
    same = {name: view[name] for name in ("state", "failures", "ejections", "in_flight", "first_token_seconds")}
    return CircuitInWorker(worker=worker, until=_moment(view["until"]), **same)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
