"""Whether the providers are there: each is asked for its models now and then, at moments that do not gather.

One process of a gateway asks, whatever the number of its workers; the others are told (`take`). What a check finds is shown, and counted;
it takes nobody out of the routing unless the configuration says so, since a list of models may fail where answers do not, and the reverse.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

from providers.settings import NetworkSettings
from proxy.catalogue import listed_by
from proxy.core import events
from proxy.core.call import Target, Timeouts
from proxy.core.errors import ClientError, UpstreamError
from proxy.core.protocols import Clock, Services
from proxy.dispatch import Upstream
from proxy.fields import Section
from proxy.routing.table import Table
from proxy.settings import Settings
from proxy.settings.health import HealthSettings

#: What stands in the way, by the kind of an upstream error; `status` for every other kind.
FAILURES = {
    "provider_auth": "auth",
    "dns": "dns",
    "connect_failed": "connect",
    "reset": "connect",
    "tls": "tls",
    "connect_timeout": "timeout",
    "upstream_timeout": "timeout",
    "invalid_response": "no_list",
    "bad_upstream": "no_list",
    "response_too_large": "no_list",
}

#: How far from the interval a pause may be, as a share of it.
JITTER = 0.2

#: The first check of a provider comes within so many seconds.
_FIRST = 1.0

#: Checks under way at once.
_AT_ONCE = 8

#: Told what a check found, by provider, as another process can `take` it.
Tell: TypeAlias = Callable[[dict[str, dict[str, Any]]], None]

#: What a check says of routing holds for so many intervals: whoever checks may be gone.
_HOLDS = 2.5

_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one provider. Times are seconds since the epoch.

    state     unknown (no check has ended yet), up, down, or unchecked
    since     when it came to be so, None while unknown
    checked   when it was checked last
    latency   seconds that the last good check took
    failure   what was in the way of the last check, a value of `FAILURES` or `status`; None: nothing
    kind      the same as an upstream failure's kind, as in `llm_upstream_failures_total`
    failures  failed checks in a row
    models    how many models it listed last
    unlisted  configured models of it that were not among them
    """

    state: str = "unknown"
    since: float | None = None
    checked: float | None = None
    latency: float | None = None
    failure: str | None = None
    kind: str | None = None
    failures: int = 0
    models: int | None = None
    unlisted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one check found: the names that were listed (None: it is there, and gave no list) and the seconds, or a failure's kind."""

    names: frozenset[str] | None = None
    seconds: float = 0.0
    kind: str | None = None


Ask: TypeAlias = Callable[[Upstream], Awaitable[Outcome | None]]


# -- decisions --


def judged(before: Health, outcome: Outcome, now: float, failures: int, wanted: Iterable[str] = ()) -> Health:
    """The health after a check. One that was up is down after so many `failures` in a row; one that was never seen up at once.

    `wanted` are the models that the configuration wants of it.
    """
    if outcome.kind is None:
        since = before.since if before.state == "up" else now
        if outcome.names is None:
            return Health("up", since, now, outcome.seconds, models=before.models, unlisted=before.unlisted)
        return Health("up", since, now, outcome.seconds, models=len(outcome.names), unlisted=unlisted(wanted, outcome.names))
    count = before.failures + 1
    failed = replace(before, checked=now, failure=FAILURES.get(outcome.kind, "status"), kind=outcome.kind, failures=count)
    if before.state == "down" or (before.state == "up" and count < failures):
        return failed
    return replace(failed, state="down", since=now)


def pause(interval: float, share: float) -> float:
    """Seconds until the next check, from a `share` between 0 and 1 drawn by chance: `interval`, a fifth more or less."""
    return interval * (1.0 + JITTER * (2.0 * share - 1.0))


def unlisted(wanted: Iterable[str], names: frozenset[str]) -> tuple[str, ...]:
    """Those of the `wanted` models that are not among `names`. Who lists nothing says nothing; a tag `latest` goes without saying."""
    if not names:
        return ()
    return tuple(sorted(model for model in set(wanted) if model not in names and f"{model}:latest" not in names))


