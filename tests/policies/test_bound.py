"""What lies at one provider is asked for there; where nobody knows where it lies, it is searched for, and nothing is done twice."""

from __future__ import annotations

import asyncio
from copy import copy
from typing import Any

import pytest

from policies.fallback import Fallback, FallbackSettings
from policies.hedge import Hedge, HedgeSettings
from policies.route import Bound
from proxy.core.board import Board
from proxy.core.call import Attempt, Call, Principal, Target, Usage
from proxy.core.errors import ClientError, GatewayError, UpstreamError
from proxy.core.metrics import Registry
from proxy.core.protocols import Policy, Services
from proxy.core.recent import STOPPED, Recent, explained
from proxy.core.reply import Reply
from proxy.core.resolved import Resolved
from proxy.pipeline import compose
from proxy.routing.router import Router
from proxy.routing.table import Table
from tests.core.doubles import HandClock, in_virtual_time, make_call
from tests.policies.routes import Patient, model

UNKNOWN = UpstreamError("rejected", "no such thing", status=404)
FAILED = UpstreamError("server_error", "it failed", status=500)
ROUTES = {"m": model("m", "a", "b", "c")}
PROVIDERS = frozenset("abcd")


class World:
    """The providers `a` (the default one) to `d`, each with ids of its own."""

    def __init__(self, attempts: int = 4, clock: HandClock | None = None, *, hedges: bool = False) -> None:
        self.clock = clock or HandClock()
        self.services = services = Services(self.clock, Registry(), lambda _: None)
        self.has: dict[str, set[str]] = {name: set() for name in PROVIDERS}
        self.failing: dict[str, GatewayError] = {}
        self.slow: dict[str, float] = {}
        self.asked = ""
        self.call = make_call()
        found = {"m": Target("a", "m", "m"), "only_b": Target("b", "m", "m"), "b_too": Target("b", "other", "b_too")}
        router = Router(Table(found, PROVIDERS, "a", routes=ROUTES), dict.fromkeys(PROVIDERS, Patient()), Board(), self.clock)
        policies: list[Policy] = [Bound(router, services, attempts, "abcd"), Fallback(FallbackSettings(), services, router)]
        if hedges:
            policies.append(Hedge(HedgeSettings(samples=2, share=0.5), services, router))
        self._handler = compose(policies, self._serve)

    async def _serve(self, call: Call) -> Reply:
        assert call.target is not None
        provider = call.target.provider
        self.asked += provider
        attempt = Attempt(call.target, self.clock.now)
        call.attempts.append(attempt)
        call.usage = None
        if provider in self.slow:
            await asyncio.sleep(self.slow[provider])
        if provider in self.failing:
            error = copy(self.failing[provider])
            attempt.usage = call.usage = error.usage if isinstance(error, UpstreamError) else None
            raise error
        goes_on = (
            call.path.split("/")[2] if call.path.count("/") > 1 else call.body.get("previous_response_id", call.body.get("conversation"))
        )
        if goes_on is not None and goes_on not in self.has[provider]:
            raise copy(UNKNOWN)
        made = f"resp_{provider}{len(self.has[provider])}"
        self.has[provider].add(made)
        return Reply(200, body=b'{"id":"%b"}' % made.encode())

    async def ask(self, model: str | None = "m", path: str = "/responses", operation: str = "responses", **members: Any) -> str:
        """Who was asked, in their order."""
        self.asked = ""
        self.call = make_call(operation, model=model, path=path, **members)
        await self._handler(self.call)
        return self.asked

    async def fails(self, *which: Any, **members: Any) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.ask(*which, **members)
        return caught.value

    async def read(self, id: str, **members: Any) -> str:
        return await self.ask(None, f"/responses/{id}", "stored_response", **{"method": "GET", **members})

    def know(self, id: str, provider: str) -> None:
        self.services.whereabouts.note(id, provider)

    def lay(self, id: str, *providers: str) -> None:
        for each in providers:
            self.has[each].add(id)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_second_turn_goes_where_the_first_one_went_whoever_is_first_by_then(world: World):
    world.failing["a"] = FAILED
    assert await world.ask() == "ab"
    del world.failing["a"]
    assert await world.ask() == "a"
    assert await world.ask(body={"previous_response_id": "resp_b0"}) == "b"
    assert world.call.notes[STOPPED] == {0: "bound"}
    assert await world.ask(body={"previous_response_id": "resp_b1"}) == "b"


