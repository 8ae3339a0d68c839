"""What is made of a provider's answers to health checks, when it is asked, and what follows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from providers.openai import OpenAI, OpenAISettings
from providers.sim.settings import SimSettings
from proxy.catalogue import table_of
from proxy.core.board import Ejection, TargetState, circuit, is_available, note_failure, note_success, seconds_out
from proxy.core.call import Credential, Target
from proxy.core.errors import ClientError, UpstreamError
from proxy.core.metrics import Registry
from proxy.core.protocols import Services
from proxy.dispatch import Upstream
from proxy.health import FAILURES, JITTER, Checker, Health, Outcome, ask, judged, models_at, pause, require_listed, unlisted
from proxy.settings import ModelEntry, ModelTargets, Settings
from proxy.settings.health import HealthSettings
from tests.core.doubles import STALL, HandClock, ScriptedResponse, ScriptedTransport, in_virtual_time
from tests.support.log import logged

Models = dict[str, ModelEntry | ModelTargets]

UP = Health("up", 100.0, 100.0, 0.1, models=2)
DOWN = Health("down", 100.0, 100.0, failure="connect", kind="connect_failed", failures=2)
GOOD = Outcome(frozenset({"x", "y"}), 0.2)
SETTINGS = OpenAISettings(base_url="https://api.example/v1")


def listing(*names: str, status: int = 200) -> ScriptedResponse:
    return ScriptedResponse([orjson.dumps({"data": [{"id": name} for name in names]})], status=status)


def upstream(*answers: ScriptedResponse | UpstreamError, keys: int = 1, name: str = "a") -> tuple[Upstream, ScriptedTransport]:
    transport = ScriptedTransport(*answers)
    return Upstream(
        name, OpenAI(SETTINGS), transport, credentials=tuple(Credential(f"env:K{n}", f"sk-{n}") for n in range(keys))
    ), transport


# -- decisions --


@pytest.mark.parametrize(
    ("before", "outcome", "state", "since", "failures"),
    [
        (Health(), GOOD, "up", 200.0, 0),
        (UP, GOOD, "up", 100.0, 0),
        (DOWN, GOOD, "up", 200.0, 0),
        (DOWN, Outcome(), "up", 200.0, 0),
        (Health(), Outcome(kind="dns"), "down", 200.0, 1),
        (UP, Outcome(kind="dns"), "up", 100.0, 1),
        (judged(UP, Outcome(kind="dns"), 150.0, 2), Outcome(kind="tls"), "down", 200.0, 2),
        (DOWN, Outcome(kind="tls"), "down", 100.0, 3),
    ],
)
def test_one_that_was_up_is_down_after_failures_in_a_row_and_back_with_the_first_good_check(
    before: Health, outcome: Outcome, state: str, since: float, failures: int
):
    after = judged(before, outcome, 200.0, 2)
    assert (after.state, after.since, after.failures, after.checked) == (state, since, failures, 200.0)
    assert (after.failure is None) is (outcome.kind is None)


@pytest.mark.parametrize(("kind", "failure"), [*FAILURES.items(), ("server_error", "status"), ("insufficient_quota", "status")])
def test_a_failure_is_named_for_people_and_as_the_metrics_have_it(kind: str, failure: str):
    after = judged(DOWN, Outcome(kind=kind), 200.0, 2)
    assert (after.failure, after.kind) == (failure, kind)


def test_what_was_listed_stays_known_while_there_is_no_other_list():
    known = judged(Health(), GOOD, 1.0, 2, ["x", "z"])
    assert (known.models, known.unlisted) == (2, ("z",))
    for later in (judged(known, Outcome(kind="dns"), 2.0, 1), judged(known, Outcome(), 2.0, 1)):
        assert (later.models, later.unlisted) == (2, ("z",))


def test_a_pause_is_the_interval_a_fifth_more_or_less():
    assert [pause(30.0, share) for share in (0.0, 0.5, 1.0)] == [30 * (1 - JITTER), 30.0, 30 * (1 + JITTER)]


@pytest.mark.parametrize(
    ("wanted", "names", "missing"),
    [
        (["x", "z", "z"], {"x"}, ("z",)),
        (["x"], set(), ()),
        (["llama3"], {"llama3:latest"}, ()),
        (["llama3"], {"llama3:8b"}, ("llama3",)),
    ],
)
def test_a_model_is_doubted_that_is_not_among_those_listed(wanted: Sequence[str], names: set[str], missing: tuple[str, ...]):
    assert unlisted(wanted, frozenset(names)) == missing


# -- asking --


@pytest.mark.parametrize(
    ("answers", "keys", "outcome"),
    [
        ([lambda: listing("x")], 1, Outcome(frozenset({"x"}))),
        ([lambda: listing(status=401)], 1, Outcome(kind="provider_auth")),
        ([lambda: listing(status=401), lambda: listing("x")], 2, Outcome(frozenset({"x"}))),
        ([lambda: listing(status=401), lambda: listing(status=401)], 2, Outcome(kind="provider_auth")),
        ([lambda: listing(status=500)], 2, Outcome(kind="server_error")),
        ([lambda: listing(status=429)], 1, Outcome()),
        ([lambda: UpstreamError("overloaded", "ours", reached=False)], 1, None),
        ([lambda: ScriptedResponse([b"<html>"])], 1, Outcome(kind="invalid_response")),
        ([lambda: ScriptedResponse([STALL])], 1, Outcome(kind="upstream_timeout", seconds=2.0)),
    ],
)
def test_a_check_asks_for_the_list_with_each_key_until_one_is_good(answers: list[Any], keys: int, outcome: Outcome | None):
    async def main(clock: HandClock) -> None:
        one, transport = upstream(*[make() for make in answers], keys=keys)
        found = await ask(one, clock, 2.0)
        assert found == (outcome and replace(outcome, seconds=found.seconds if found else 0.0))
        assert found is None or found.seconds == pytest.approx(outcome.seconds if outcome else 0.0)
        assert [request.url for request in transport.sent] == ["https://api.example/v1/models"] * len(answers)
        assert len({request.headers["authorization"] for request in transport.sent}) == len(answers)

    in_virtual_time(main)


async def test_a_dialect_without_a_list_is_left_in_peace():
    class Mute(OpenAI):
        def encode(self, *_: Any) -> Any:
            raise ClientError("no list here")

    one = Upstream("a", Mute(SETTINGS), ScriptedTransport())
    assert await ask(one, HandClock(), 1.0) is None


# -- one after the other --


class Bench:
    """A checker of `providers` with their answers, at the middle of every range of chance."""

    def __init__(self, clock: HandClock, **answers: list[ScriptedResponse | UpstreamError]) -> None:
        made = {name: upstream(*found, name=name) for name, found in answers.items()}
        self.upstreams = {name: one for name, (one, _) in made.items()}
        self.transports = {name: transport for name, (_, transport) in made.items()}
        self.services = Services(clock, Registry(), lambda _fields: None)
        self.checker = Checker(self.services, draw=lambda: 0.5)
        self.said: list[dict[str, Any]] = []
        self.checker.tell = self.said.append

    def watch(self, sections: dict[str, Any] | None = None, **health: Any) -> None:
        models: Models = {"m": ModelEntry(provider=next(iter(self.upstreams)), model="x")}
        settings = Settings(
            providers=sections or dict.fromkeys(self.upstreams, SETTINGS),
            models=models,
            health=HealthSettings.model_validate({"interval": "30s", **health}),
        )
        self.checker.watch(settings, table_of(settings), self.upstreams)

    def sent(self, name: str = "a") -> int:
        return len(self.transports[name].sent)

    def metric(self, name: str = "a") -> float:
        return self.services.metrics.gauges["llm_provider_up"].labels(name).value


def test_the_first_check_comes_soon_and_the_next_after_an_interval():
    async def main(clock: HandClock) -> None:
        bench = Bench(clock, a=[listing("x"), UpstreamError("dns", "m"), UpstreamError("dns", "m"), listing("x")])
        bench.watch(interval="10s")
        states = []
        for wait in (0.4, 0.2, 10, 10, 10):
            await asyncio.sleep(wait)
            states.append((bench.sent(), bench.checker.health("a").state, bench.metric()))
        bench.checker.stop()
        assert states == [(0, "unknown", 0), (1, "up", 1), (2, "up", 1), (3, "down", 0), (4, "up", 1)]
        assert [told["a"]["state"] for told in bench.said] == ["up", "up", "down", "up"]
        counts = bench.services.metrics.counters["llm_provider_checks_total"].children
        assert {labels: each.value for labels, each in counts.items()} == {("a", "ok"): 2, ("a", "dns"): 2}

    in_virtual_time(main)


def test_a_provider_is_not_checked_where_its_section_or_the_whole_says_so():
    async def main(clock: HandClock) -> None:
        bench = Bench(clock, a=[listing("x")], b=[listing("x")])
        bench.watch({"a": SETTINGS, "b": SETTINGS.model_copy(update={"health": False})}, interval="10s")
        await asyncio.sleep(5)
        assert (bench.sent("a"), bench.sent("b")) == (1, 0)
        assert (bench.checker.health("a").state, bench.checker.health("b").state) == ("up", "unchecked")
        bench.watch(interval="0s")
        await asyncio.sleep(100)
        assert (bench.sent("a"), bench.checker.health("a").state) == (1, "unchecked")
        assert not bench.services.metrics.gauges["llm_provider_up"].children
        bench.checker.stop()

    in_virtual_time(main)


def test_one_that_stands_still_holds_up_no_other_and_is_asked_once_at_a_time():
    async def main(clock: HandClock) -> None:
        bench = Bench(clock, a=[ScriptedResponse([STALL]), listing("x")], b=[listing("x") for _ in range(9)])
        bench.watch(interval="1s", timeout="5s")
        await asyncio.sleep(5.2)
        assert (bench.sent("a"), bench.checker.health("a").state) == (1, "unknown")
        assert bench.sent("b") == 5
        await asyncio.sleep(0.5)
        assert (bench.checker.health("a").failure, bench.checker.health("a").state) == ("timeout", "down")
        bench.checker.stop()

    in_virtual_time(main)


def test_a_reload_keeps_what_is_known_of_providers_that_stay():
    async def main(clock: HandClock) -> None:
        bench = Bench(clock, a=[listing("x") for _ in range(3)])
        bench.watch(interval="10s")
        await asyncio.sleep(6)
        bench.watch(interval="10s")
        assert bench.checker.health("a").state == "up"
        await asyncio.sleep(4)
        assert bench.sent() == 1, "the turn that had begun goes on"
        await asyncio.sleep(1)
        assert bench.sent() == 2
        bench.upstreams["a"], transport = upstream(listing("x"))
        bench.watch(interval="10s")
        await asyncio.sleep(1)
        assert (bench.sent(), len(transport.sent)) == (2, 1), "another provider under its name is asked at once"
        bench.checker.stop()

    in_virtual_time(main)


def test_models_that_are_not_listed_are_told_once():
    async def main(clock: HandClock) -> None:
        bench = Bench(clock, a=[listing("y"), listing("y"), listing("x"), listing("y")])
        with logged() as lines:
            bench.watch(interval="1s")
            await asyncio.sleep(3.6)
        assert [line["models"] for line in lines if line["event"] == "models_not_listed"] == [["x"], ["x"]]
        assert bench.checker.health("a").unlisted == ("x",)
        bench.checker.stop()

    in_virtual_time(main)


@pytest.mark.parametrize(("health", "asked"), [({"unlisted_models": "warn"}, 1), ({}, 0), ({"unlisted_models": "ignore"}, 0)])
def test_unlisted_models_are_told_without_checks_where_somebody_wrote_so(health: dict[str, Any], asked: int):
    async def main(clock: HandClock) -> None:
        bench = Bench(clock, a=[listing("y"), listing("y")])
        with logged() as lines:
            bench.watch(interval="0s", **health)
            await asyncio.sleep(100)
        assert bench.sent() == asked
        assert [line["models"] for line in lines if line["event"] == "models_not_listed"] == [["x"]] * asked
        bench.checker.stop()

    in_virtual_time(main)


async def test_what_an_installed_provider_raises_ends_nothing():
    class Broken(OpenAI):
        def encode(self, *_: Any) -> Any:
            raise ZeroDivisionError

    bench = Bench(HandClock(), a=[])
    bench.upstreams["a"] = Upstream("a", Broken(SETTINGS), ScriptedTransport())
    bench.watch(interval="10s")
    with logged() as lines:
        await bench.checker.check("a")
    assert [(line["event"], line["error"]) for line in lines] == [("provider_check_broken", "ZeroDivisionError")]
    assert bench.checker.health("a").state == "unknown"
    bench.checker.stop()


# -- several processes --


async def test_who_does_not_ask_knows_what_it_is_told():
    asks, knows = Bench(HandClock(), a=[listing("x")]), Bench(HandClock(), a=[])
    knows.checker.asks = False
    for bench in (asks, knows):
        bench.watch(interval="10s")
    await asks.checker.check("a")
    [said] = asks.said
    knows.checker.take(orjson.loads(orjson.dumps({**said, "gone": said["a"]})))
    assert knows.checker.health("a") == asks.checker.health("a")
    assert knows.checker.health("gone").state == "unchecked"
    assert not knows.services.metrics.gauges["llm_provider_up"].children, "added up over workers, it would be two"
    asks.checker.stop()


# -- routing --

TARGET = Target("a", "x")


def fail(state: TargetState, now: float) -> None:
    for _ in range(5):
        note_failure(state, UpstreamError("server_error", "m"), now, Ejection())


async def checked(bench: Bench, times: int = 1) -> bool:
    """Whether the target would be chosen, after so many checks."""
    for _ in range(times):
        await bench.checker.check("a")
    return is_available(bench.services.board.of(TARGET), bench.services.clock.monotonic())


async def test_a_failed_check_takes_nobody_out_unless_the_configuration_says_so():
    clock = HandClock()
    for affects, available in ((False, True), (True, False)):
        bench = Bench(clock, a=[UpstreamError("dns", "m"), UpstreamError("dns", "m"), listing("x")])
        bench.watch(interval="10s", affects_routing=affects)
        assert await checked(bench, 2) is available
        assert await checked(bench) is True, "a good check brings it back"
        bench.checker.stop()


async def test_checks_that_have_ended_keep_nobody_out_for_long():
    clock = HandClock()
    bench = Bench(clock, a=[UpstreamError("dns", "m")])
    bench.watch(interval="10s", affects_routing=True)
    assert await checked(bench) is False
    clock.move(25.1)
    assert is_available(bench.services.board.of(TARGET), clock.now)
    bench.checker.stop()


async def test_what_requests_have_found_is_not_taken_back():
    clock = HandClock()
    bench = Bench(clock, a=[UpstreamError("dns", "m"), listing("x")])
    bench.watch(interval="10s", affects_routing=True)
    await checked(bench)
    bench.services.board.of(TARGET).closed_until = clock.now + 300
    assert await checked(bench) is False
    bench.checker.stop()


async def test_a_good_check_does_not_shorten_what_requests_have_taken_out():
    clock = HandClock()
    bench = Bench(clock, a=[UpstreamError("dns", "m"), UpstreamError("dns", "m"), listing("x")])
    bench.watch(interval="20s", affects_routing=True)
    state = bench.services.board.of(TARGET)
    fail(state, clock.now)
    await checked(bench, 2)
    clock.move(5)
    assert await checked(bench) is False
    assert (seconds_out(state, clock.now), circuit(state, clock.now)) == (25.0, "open")
    clock.move(25)
    assert circuit(state, clock.now) == "half_open", "one request will tell"
    bench.checker.stop()


async def test_what_requests_meet_while_checks_keep_a_target_out_stays_when_they_do_not():
    clock = HandClock()
    bench = Bench(clock, a=[UpstreamError("dns", "m"), listing("x"), UpstreamError("dns", "m"), listing("x")])
    bench.watch(interval="100s", failures=1, affects_routing=True)
    state = bench.services.board.of(TARGET)
    await checked(bench)
    note_failure(state, UpstreamError("rate_limit_exceeded", "m", retry_after=7.0), clock.now, Ejection())
    await checked(bench)
    assert seconds_out(state, clock.now) == 7.0
    clock.move(8)
    await checked(bench)
    fail(state, clock.now)
    await checked(bench)
    assert seconds_out(state, clock.now) == 30.0
    bench.checker.stop()


async def test_when_checks_have_ended_one_request_tells_and_a_good_one_brings_the_target_back():
    clock = HandClock()
    bench = Bench(clock, a=[UpstreamError("dns", "m")])
    bench.watch(interval="10s", affects_routing=True)
    await checked(bench)
    state = bench.services.board.of(TARGET)
    assert circuit(state, clock.now) == "open"
    clock.move(25.1)
    assert circuit(state, clock.now) == "half_open"
    note_success(state, clock.now, while_out=True)
    assert circuit(state, clock.now) == "closed"
    bench.checker.stop()


async def test_a_reload_that_turns_it_off_brings_everybody_back():
    bench = Bench(HandClock(), a=[UpstreamError("dns", "m")])
    bench.watch(interval="10s", affects_routing=True)
    assert await checked(bench) is False
    bench.watch(interval="10s")
    assert is_available(bench.services.board.of(TARGET), bench.services.clock.monotonic())
    bench.checker.stop()


# -- at the start --


async def refused(rule: str, *answers: ScriptedResponse | UpstreamError) -> str | None:
    one, _ = upstream(*answers)
    models: Models = {"m": ModelEntry(provider="a", model="x"), "s": ModelEntry(provider="sim", model="anything")}
    settings = Settings(
        providers={"a": SETTINGS, "sim": SimSettings()}, models=models, health=HealthSettings.model_validate({"unlisted_models": rule})
    )
    try:
        await require_listed(settings, table_of(settings), {"a": one}, HandClock())
    except RuntimeError as error:
        return str(error)
    return None


async def test_a_configuration_is_refused_for_models_that_are_not_listed_where_it_wants_that():
    assert "a/x" in (await refused("refuse", listing("y")) or "")
    assert await refused("refuse", listing("x")) is None
    assert await refused("refuse", listing()) is None
    for rule in ("warn", "ignore"):
        assert await refused(rule) is None


async def test_a_provider_that_does_not_answer_is_told_of_and_not_doubted():
    with logged() as lines:
        assert await refused("refuse", UpstreamError("connect_failed", "m")) is None
    assert [(line["event"], line["provider"], line["reason"]) for line in lines] == [("models_not_validated", "a", "connect_failed")]


def test_the_models_of_a_provider_are_those_of_all_targets():
    models: Models = {"m": ModelEntry(provider="a", model="x"), "n": ModelEntry(provider="b", model="y")}
    table = table_of(Settings(providers={"a": SETTINGS, "b": SETTINGS}, models=models))
    assert (models_at(table, "a"), models_at(table, "b"), models_at(table, "c")) == (["x"], ["y"], [])