def models_at(table: Table, provider: str) -> list[str]:
    """The models that the table wants of a provider, by its own names for them."""
    targets = [*table.targets.values(), *(each.target for route in table.routes.values() for each in route.candidates)]
    return sorted({target.model for target in targets if target.provider == provider and target.model is not None})


# -- asking --


async def ask(upstream: Upstream, clock: Clock, seconds: float) -> Outcome | None:
    """Ask a provider for its models, for so many `seconds` at most. A key that it refuses is no failure while another is good.

    None: what happened says nothing of the provider.
    """
    started = clock.monotonic()
    outcome: Outcome | None = None
    patience = Timeouts(connect=seconds, first_token=seconds, idle=seconds, total=seconds)
    try:
        async with asyncio.timeout(seconds):
            for _ in range(max(1, len(upstream.credentials))):
                outcome = await _asked(upstream, clock, patience)
                if outcome is None or outcome.kind != "provider_auth":
                    break
    except TimeoutError:
        outcome = Outcome(kind="upstream_timeout")
    return replace(outcome, seconds=clock.monotonic() - started) if outcome is not None else None


async def _asked(upstream: Upstream, clock: Clock, patience: Timeouts) -> Outcome | None:
    try:
        return Outcome(frozenset(await listed_by(upstream, clock, patience)))
    except UpstreamError as error:
        if error.kind == "overloaded" and not error.reached:
            return None  # Our own pool was full.
        return Outcome() if error.kind == "rate_limit_exceeded" else Outcome(kind=error.kind)
    except ClientError:
        return None  # Its dialect has no list of models.


async def doubtful(sections: Mapping[str, Section], table: Table, upstreams: Mapping[str, Upstream], ask: Ask) -> list[str]:
    """`provider/model` of each configured model that its provider does not list. A provider that does not answer is not doubted."""
    wanted = {name: models_at(table, name) for name, section in sections.items() if isinstance(section, NetworkSettings)}
    named = [name for name, models in wanted.items() if models]
    outcomes = await asyncio.gather(*(ask(upstreams[name]) for name in named))
    found = []
    for name, outcome in zip(named, outcomes, strict=True):
        if outcome is None or outcome.kind is not None:
            events.warning("models_not_validated", provider=name, reason=outcome.kind if outcome else "it has no list")
        else:
            found += [f"{name}/{model}" for model in unlisted(wanted[name], outcome.names or frozenset())]
    return found


async def require_listed(settings: Settings, table: Table, upstreams: Mapping[str, Upstream], clock: Clock) -> None:
    """Ask the providers, where the configuration wants it, and refuse models that they do not list. Raises RuntimeError."""
    if settings.health.unlisted_models != "refuse":
        return
    found = await doubtful(settings.providers, table, upstreams, lambda upstream: ask(upstream, clock, settings.health.timeout))
    if found:
        raise RuntimeError(
            f"models: not listed by their providers: {', '.join(found)}; health.unlisted_models: warn takes them all the same"
        )


@dataclass(frozen=True, slots=True)
class Watched:
    """A provider that is checked, and the models that the configuration wants of it."""

    upstream: Upstream
    wanted: tuple[str, ...]


