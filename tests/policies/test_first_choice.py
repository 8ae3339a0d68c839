"""A first choice that is out: who is asked instead, when it is asked all the same, and what is told of it."""

from __future__ import annotations

from copy import copy
from typing import Any

import pytest

from policies.circuit_breaker import CircuitBreaker, CircuitBreakerSettings
from policies.fallback import HEADER, Fallback, FallbackSettings
from policies.retry import Retry, RetrySettings
from policies.route import Route
from proxy.core.board import Board
from proxy.core.call import Attempt, Call, Target
from proxy.core.errors import GatewayError, UpstreamError
from proxy.core.metrics import Registry
from proxy.core.protocols import Policy, Services
from proxy.core.recent import Recent, explained
from proxy.core.reply import Reply
from proxy.core.resolved import Resolved
from proxy.pipeline import compose
from proxy.routing.router import Router
from proxy.routing.table import Rule, Table
from proxy.routing.walk import leads_on
from tests.core.doubles import HandClock, in_virtual_time, make_call
from tests.policies.routes import Patient, model

FAILED = UpstreamError("server_error", "it failed", status=500)
REJECTED = UpstreamError("rejected", "no", status=422)


ROUTES = {
    "one": model("one", "a", fallback=(Rule("any", "two"),)),
    "two": model("two", "b", fallback=(Rule("any", "three"),)),
    "three": model("three", "c"),
    "slow": model("slow", "a", fallback=(Rule("too_slow", "three"), Rule("rate_limited", "three"))),
    "full": model("full", "a", fallback=(Rule("too_slow", "two"), Rule("unavailable", "three"))),
    "pair": model("pair", "a", "d", fallback=(Rule("any", "three"),)),
    "bare": model("bare", "a", "d"),
}
PROVIDERS = frozenset("abcd")


class World:
    """The policies that choose and repeat, around targets that fail by a table; what they asked and said."""

    def __init__(self, clock: HandClock | None = None, *, attempts: int = 4, retries: int = 0) -> None:
        self.clock = clock or HandClock()
        self.board, self.metrics = Board(), Registry()
        self.said: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.failing: dict[str, GatewayError] = {}
        self.call = make_call()
        services = Services(self.clock, self.metrics, self.said.append, board=self.board)
        targets = {name: route.candidates[0].target for name, route in ROUTES.items()}
        self.router = router = Router(
            Table(targets, PROVIDERS, None, routes=ROUTES), dict.fromkeys(PROVIDERS, Patient()), self.board, self.clock
        )
        retry = Retry(
            RetrySettings(max_retries=retries), services, lambda most: most, lambda call, error: leads_on(router, attempts, call, error)
        )
        policies: list[Policy] = [Route(router), Fallback(FallbackSettings(attempts=attempts), services, router), retry]
        self._handler = compose([*policies, CircuitBreaker(CircuitBreakerSettings(), services)], self._target)

    async def _target(self, call: Call) -> Reply:
        assert call.target is not None
        name = call.target.provider
        self.asked.append(name)
        attempt = Attempt(call.target, self.clock.now)
        call.attempts.append(attempt)
        attempt.ended = self.clock.now
        if name in self.failing:
            attempt.error = "server_error"
            raise copy(self.failing[name])
        return Reply(200)

    async def ask(self, name: str = "one", **members: Any) -> Reply:
        self.asked.clear()
        self.call = make_call(model=name, **members)
        return await self._handler(self.call)

    async def fails(self, name: str = "one", **members: Any) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.ask(name, **members)
        return caught.value

    def fail(self, error: GatewayError, *providers: str) -> None:
        self.failing |= dict.fromkeys(providers, error)

    def take_out(self, *providers: str, seconds: float = 30.0) -> None:
        for name in providers:
            state = self.board.of(Target(name, "m"))
            state.ejections, state.closed_until = 1, self.clock.now + seconds


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("name", "out", "asked"),
    [
        ("one", "", "a"),
        ("one", "a", "b"),
        ("one", "ab", "c"),
        ("one", "abc", "a"),
        ("slow", "a", "a"),
        ("full", "a", "c"),
        ("pair", "a", "d"),
        ("pair", "ad", "c"),
        ("bare", "ad", "a"),
    ],
)
async def test_what_is_out_is_passed_over_for_a_target_of_the_chain_that_is_in(world: World, name: str, out: str, asked: str):
    world.take_out(*out)
    assert (await world.ask(name)).status == 200
    assert world.asked == [asked]


async def test_the_fallback_that_the_hierarchy_names_is_one_to_go_to(world: World):
    world.take_out("a")
    await world.ask("slow", resolved=Resolved(fallback_model="two"))
    assert world.asked == ["b"]


async def test_a_target_whose_trial_is_due_has_it_and_others_go_on_by_the_chain_meanwhile(world: World):
    world.take_out("a")
    world.clock.move(30.0)
    state = world.board.of(Target("a", "m"))
    state.probing = True
    await world.ask()
    assert world.asked == ["b"]
    state.probing = False
    assert (await world.ask()).headers == {}
    assert (world.asked, state.closed_until) == (["a"], 0.0)