@pytest.mark.parametrize("path", ["/responses/resp_b0", "/responses/resp_b0/cancel", "/responses/resp_b0/input_items"])
async def test_a_response_is_asked_for_where_it_was_made_and_nowhere_else(world: World, path: str):
    await world.ask("only_b")
    assert await world.ask(None, path, "stored_response") == "b"
    assert (world.call.target, world.call.others) == (Target("b", None), ())
    world.has["b"].clear()
    assert (await world.fails(None, path, "stored_response")).status == 404
    assert world.asked == "b"


async def test_what_is_not_kept_is_not_remembered(world: World):
    await world.ask("only_b", body={"store": False})
    assert world.services.whereabouts.find("resp_b0") is None


@pytest.mark.parametrize("member", ["previous_response_id", "conversation"])
async def test_what_nobody_knows_of_is_searched_at_the_models_targets_and_found_at_once_the_next_time(world: World, member: str):
    world.lay("x_1", "c")
    assert await world.ask(body={member: "x_1", "store": True}) == "abc"
    assert world.call.notes[STOPPED] == {1: "unknown", 2: "unknown"}
    assert await world.ask(body={member: "x_1"}) == "c"


async def test_what_nobody_has_is_unknown_as_the_first_one_says(world: World):
    world.failing["b"] = UpstreamError("rejected", "not here either", status=400, code="previous_response_not_found")
    error = await world.fails(body={"previous_response_id": "x_1"})
    assert (world.asked, error.message) == ("abc", "no such thing")
    assert world.call.target == Target("a", "m", "m")
    assert world.services.whereabouts.find("x_1") is None


async def test_the_failure_of_one_that_may_have_it_is_told_since_it_may_be_there(world: World):
    world.failing["b"] = FAILED
    error = await world.fails(body={"previous_response_id": "x_1"})
    assert (world.asked, error.message, world.call.target) == ("abc", "it failed", Target("b", "m", "m"))


@pytest.mark.parametrize(("attempts", "asked"), [(4, "abc"), (2, "ab"), (1, "a")])
async def test_no_more_are_asked_than_may_be(attempts: int, asked: str):
    world = World(attempts)
    await world.fails(body={"previous_response_id": "x_1"})
    assert world.asked == asked


async def test_nobody_is_asked_when_there_is_no_time_left(world: World):
    await world.fails(body={"previous_response_id": "x_1"}, deadline=world.clock.now)
    assert world.asked == "a"


async def test_a_request_that_is_at_fault_otherwise_is_not_taken_elsewhere(world: World):
    world.failing["a"] = UpstreamError("rejected", "no", status=422)
    await world.fails(body={"previous_response_id": "x_1"})
    assert world.asked == "a"
    world.failing["a"] = UNKNOWN
    await world.fails()
    assert world.asked == "a", "it goes on with nothing"


async def test_an_unknown_response_is_searched_everywhere_and_first_where_responses_were_made(world: World):
    world.lay("resp_x", "d")
    world.know("another", "c")
    assert await world.read("resp_x", method="DELETE") == "acbd", "who says that it has it not has deleted nothing"
    assert await world.read("resp_x") == "d"
    world.lay("resp_y", "a")
    assert (await world.read("resp_y"), await world.read("resp_y")) == ("a", "a")
    assert world.call.notes[STOPPED] == {0: "bound"}, "its answer has shown that it lies there"


async def test_an_answer_to_what_goes_on_with_something_does_not_show_that_it_lies_there(world: World):
    """Some providers ignore what they do not know."""
    world.lay("resp_x", "a", "d")
    await world.ask(body={"previous_response_id": "resp_x"})
    assert world.services.whereabouts.find("resp_x") is None


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/responses/x_1"), ("POST", "/responses/x_1/cancel")])
async def test_what_may_have_been_done_already_is_done_nowhere_else(world: World, method: str, path: str):
    world.failing["b"] = FAILED
    error = await world.fails(None, path, "stored_response", method=method)
    assert (world.asked, error.message) == ("ab", "it failed")


# ------------------------------------------------------------ failures
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("member", ["previous_response_id", "conversation"])
async def test_when_who_has_it_fails_nobody_is_asked_who_would_answer_without_knowing_it(world: World, member: str, is_known: bool):
    world.failing["a"] = FAILED
    world.lay("x_1", "b", "c")
    if is_known:
        world.know("x_1", "a")
    error = await world.fails(body={member: "x_1"}, resolved=Resolved(fallback_model="only_b"))
    assert (world.asked, error.message, world.call.target, world.call.others) == ("a", "it failed", Target("a", "m", "m"), ())


async def test_another_model_of_the_same_provider_knows_it_too(world: World):
    world.failing["a"] = FAILED
    world.lay("x_1", "b")
    world.know("x_1", "b")
    world.failing["b"] = FAILED
    await world.fails(body={"previous_response_id": "x_1"}, resolved=Resolved(fallback_model="only_b"))
    assert (world.asked, world.call.target) == ("b", Target("b", "m", "m")), "it is the same one"
    await world.fails(body={"previous_response_id": "x_1"}, resolved=Resolved(fallback_model="b_too"))
    assert (world.asked, world.call.target) == ("bb", Target("b", "other", "b_too"))