class Checker:
    """Keeps the health of all providers. Of several processes one `asks`, and has `tell` pass on what it finds."""

    def __init__(self, services: Services, *, draw: Callable[[], float] = random.random) -> None:
        self.asks = True
        self.tell: Tell | None = None
        self._clock = services.clock
        self._board = services.board
        self._draw = draw
        self._rules = HealthSettings()
        self._watched: dict[str, Watched] = {}
        self._found: dict[str, Health] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        metrics = services.metrics
        self._up = metrics.gauge("llm_provider_up", "Whether a provider answers health checks.", "provider")
        self._seconds = metrics.histogram("llm_provider_check_seconds", "How long health checks take.", _BOUNDS, "provider")
        self._checks = metrics.counter("llm_provider_checks_total", "Health checks: ok, or what was in the way.", "provider", "outcome")

    # -- what is known --

    def health(self, provider: str) -> Health:
        return self._found.get(provider, _UNKNOWN if provider in self._watched else _UNCHECKED)

    def report(self) -> dict[str, dict[str, Any]]:
        """All of it, as another process can `take` it."""
        return {name: asdict(health) for name, health in self._found.items()}

    def take(self, report: Mapping[str, Mapping[str, Any]]) -> None:
        """Know what another process has found."""
        for name, told in report.items():
            if name in self._watched:
                self._keep(name, Health(**{**told, "unlisted": tuple(told["unlisted"])}))

    # -- who is checked --

    def watch(self, settings: Settings, table: Table, upstreams: Mapping[str, Upstream]) -> None:
        """Check the providers of this configuration from now on. What is known of those that stay is kept; nothing is awaited."""
        rules, sections = settings.health, settings.providers
        is_on = rules.interval > 0 or rules.warns_once
        watched = {
            name: Watched(upstreams[name], tuple(models_at(table, name) if isinstance(section, NetworkSettings) else ()))
            for name, section in sections.items()
            if is_on and getattr(section, "health", True)
        }
        stays = rules == self._rules
        for name in [*self._tasks]:
            if not stays or name not in watched or watched[name].upstream is not self._watched[name].upstream:
                self._tasks.pop(name).cancel()
        self._release([name for name in self._watched if name not in watched or not rules.affects_routing])
        self._rules, self._watched = rules, watched
        for name in [name for name in self._found if name not in watched]:
            del self._found[name]
            self._up.children.pop((name,), None)
        for name in watched if self.asks else ():
            if name not in self._tasks:
                self._tasks[name] = asyncio.create_task(self._check_on(name))

    def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def _check_on(self, name: str) -> None:
        await asyncio.sleep(min(_FIRST, self._rules.interval or _FIRST) * self._draw())
        while True:
            await self.check(name)
            if not self._rules.interval:
                return
            await asyncio.sleep(pause(self._rules.interval, self._draw()))

    async def check(self, name: str) -> None:
        """Check one provider now."""
        async with self._turns:
            try:
                outcome = await ask(self._watched[name].upstream, self._clock, self._rules.timeout)
            except Exception as error:  # noqa: BLE001 - an installed provider may raise anything: the next check comes all the same
                events.error("provider_check_broken", provider=name, error=type(error).__name__)
                return
        if outcome is None:
            return
        before = self.health(name)
        after = judged(before, outcome, self._clock.time(), self._rules.failures, self._watched[name].wanted)
        self._seconds.labels(name).observe(outcome.seconds)
        self._checks.labels(name, after.failure or "ok").add()
        self._log(name, before, after)
        self._keep(name, after)
        if self.tell is not None:
            self.tell({name: asdict(after)})

    def _log(self, name: str, before: Health, after: Health) -> None:
        if after.state == "down" and before.state != "down":
            events.warning("provider_down", provider=name, failure=after.failure, kind=after.kind)
        elif after.state == "up" and before.state == "down":
            events.info("provider_up", provider=name)
        new = [model for model in after.unlisted if model not in before.unlisted]
        if new and self._rules.unlisted_models != "ignore":
            events.warning("models_not_listed", provider=name, models=new)

    # -- what follows --

    def _keep(self, name: str, health: Health) -> None:
        self._found[name] = health
        if self.asks:
            self._up.labels(name).set(health.state == "up")
        if not self._rules.affects_routing:
            return
        if health.state == "down":
            self._hold(name)
        else:
            self._release([name])

    def _hold(self, name: str) -> None:
        """Have the provider's targets pass for out, until a request or a check goes well. What requests have met stays beside it."""
        until = self._clock.monotonic() + self._rules.interval * _HOLDS
        for model in self._watched[name].wanted:
            self._board.of(Target(name, model)).held_until = until
        for (provider, _), state in self._board.states().items():
            if provider == name:
                state.held_until = until

    def _release(self, names: Iterable[str]) -> None:
        """Take back what `_hold` has done, and no more: who is out because of requests stays out, and comes back by a request."""
        gone = set(names)
        for (provider, _), state in self._board.states().items() if gone else ():
            if provider in gone:
                state.held_until = 0.0


_UNKNOWN, _UNCHECKED = Health(), Health("unchecked")