async def test_the_first_choice_is_the_last_resort(world: World):
    world.take_out("a")
    world.fail(FAILED, "b", "c")
    assert (await world.ask()).status == 200
    assert world.asked == ["b", "c", "a"]
    world.take_out("a")
    world.fail(FAILED, "a")
    assert (await world.fails()).code == "server_error", "the last failure: not all of them were out"
    assert world.asked == ["b", "c", "a"]


async def test_no_more_targets_are_asked_than_the_settings_say():
    world = World(attempts=2)
    world.take_out("a")
    world.fail(FAILED, *PROVIDERS)
    assert (await world.fails()).code == "server_error"
    assert world.asked == ["b", "c"]


async def test_a_request_that_is_at_fault_hears_so_from_who_was_asked_instead(world: World):
    world.take_out("a")
    world.fail(REJECTED, "b")
    assert (await world.fails()).status == 422
    assert world.asked == ["b"]


async def test_a_body_that_is_passed_on_as_it_comes_goes_to_who_is_in_and_only_there(world: World):
    world.take_out("a")
    world.fail(FAILED, "b")
    assert (await world.fails(content=object())).code == "server_error"
    assert world.asked == ["b"]


@pytest.mark.parametrize("member", ["previous_response_id", "conversation"])
async def test_what_goes_on_with_something_that_lies_at_a_provider_stays_there(world: World, member: str):
    world.take_out("a")
    await world.ask(operation="responses", body={member: "x_1"})
    assert world.asked == ["a"]


LIMITED = UpstreamError("rate_limit_exceeded", "not now", retry_after=60.0)
UNKNOWN = UpstreamError("rejected", "no such response", status=404)


@pytest.mark.parametrize(
    ("body", "others", "told", "provider"),
    [
        ({"previous_response_id": "x_1"}, UNKNOWN, ("rate_limit_exceeded", 60.0, None), "a"),
        ({"conversation": "x_1"}, UNKNOWN, ("rate_limit_exceeded", 60.0, None), "a"),
        ({"previous_response_id": "x_1"}, FAILED, ("server_error", None, False), "c"),
        ({}, UNKNOWN, ("rejected", None, None), "b"),
    ],
)
async def test_that_nobody_else_knows_what_it_goes_on_with_is_not_what_its_client_is_told(
    world: World, body: dict[str, Any], others: UpstreamError, told: tuple[str, float | None, bool | None], provider: str
):
    """It would give up for good what the first choice can do in a minute."""
    world.fail(LIMITED, "a")
    world.fail(others, "b", "c")
    error = await world.fails(operation="responses", body=body)
    assert isinstance(error, UpstreamError) and world.call.target is not None
    assert ((error.kind, error.retry_after, error.should_retry), world.call.target.provider) == (told, provider)


async def test_it_is_logged_counted_and_told(world: World):
    world.take_out("a")
    reply = await world.ask()
    assert (reply.headers, world.call.fallback) == ({HEADER: "unavailable"}, "unavailable")
    (line,) = world.said
    assert (line["primary"], line["fallback"], line["error"], line["cause"]) == ("one", "two", "unavailable", "any")
    assert world.metrics.counter("llm_fallbacks_total", "", "from", "to", "cause").labels("one", "two", "unavailable").value == 1


async def test_an_explanation_names_who_was_passed_over_and_why_another_one_was_asked(world: World):
    world.take_out("a")
    await world.ask()
    recent = Recent(1)
    recent.note(world.call, 200, "ok", None, world.clock.now)
    found = explained(recent.newest(1)[0], 0.0)
    assert [(each["provider"], each["why"]) for each in found["attempts"]] == [("b", "fallback")]
    assert [each["provider"] for each in found["not_asked"]] == ["a"]
    assert (found["fallback"], found["retries"]) == ("unavailable", 0)


# ------------------------------------------------------------------------------------------------------------------------- with retries
def test_a_target_that_keeps_failing_is_spared_once_it_is_out():
    async def main(clock: HandClock) -> tuple[int, list[str]]:
        world = World(clock, retries=2)
        world.fail(FAILED, "a")
        asked: list[str] = []
        for _ in range(8):
            assert (await world.ask()).status == 200
            asked += world.asked
        return asked.count("a"), world.asked

    assert in_virtual_time(main) == (5, ["b"])


@pytest.mark.parametrize(("name", "out", "tries"), [("one", "", 1), ("one", "bc", 3), ("slow", "", 3), ("bare", "d", 1)])
def test_a_target_that_is_out_is_tried_again_only_where_nobody_else_would_be_asked(name: str, out: str, tries: int):
    async def main(clock: HandClock) -> int:
        world = World(clock, retries=2)
        world.fail(FAILED, *PROVIDERS)
        world.take_out(*out)
        state = world.board.of(Target("a", "m"))
        state.failures = 4
        await world.fails(name)
        return world.asked.count("a")

    assert in_virtual_time(main) == tries
