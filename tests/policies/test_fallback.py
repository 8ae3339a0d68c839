"""When a target fails another is asked: which one, how often, and what is never repeated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policies.fallback import HEADER, Fallback, FallbackSettings
from policies.resolve import Resolve
from policies.route import Route
from proxy.core.board import Board
from proxy.core.call import Attempt, Call, Principal, Target, Usage
from proxy.core.errors import CapacityError, ClientError, GatewayError, UpstreamError
from proxy.core.hierarchy import Hierarchy, described
from proxy.core.metrics import Registry
from proxy.core.protocols import Policy, Services
from proxy.core.recent import STOPPED
from proxy.core.reply import Reply
from proxy.core.resolved import Preferences, Resolved
from proxy.http.own_head import OwnHead
from proxy.pipeline import compose
from proxy.routing.router import Router
from proxy.routing.table import Rule, Table
from tests.core.doubles import HandClock, make_call
from tests.policies.routes import Patient, model

FAILED = UpstreamError("server_error", "it failed", status=503)
TOO_LONG = UpstreamError("rejected", "too long", code="context_length_exceeded")
REJECTED = UpstreamError("rejected", "no", status=422)
SLOW = UpstreamError("upstream_timeout", "slow")
LIMITED = UpstreamError("rate_limit_exceeded", "later")


ROUTES = {
    "smart": model("smart", "a", "b", fallback=(Rule("context_window", "long"), Rule("any", "fast"), Rule("any", "last"))),
    "fast": model("fast", "c", fallback=(Rule("too_slow", "swift"),)),
    "long": model("long", "l"),
    "last": model("last", "z", "a"),
    "swift": model("swift", "s"),
    "plain": model("plain", "p", "q"),
}
PROVIDERS = frozenset("abclzspqx")


class World:
    """The two policies around targets that fail by a table, and everything that was asked, said and counted."""

    def __init__(self, *, attempts: int = 4) -> None:
        self.clock = HandClock()
        self.board = Board()
        self.registry = Registry()
        self.said: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.outcomes: dict[str, BaseException] = {}
        self.takes = 0.0
        self.services = services = Services(self.clock, self.registry, self.said.append, board=self.board)
        self.router = self.routed()
        self.policies: list[Policy] = [Route(self.router), Fallback(FallbackSettings(attempts=attempts), services, self.router)]
        self._handler = compose(self.policies, self.target)

    def routed(self, default: str | None = None) -> Router:
        """To the routes, and with a `default` provider to any other model."""
        targets = {name: route.candidates[0].target for name, route in ROUTES.items()} | {"alone": Target("x", "m", "alone")}
        table = Table(targets, PROVIDERS, default, default is not None, ROUTES)
        return Router(table, dict.fromkeys(PROVIDERS, Patient()), self.board, self.clock, windows={"fast": 10})

    async def target(self, call: Call) -> Reply:
        assert call.target is not None
        self.asked.append(call.target.provider)
        self.clock.move(self.takes)
        if call.target.provider in self.outcomes:
            raise self.outcomes[call.target.provider]
        return Reply(200)

    async def ask(self, name: str = "smart", **members: Any) -> Reply:
        self.asked.clear()
        return await self._handler(make_call(model=name, **members))

    async def fails(self, name: str = "smart", **members: Any) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.ask(name, **members)
        return caught.value

    def fail(self, error: BaseException, *providers: str) -> None:
        self.outcomes |= dict.fromkeys(providers, error)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("failing", "error", "asked"),
    [
        ("", FAILED, "a"),
        ("a", FAILED, "ab"),
        ("ab", FAILED, "abc"),
        ("abc", FAILED, "abcz"),
        ("abc", SLOW, "abcz"),
        ("a", TOO_LONG, "al"),
        ("al", TOO_LONG, "al"),
        ("a", REJECTED, "a"),
        ("a", UpstreamError("response_too_large", "huge"), "a"),
        ("a", UpstreamError("provider_auth", "no"), "ab"),
        ("a", UpstreamError("insufficient_quota", "no"), "ab"),
        ("a", CapacityError("full"), "ab"),
        ("a", CapacityError("late", code="deadline_exceeded"), "a"),
        ("a", ClientError("wrong"), "a"),
    ],
)
async def test_the_next_one_is_asked_as_the_cause_says(world: World, failing: str, error: GatewayError, asked: str):
    world.fail(error, *failing)
    if failing.endswith(asked[-1]):
        assert await world.fails() is error
    else:
        assert (await world.ask()).status == 200
    assert "".join(world.asked) == asked


async def test_no_more_targets_are_asked_than_the_settings_say_and_none_twice(world: World):
    world.fail(FAILED, *PROVIDERS)
    assert await world.fails() is FAILED
    assert world.asked == ["a", "b", "c", "z"]
    everything = World(attempts=20)
    everything.fail(SLOW, *PROVIDERS)
    await everything.fails()
    assert everything.asked == ["a", "b", "c", "z", "s"]
    one = World(attempts=1)
    one.fail(FAILED, *PROVIDERS)
    await one.fails()
    assert one.asked == ["a"]


async def test_the_last_failure_is_what_the_client_is_told(world: World):
    world.fail(FAILED, "p")
    world.fail(LIMITED, "q")
    assert await world.fails("plain") is LIMITED


async def test_a_switch_is_logged_counted_and_told(world: World):
    world.fail(FAILED, "a", "b")
    reply = await world.ask()
    assert reply.headers == {HEADER: "server_error"}
    assert [line["event"] for line in world.said] == ["Primary model failed, trying fallback"] * 2
    line = world.said[1]
    assert (line["primary"], line["primary_provider"], line["fallback"], line["fallback_provider"]) == ("smart", "b", "fast", "c")
    assert (line["error"], line["level"], line["id"], line["cause"]) == ("server_error", "warning", "req_1", "any")
    counted = world.registry.counter("llm_fallbacks_total", "", "from", "to", "cause")
    assert [counted.labels("smart", to, "server_error").value for to in ("smart", "fast")] == [1, 1]


async def test_who_serves_at_once_is_not_told(world: World):
    assert (await world.ask()).headers == {}
    assert not world.said


async def test_the_fallback_that_the_configuration_hierarchy_names_goes_before_the_models_own(world: World):
    world.fail(FAILED, "a", "b")
    await world.ask(resolved=Resolved(fallback_model="last"))
    assert world.asked == ["a", "b", "z"]


@pytest.mark.parametrize("fallback", ["alone", "p/m", "nothing"])
async def test_a_model_without_a_chain_has_the_hierarchys_fallback(world: World, fallback: str):
    world.fail(FAILED, "s")
    if fallback == "nothing":
        assert await world.fails("swift", resolved=Resolved(fallback_model=fallback)) is FAILED
    else:
        assert (await world.ask("swift", resolved=Resolved(fallback_model=fallback))).status == 200
        assert world.asked == ["s", "x" if fallback == "alone" else "p"]


async def test_a_model_that_the_prompt_is_too_long_for_is_passed_over(world: World):
    world.fail(FAILED, "a", "b")
    await world.ask(body={"messages": [{"role": "user", "content": "x" * 30}]})
    assert world.asked == ["a", "b", "c"]
    await world.ask(body={"messages": [{"role": "user", "content": "x" * 50}]})
    assert world.asked == ["a", "b", "z"]


async def test_a_fallback_to_itself_ends(world: World):
    world.fail(FAILED, "x")
    assert await world.fails("alone", resolved=Resolved(fallback_model="alone")) is FAILED
    assert world.asked == ["x"]


async def test_what_a_client_sent_as_a_stream_is_sent_once(world: World):
    world.fail(FAILED, "a")
    assert await world.fails(content=object()) is FAILED
    assert world.asked == ["a"]


BACKGROUND: dict[str, Any] = {"operation": "responses", "body": {"background": True, "store": True}}
IMAGE: dict[str, Any] = {"operation": "images", "body": {"prompt": "x"}}


@pytest.mark.parametrize("request_", [BACKGROUND, IMAGE], ids=["background", "image"])
@pytest.mark.parametrize("kind", ["reset", "server_error", "upstream_timeout", "bad_upstream", "invalid_response"])
async def test_what_may_not_be_done_twice_is_asked_of_nobody_else_once_a_provider_had_it(world: World, request_: dict[str, Any], kind: str):
    failed = UpstreamError(kind, "it failed")
    world.fail(failed, "a", "p", "c")
    for name in ("smart", "plain", "fast"):
        assert await world.fails(name, **request_, resolved=Resolved(fallback_model="last"), notes={}) is failed
        assert len(world.asked) == 1
    assert not world.said


@pytest.mark.parametrize("request_", [BACKGROUND, IMAGE], ids=["background", "image"])
@pytest.mark.parametrize(
    "error",
    [
        *(UpstreamError(kind, "no") for kind in ("rate_limit_exceeded", "insufficient_quota", "overloaded", "provider_auth")),
        *(UpstreamError(kind, "no", reached=False) for kind in ("connect_failed", "connect_timeout", "dns", "overloaded")),
        CapacityError("full"),
    ],
    ids=str,
)
async def test_what_a_provider_refused_or_never_had_is_asked_of_another(world: World, request_: dict[str, Any], error: GatewayError):
    world.fail(error, "a")
    assert (await world.ask(**request_)).status == 200
    assert world.asked == ["a", "b"]


async def test_a_rejection_that_a_rule_is_for_leads_on_whatever_was_asked(world: World):
    world.fail(TOO_LONG, "a")
    await world.ask(**BACKGROUND)
    assert world.asked == ["a", "l"]


async def test_what_is_only_read_is_asked_of_another(world: World):
    world.fail(FAILED, "a")
    await world.ask(operation="files", method="GET")
    assert world.asked == ["a", "b"]


async def test_a_failure_after_which_nothing_may_follow_is_told_as_it_is_though_all_are_out(world: World):
    """To come back later is no advice where it may have been done."""
    for name in "pq":
        world.board.of(Target(name, "m")).closed_until = 1030.0
    world.fail(FAILED, "p", "q")
    notes: dict[str, Any] = {}
    assert await world.fails("plain", **IMAGE, notes=notes) is FAILED
    assert len(world.asked) == 1
    assert list(notes[STOPPED].values()) == ["unrepeatable"]


async def test_nothing_is_begun_once_the_deadline_has_passed(world: World):
    world.takes = 3.0
    world.fail(FAILED, "a", "b", "c")
    assert await world.fails(deadline=world.clock.now + 6.0) is FAILED
    assert world.asked == ["a", "b"]


async def test_a_key_is_kept_to_what_it_may_use(world: World):
    world.fail(FAILED, "a", "b", "c")
    allowed = Principal(models=("smart", "fast"), providers=frozenset("ac"))
    assert await world.fails(principal=allowed) is FAILED
    assert world.asked == ["a", "c"]


@pytest.mark.parametrize("providers", ["ab", "a", "abc"])
async def test_a_key_that_may_have_nothing_that_a_rule_leads_to_hears_what_was_wrong(world: World, providers: str):
    world.fail(TOO_LONG, "a", "b")
    assert await world.fails(principal=Principal("u", providers=frozenset(providers))) is TOO_LONG
    assert world.asked == ["a"]
    world.fail(FAILED, "a", "b", "c")
    error = await world.fails(principal=Principal("u", providers=frozenset(providers)))
    assert error is FAILED
    assert world.asked == list(providers)


@pytest.mark.parametrize(
    ("providers", "asked"), [("x", None), ("xl", "l"), ("xs", "s"), ("xls", "l")], ids=["neither", "larger", "fallback", "both"]
)
async def test_a_prompt_that_is_too_long_goes_to_a_provider_that_the_key_may_use(world: World, providers: str, asked: str | None):
    hierarchy = Hierarchy(
        Preferences(fallback_model="swift"), context_windows={"alone": 100, "long": 9000, "swift": 9000}, larger_model="long"
    )
    handler = compose([Resolve(hierarchy, world.services, world.router.may_have), *world.policies], world.target)
    body = {"model": "alone", "messages": [{"role": "user", "content": "word" * 1000}]}
    principal = Principal("u", providers=frozenset(providers))
    call = make_call(model="alone", body=body, raw=json.dumps(body).encode(), principal=principal)
    if asked is None:
        with pytest.raises(ClientError) as caught:
            await handler(call)
        assert (caught.value.status, caught.value.code) == (400, "context_length_exceeded")
    else:
        await handler(call)
        assert world.asked == [asked]


async def test_targets_that_are_out_are_passed_over_and_the_last_resort(world: World):
    for name in "bc":
        world.board.of(Target(name, "m")).closed_until = 2000.0
    world.fail(FAILED, "a", "z")
    await world.ask()
    assert world.asked == ["a", "z", "b"]


async def test_if_all_are_out_one_is_asked_and_the_client_learns_when_to_come_back(world: World):
    for name, until in (("p", 1090.0), ("q", 1030.0)):
        world.board.of(Target(name, "m")).closed_until = until
    world.fail(FAILED, "p", "q")
    error = await world.fails("plain")
    assert (error.status, error.code, error.retry_after) == (503, "all_targets_unavailable", 30.0)
    assert world.asked == ["q"]
    world.outcomes.clear()
    assert (await world.ask("plain")).status == 200


@pytest.mark.parametrize("soonest", ["a", "b", "c", "z"])
async def test_if_all_are_out_the_one_that_is_back_first_is_asked_and_no_other(world: World, soonest: str):
    for name in "abcz":
        world.board.of(Target(name, "m")).closed_until = 1005.0 if name == soonest else 1090.0
    world.fail(FAILED, *"abcz")
    error = await world.fails()
    assert (error.status, error.code, world.asked) == (503, "all_targets_unavailable", [soonest])
    world.outcomes.clear()
    assert (await world.ask()).status == 200
    assert world.asked == [soonest]


async def test_when_to_come_back_is_what_holds_once_all_have_failed(world: World):
    """The one that was asked as the last resort wants a longer rest than it had."""
    for name, until in (("p", 1001.0), ("q", 1090.0)):
        world.board.of(Target(name, "m")).closed_until = until

    async def target(call: Call) -> Reply:
        assert call.target is not None
        state = world.board.of(call.target)
        state.closed_until = max(state.closed_until, world.clock.now + 60.0)
        world.clock.move(5.0)
        raise FAILED

    handler = compose([Route(world.router), Fallback(FallbackSettings(), world.services, world.router)], target)
    with pytest.raises(CapacityError) as caught:
        await handler(make_call(model="plain"))
    assert (caught.value.code, caught.value.retry_after) == ("all_targets_unavailable", 55.0)


@pytest.mark.parametrize(("first", "told"), [(40.0, 38.0), (200.0, 90.0), (2.5, 1.0)], ids=["sooner", "later", "at any moment"])
async def test_a_client_comes_back_when_the_first_of_those_that_were_asked_does(world: World, first: float, told: float):
    async def target(call: Call) -> Reply:
        assert call.target is not None
        rest = first if call.target.provider == "p" else 90.0
        world.board.of(call.target).closed_until = world.clock.now + rest
        call.attempts.append(Attempt(call.target, world.clock.now))
        if call.target.provider == "p":
            world.clock.move(2.0)
        raise UpstreamError("rate_limit_exceeded", "later", retry_after=rest)

    handler = compose([Route(world.router), Fallback(FallbackSettings(), world.services, world.router)], target)
    with pytest.raises(UpstreamError) as caught:
        await handler(make_call(model="plain"))
    assert (caught.value.status, caught.value.retry_after) == (429, told)


async def test_what_the_last_one_asked_may_have_cost_is_not_that_of_one_that_never_was(world: World):
    """Each keeps its own: see `Attempt.usage`."""

    async def target(call: Call) -> Reply:
        assert call.target is not None
        if call.target.provider != "p":
            raise CapacityError("full")
        call.attempts.append(Attempt(call.target, 1000.0, usage=Usage(2, 0)))
        call.usage = call.attempts[-1].usage
        raise FAILED

    call = make_call(model="plain")
    with pytest.raises(GatewayError):
        await compose([Route(world.router), Fallback(FallbackSettings(), world.services, world.router)], target)(call)
    assert call.target is not None and call.target.provider == "q"
    assert (call.usage, call.lost) == (None, [(call.attempts[0].target, Usage(2, 0))])


async def test_a_request_that_is_at_fault_hears_so_even_when_all_are_out(world: World):
    world.board.of(Target("p", "m")).closed_until = world.board.of(Target("q", "m")).closed_until = 1030.0
    world.fail(REJECTED, "p", "q")
    assert await world.fails("plain") is REJECTED


async def test_a_reply_is_never_replaced(world: World):
    class Answering:
        async def __call__(self, call: Call) -> Reply:
            return Reply(500)

    services = Services(world.clock, world.registry, world.said.append, board=world.board)
    handler = compose([Route(world.router), Fallback(FallbackSettings(), services, world.router)], Answering())
    assert (await handler(make_call(model="smart"))).status == 500
    assert not world.said


# ------------------------------------------------------------------------------------------------------------- the model's parameters
PARAMS = {"smart": {"temperature": 0.1, "max_tokens": 100}, "fast": {"temperature": 0.9, "top_p": 0.5}}
ALONE: dict[str, Any] = {"temperature": 0.9, "top_p": 0.5}


@pytest.mark.parametrize(
    ("given", "first", "then"),
    [
        ({}, {"temperature": 0.1, "max_tokens": 100}, ALONE),
        ({"temperature": 0}, {"temperature": 0, "max_tokens": 100}, {"temperature": 0, "top_p": 0.5}),
        ({"max_completion_tokens": 7}, {"max_completion_tokens": 7, "temperature": 0.1}, {"max_completion_tokens": 7, **ALONE}),
        ({"temperature": None, "top_p": None}, {"temperature": 0.1, "top_p": None, "max_tokens": 100}, ALONE),
        (
            {"comporta": {"params": {"max_tokens": 9}}},
            {"max_tokens": 9, "temperature": 0.1},
            {"max_tokens": 9, **ALONE},
        ),
    ],
    ids=["nothing set", "one set", "another name of the length", "nulls", "set for the gateway"],
)
async def test_another_models_parameters_take_the_place_of_the_first_ones(
    world: World, given: dict[str, Any], first: dict[str, Any], then: dict[str, Any]
):
    """`a` and `b` serve `smart`, `c` serves `fast`; each gets bytes that say what its body says."""
    seen: list[tuple[str, dict[str, Any], bytes]] = []

    async def target(call: Call) -> Reply:
        assert call.target is not None
        assert json.loads(call.raw) == call.body
        seen.append((call.target.provider, {**call.body}, call.raw))
        if call.target.provider in "ab":
            raise FAILED
        return Reply(200)

    body = {"model": "smart", "messages": [], **given}
    resolve = Resolve(Hierarchy(params=PARAMS), world.services)
    handler = compose([resolve, Route(world.router), Fallback(FallbackSettings(), world.services, world.router)], target)
    await handler(make_call(model="smart", raw=json.dumps(body).encode(), body=body))
    assert [name for name, _, _ in seen] == ["a", "b", "c"]
    rest = {"model": "smart", "messages": []}
    assert [sent for _, sent, _ in seen] == [{**rest, **first}] * 2 + [{**rest, **then}]
    assert seen[0][2] == seen[1][2]


async def test_a_last_resort_of_the_first_model_has_that_models_parameters_again(world: World):
    seen: list[tuple[str, Any]] = []

    async def target(call: Call) -> Reply:
        assert call.target is not None
        seen.append((call.target.provider, call.body.get("temperature")))
        raise FAILED

    world.board.of(Target("b", "m", "smart")).closed_until = world.clock.now + 100
    body = {"model": "smart"}
    resolve = Resolve(Hierarchy(params=PARAMS), world.services)
    handler = compose([resolve, Route(world.router), Fallback(FallbackSettings(), world.services, world.router)], target)
    with pytest.raises(UpstreamError):
        await handler(make_call(model="smart", raw=json.dumps(body).encode(), body=body))
    assert seen == [("a", 0.1), ("c", 0.9), ("z", None), ("b", 0.1)]


@pytest.mark.parametrize(
    ("system", "given", "source", "told"),
    [
        (Preferences(), {}, "request", {"model": ("smart", "request"), "temperature": (0.9, "system"), "top_p": (0.5, "system")}),
        (
            Preferences(fallback_model="fast", max_retries=0),
            {"temperature": 0.2, "max_completion_tokens": 7},
            "request",
            {
                "model": ("smart", "request"),
                "fallback_model": ("fast", "system"),
                "max_retries": (0, "system"),
                "temperature": (0.2, "request"),
                "top_p": (0.5, "system"),
                "max_tokens": (7, "request"),
            },
        ),
        (
            Preferences(),
            {"comporta": {"fallback_model": "fast", "params": {"temperature": 0.3}}},
            "request",
            {
                "model": ("smart", "request"),
                "fallback_model": ("fast", "request"),
                "temperature": (0.3, "request"),
                "top_p": (0.5, "system"),
            },
        ),
    ],
    ids=["a chain", "the system's", "the request's"],
)
@pytest.mark.parametrize("is_explained", [True, False])
async def test_the_account_has_the_parameters_that_were_sent_instead(
    world: World, system: Preferences, given: dict[str, Any], source: str, told: dict[str, tuple[Any, str]], is_explained: bool
):
    world.fail(FAILED, "a", "b")
    raw = json.dumps({"model": "smart", "messages": [], **given}).encode()
    resolve = Resolve(Hierarchy(system, params=PARAMS), world.services)
    headers = {"x-comporta-explain": "true"} if is_explained else {}
    call = make_call(model="smart", raw=raw, body=json.loads(raw), headers=headers)
    await compose([resolve, *world.policies], world.target)(call)
    assert call.resolved is not None
    assert {name: (one["value"], one["source"]) for name, one in described(call.resolved).items()} == told
    assert call.resolved.source == source
    if is_explained:
        account = {name: list(one) for name, one in told.items()}
        assert json.loads(call.notes["explain"]) == {"source": source, "values": account}
    else:
        assert "explain" not in call.notes


@pytest.mark.parametrize("hierarchy", [None, Hierarchy(), Hierarchy(params=PARAMS)])
async def test_the_account_follows_back_to_the_first_model(world: World, hierarchy: Hierarchy | None):
    told: list[Any] = []

    async def target(call: Call) -> Reply:
        assert call.resolved is not None and call.target is not None
        assert call.resolved.params.get("temperature") == call.body.get("temperature")
        assert (call.resolved.model, call.resolved.sources["model"]) == ("smart", "request")
        told.append((call.target.provider, call.served))
        raise FAILED

    world.board.of(Target("b", "m", "smart")).closed_until = world.clock.now + 100
    call = make_call(model="smart", raw=b'{"model": "smart"}', body={"model": "smart"})
    with pytest.raises(UpstreamError):
        await compose([Resolve(hierarchy, world.services), *world.policies], target)(call)
    assert told == [("a", "smart"), ("c", "fast"), ("z", "last"), ("b", "smart")]


@pytest.mark.parametrize(
    ("asked", "fallback", "providers"),
    [
        ("a/gpt-4.1", "b/gpt-4.1", "ab"),
        ("a/gpt-4.1", "gpt-4.1", "ab"),
        ("gpt-4.1", "a/gpt-4.1", "ba"),
        ("a/gpt-4.1", "fast", "ac"),
        ("smart", "z/m", "abz"),
    ],
)
async def test_who_served_is_told_by_the_name_that_led_there(world: World, asked: str, fallback: str, providers: str):
    """`b` is the default provider; names that end alike are no more alike than others."""
    router = world.routed(default="b")
    world.fail(FAILED, *providers[:-1])
    resolve = Resolve(Hierarchy(Preferences(fallback_model=fallback)), world.services)
    call = make_call(model=asked, raw=b"{}", body={"model": asked})
    handler = compose([resolve, Route(router), Fallback(FallbackSettings(), world.services, router)], world.target)
    reply = await handler(call)
    assert (world.asked, call.served) == (list(providers), fallback)
    head = OwnHead(world.clock)
    for _ in "12":
        assert f"x-comporta-model: {fallback}\r\n" in head.lines(call, reply.headers)
