"""Which targets may serve a call, and in what order they are to be asked."""

from __future__ import annotations

from typing import Any

import pytest

from policies.route import Route
from proxy.core.board import Board
from proxy.core.call import Call, Principal, Target, Timeouts
from proxy.core.errors import ClientError
from proxy.core.reply import Reply
from proxy.core.resolved import Resolved
from proxy.routing.conditions import Range
from proxy.routing.router import Router
from proxy.routing.strategies import Candidate
from proxy.routing.table import ModelRoute, Table
from tests.core.doubles import HandClock, make_call

EAST, WEST, NORTH = (Target(name, "m", "smart") for name in ("east", "west", "north"))


class _Patient:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def timeouts(self, call: Call) -> Timeouts:
        return Timeouts(total=self._seconds if call.stream else 1.0)


PROVIDERS = {"east": _Patient(3.0), "west": _Patient(7.0), "north": _Patient(9.0)}


def router(route: ModelRoute | None = None, board: Board | None = None) -> Router:
    routes = {} if route is None else {"smart": route}
    table = Table({"smart": EAST, "gpt-4o": Target("west", "gpt-4o", "gpt-4o")}, frozenset(PROVIDERS), "east", routes=routes)
    return Router(table, PROVIDERS, board or Board(), HandClock(), random=lambda: 0.5)


async def routed(router: Router, **members: Any) -> Call:
    async def innermost(_: Call) -> Reply:
        return Reply(201)

    call = make_call(**{"model": "smart", **members})
    assert (await Route(router)(call, innermost)).status == 201
    return call


def tiers(*targets: Target, **more: Any) -> ModelRoute:
    return ModelRoute(tuple(Candidate(each, priority=place) for place, each in enumerate(targets)), "priority", **more)


async def test_a_call_gets_its_target_and_that_providers_patience():
    call = await routed(router(), model="gpt-4o", stream=True)
    assert (call.target, call.timeouts, call.others) == (Target("west", "gpt-4o", "gpt-4o"), Timeouts(total=7.0), ())


async def test_what_the_hierarchy_says_of_time_goes_before_the_providers_patience():
    resolved = Resolved(timeouts={"first_token": 2.0, "min_tokens_per_second": 5.0})
    call = await routed(router(), model="gpt-4o", stream=True, resolved=resolved)
    assert call.timeouts == Timeouts(total=7.0, first_token=2.0, min_tokens_per_second=5.0)


async def test_several_targets_are_put_in_order():
    call = await routed(router(tiers(WEST, EAST, NORTH)), stream=True)
    assert (call.target, call.others, call.timeouts) == (WEST, (EAST, NORTH), Timeouts(total=7.0))


async def test_nothing_is_asked_for_a_model_that_does_not_exist():
    with pytest.raises(ClientError) as caught:
        await routed(router(), model="nothing")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


async def test_a_target_that_is_out_goes_last_and_none_is_left_out():
    board = Board()
    board.of(WEST).closed_until = 1030.0
    call = await routed(router(tiers(WEST, EAST, NORTH), board))
    assert (call.target, call.others) == (EAST, (NORTH, WEST))


async def test_of_targets_that_are_all_out_the_one_that_is_back_first_is_asked():
    board = Board()
    for target, until in ((WEST, 1300.0), (EAST, 1030.0), (NORTH, 1100.0)):
        board.of(target).closed_until = until
    call = await routed(router(tiers(WEST, EAST, NORTH), board))
    assert (call.target, call.others) == (EAST, (NORTH, WEST))


@pytest.mark.parametrize(
    ("principal", "code"),
    [
        (Principal(models=("other*",)), "model_not_allowed"),
        (Principal(providers=frozenset({"south"})), "model_not_allowed"),
        (Principal(models=("sma*",), providers=frozenset({"east", "north"})), None),
    ],
)
async def test_a_key_gets_no_more_than_it_may_have(principal: Principal, code: str | None):
    route = tiers(WEST, EAST, NORTH)
    if code is None:
        call = await routed(router(route), principal=principal)
        assert (call.target, call.others) == (EAST, (NORTH,))
        return
    with pytest.raises(ClientError) as caught:
        await routed(router(route), principal=principal)
    assert (caught.value.status, caught.value.code) == (403, code)