@pytest.mark.parametrize("path", ["/responses/x_1", "/conversations", "/conversations/x_1"])
async def test_what_names_no_model_has_no_other_model_to_fall_back_to(world: World, path: str):
    world.failing["a"] = FAILED
    operation = "stored_response" if path.startswith("/responses") else "conversations"
    error = await world.fails(None, path, operation, method="GET", resolved=Resolved(fallback_model="only_b"))
    assert (world.asked, error.message) == ("a", "it failed")


def test_no_second_request_is_made_at_one_who_does_not_know_it():
    async def main(clock: HandClock) -> tuple[str, str]:
        world = World(clock=clock, hedges=True)
        world.slow["a"] = 0.2
        for _ in range(4):
            await world.ask()
        world.slow["a"] = 5.0
        bound = await world.ask(body={"previous_response_id": "resp_a0"})
        return bound, await world.ask()

    assert in_virtual_time(main) == ("a", "ab")


async def test_a_search_that_fails_tells_what_each_one_has_cost(world: World):
    for provider, prompt in (("b", 1000), ("c", 3)):
        error = copy(FAILED)
        error.usage = Usage(prompt)
        world.failing[provider] = error
    await world.fails(body={"previous_response_id": "x_1"})
    assert (world.asked, world.call.target, world.call.usage) == ("abc", Target("b", "m", "m"), Usage(1000))
    assert [(target.provider, usage.prompt) for target, usage in world.call.lost] == [("c", 3)]


async def test_an_explanation_calls_it_a_search_to_its_end_and_leaves_each_failure_its_own_reason(world: World):
    world.failing["b"] = FAILED
    await world.fails(body={"previous_response_id": "x_1"})
    recent = Recent(1)
    recent.note(world.call, 500, "error", None, 0.0)
    attempts = explained(recent.newest(1)[0], 0.0)["attempts"]
    assert [(each["why"], each["not_repeated"]) for each in attempts] == [("first", "unknown"), ("search", None), ("search", None)]


async def test_conversations_are_made_at_the_default_provider_and_gone_on_with_there():
    world = World(attempts=1)
    world.lay("conv_1", "a")
    world.services.board.of(Target("a", "m")).closed_until = world.clock.now + 30
    assert await world.ask(body={"conversation": "conv_1"}) == "a"
    assert await world.ask(None, "/conversations", "conversations") == "a"
    assert await world.ask(None, "/conversations/conv_1/items", "conversations") == "a"


async def test_a_conversation_known_to_lie_elsewhere_is_asked_for_there(world: World):
    world.lay("conv_1", "c")
    world.know("conv_1", "c")
    assert await world.ask(body={"conversation": "conv_1"}) == "c"
    assert await world.ask(None, "/conversations/conv_1", "conversations") == "c"


# ------------------------------------------------------------ what keys may
async def test_a_key_reaches_nobody_by_an_id_that_it_may_not_reach(world: World):
    world.lay("resp_x", "b", "c")
    world.know("resp_x", "b")
    only = Principal(providers=frozenset("ac"))
    assert (await world.fails(body={"previous_response_id": "resp_x"}, principal=only)).status == 404
    assert world.asked == "a"
    assert (await world.fails(None, "/responses/resp_x", "stored_response", principal=only)).status == 404
    assert world.asked == "a"
    world.lay("resp_y", "b")
    assert (await world.fails(body={"previous_response_id": "resp_y"}, principal=only)).status == 404
    assert world.asked == "ac"


@pytest.mark.parametrize("limits", [Principal(providers=frozenset("z")), Principal(models=("m",))])
async def test_a_key_that_may_reach_nobody_for_it_is_refused(world: World, limits: Principal):
    world.know("resp_x", "b")
    with pytest.raises(ClientError) as caught:
        await world.read("resp_x", principal=limits)
    assert (caught.value.status, world.asked) == (403, "")


async def test_a_key_for_one_provider_reaches_what_it_has_made_there(world: World):
    only = Principal(providers=frozenset("b"))
    await world.ask("only_b", principal=only)
    assert await world.read("resp_b0", principal=only) == "b"


async def test_a_provider_that_is_gone_from_the_configuration_is_nobodys_first_choice(world: World):
    world.know("resp_x", "gone")
    world.lay("resp_x", "a")
    assert await world.read("resp_x") == "a"
    assert await world.ask(body={"previous_response_id": "resp_x"}) == "a"
