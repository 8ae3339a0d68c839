"""How a process stands: targets as the board has them, and what strangers learn of it."""

from __future__ import annotations

from typing import Any

import pytest

from providers.openai import OpenAI, OpenAISettings
from proxy.catalogue import table_of
from proxy.core.board import TargetState
from proxy.core.call import Target
from proxy.core.metrics import Registry
from proxy.core.protocols import Services
from proxy.dispatch import Upstream
from proxy.settings import ModelEntry, ModelTargets, ServerSettings, Settings
from proxy.settings.health import HealthSettings
from proxy.settings.models import TargetEntry
from proxy.standing import Standing
from tests.core.doubles import HandClock, ScriptedTransport

SECTION = OpenAISettings(base_url="https://api.example/v1")
MODELS: dict[str, ModelEntry | ModelTargets] = {
    "fast": ModelEntry(provider="a", model="x"),
    "quick": ModelEntry(provider="a", model="x"),
    "smart": ModelTargets(targets=[TargetEntry(provider="a", model="y"), TargetEntry(provider="b", model="y")]),
}


class Bench:
    def __init__(self, **how: Any) -> None:
        self.clock = HandClock()
        self.services = Services(self.clock, Registry(), lambda _fields: None)
        self.standing = Standing(self.services)
        self.asked = 0
        self.answers = True
        self.use(**how)

    def use(self, *, listen: str = "127.0.0.1:8080", storage: bool = True) -> None:
        settings = Settings(
            server=ServerSettings(listen=listen),
            providers={"a": SECTION, "b": SECTION},
            models=MODELS,
            health=HealthSettings(interval=0),
        )
        upstreams = {name: Upstream(name, OpenAI(SECTION), ScriptedTransport()) for name in ("a", "b")}
        self.standing.use(settings, table_of(settings), upstreams, self.database if storage else None)

    async def database(self, _seconds: float) -> bool:
        self.asked += 1
        return self.answers

    def state(self, provider: str, model: str) -> TargetState:
        return self.services.board.of(Target(provider, model))

    def targets(self, provider: str) -> dict[str, dict[str, Any]]:
        found = next(each for each in self.standing.providers() if each["name"] == provider)
        return {target["model"]: target for target in found["targets"]}

    def counted(self) -> dict[tuple[str, ...], float]:
        self.standing.count()
        children = self.services.metrics.gauges["llm_target_state"].children
        return {labels: each.value for labels, each in children.items() if each.value}


def test_every_configured_target_is_shown_whether_it_was_asked_or_not():
    bench = Bench()
    assert {name: each["serves"] for name, each in bench.targets("a").items()} == {"x": ["fast", "quick"], "y": ["smart"]}
    assert {name: each["state"] for name, each in bench.targets("b").items()} == {"y": "closed"}
    bench.services.board.provider("a").limit = 7.9
    assert [(each["name"], each["kind"], each["limit"]) for each in bench.standing.providers()] == [
        ("a", "openai", 7),
        ("b", "openai", None),
    ]


def test_a_target_that_is_out_says_until_when_and_is_then_half_open():
    bench = Bench()
    state = bench.state("a", "x")
    state.closed_until, state.ejections, state.in_flight, state.first_token = bench.clock.now + 30, 1, 2, 0.25
    found = bench.targets("a")["x"]
    assert found["until"] == pytest.approx(bench.clock.time() + 30)
    assert (found["state"], found["ejections"], found["in_flight"], found["first_token_seconds"]) == ("open", 1, 2, 0.25)
    bench.clock.move(31)
    assert (bench.targets("a")["x"]["state"], bench.targets("a")["x"]["until"]) == ("half_open", None)


def test_a_target_that_nobody_configured_is_shown_and_such_are_not_shown_without_end():
    bench = Bench()
    for number in range(300):
        bench.state("a", f"made-up-{number}")
    assert "made-up-0" in bench.targets("a")
    assert len(bench.targets("a")) == 202


def test_the_metric_counts_a_target_in_one_state_and_made_up_names_together():
    bench = Bench()
    bench.state("a", "x").closed_until = bench.clock.now + 30
    for name in ("made-up", "made up too"):
        bench.state("b", name)
    bench.services.board.of(Target("gone", "x"))
    wanted = {("a", "x", "open"): 1, ("a", "y", "closed"): 1, ("b", "y", "closed"): 1, ("b", "other", "closed"): 2}
    assert bench.counted() == wanted
    assert bench.counted() == wanted, "counted anew each time"
    bench.clock.move(31)
    assert ("a", "x", "half_open") in bench.counted()


def test_configured_targets_outlive_names_that_clients_make_up():
    bench = Bench()
    bench.state("a", "x").first_token = 0.25
    for number in range(10_000):
        bench.state("a", f"made-up-{number}").closed_until = bench.clock.now + 30
    assert bench.targets("a")["x"]["first_token_seconds"] == 0.25
    assert sum(value for (_, model, _), value in bench.counted().items() if model == "other") <= 4096


async def test_names_are_told_only_where_everybody_is_served():
    bench = Bench()
    assert (await bench.standing.told())["providers"] == {"a": "unchecked", "b": "unchecked"}
    bench.use(listen="0.0.0.0:8080")
    assert (await bench.standing.told())["providers"] == {"unchecked": 2}


async def test_the_database_is_asked_at_most_once_a_second():
    bench = Bench()
    assert [(await bench.standing.told())["database"] for _ in range(3)] == ["up"] * 3
    bench.answers = False
    assert (await bench.standing.now())["database"] == "up"
    bench.clock.move(1.1)
    assert (await bench.standing.now())["database"] == "down"
    assert bench.asked == 2
    bench.use(storage=False)
    assert (await bench.standing.now())["database"] is None


async def test_redis_is_as_its_last_use_found_it():
    bench = Bench()
    assert (await bench.standing.now())["redis"] is None
    gauge = bench.services.metrics.gauge("comporta_redis_degraded", "", "use").labels("news")
    assert (await bench.standing.now())["redis"] == "up"
    gauge.set(1)
    assert (await bench.standing.now())["redis"] == "down"