async def test_a_key_is_kept_to_its_providers_for_a_model_with_one_target_too():
    with pytest.raises(ClientError) as caught:
        await routed(router(), model="gpt-4o", principal=Principal(providers=frozenset({"east"})))
    assert caught.value.status == 403


@pytest.mark.parametrize(
    ("principal", "near"),
    [
        (Principal(), "gpt-4o, smart"),
        (Principal(models=("gpt-*",)), "gpt-4o"),
        (Principal(providers=frozenset({"north"})), "smart"),
        (Principal(models=("other",)), None),
    ],
)
async def test_a_hint_names_nothing_that_the_key_may_not_have(principal: Principal, near: str | None):
    with pytest.raises(ClientError) as caught:
        await routed(router(tiers(EAST, NORTH)), model="zzz", principal=principal)
    hint = "" if near is None else f" Near to it: {near}."
    assert (caught.value.status, caught.value.message) == (404, f"The model 'zzz' does not exist.{hint}")


PREMIUM = ModelRoute(
    (
        Candidate(EAST),
        Candidate(WEST, when=(("tier", ("premium",)),)),
        Candidate(NORTH, when=(("prompt_tokens", Range(above=8000)), ("task_type", ("report", "insight")))),
    )
)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, (EAST,)),
        ({"principal": Principal(tier="premium")}, (WEST, EAST)),
        ({"principal": Principal(tier="standard")}, (EAST,)),
        ({"body": {"prompt": "x" * 40_000}}, (EAST,)),
        ({"body": {"prompt": "x" * 40_000}, "resolved": Resolved(task_type="report")}, (NORTH, EAST)),
        ({"body": {"prompt": "x" * 400}, "resolved": Resolved(task_type="report")}, (EAST,)),
    ],
)
async def test_a_target_whose_condition_holds_goes_before_those_without_one(members: dict[str, Any], expected: tuple[Target, ...]):
    call = await routed(router(PREMIUM), **members)
    assert (call.target, *call.others) == expected


async def test_a_request_that_meets_no_condition_is_refused():
    with pytest.raises(ClientError) as caught:
        await routed(router(ModelRoute((Candidate(EAST, when=(("stream", (True,)),)),))))
    assert (caught.value.status, caught.value.code) == (400, "no_target")


@pytest.mark.parametrize(
    "members",
    [
        {"headers": {"x-comporta-session": "s-7"}},
        {"body": {"prompt_cache_key": "s-7"}},
        {"body": {"user": "s-7"}},
        {"end_user": "s-7"},
        {"principal": Principal(key="s-7")},
    ],
)
async def test_whatever_names_the_session_leads_to_the_same_target(members: dict[str, Any]):
    route = ModelRoute((Candidate(EAST), Candidate(WEST), Candidate(NORTH)), "sticky")
    by_header = await routed(router(route), headers={"x-comporta-session": "s-7"})
    assert (await routed(router(route), **members)).target == by_header.target


async def test_a_way_that_was_gone_before_keeps_to_what_each_request_is():
    table = router()
    policy = Route(table)

    async def innermost(_: Call) -> Reply:
        return Reply(201)

    async def way(**members: Any) -> tuple[Target | None, float | None]:
        call = make_call(model="gpt-4o", **members)
        await policy(call, innermost)
        assert call.timeouts is not None
        return call.target, call.timeouts.total

    target = table.find("gpt-4o")
    longer = Resolved(timeouts={"total": 20.0})
    for _ in range(2):
        assert await way(stream=True) == (target, 7.0)
        assert await way() == (target, 1.0)
        assert await way(resolved=longer) == (target, 20.0)
        with pytest.raises(ClientError):
            await way(principal=Principal(providers=frozenset({"east"})))
