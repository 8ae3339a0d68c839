"""The two literal lists, and the one handler that is made of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from policies import BUILT_IN
from proxy.core.call import Call
from proxy.core.errors import ClientError
from proxy.core.protocols import Handler, Policy
from proxy.core.reply import Reply
from proxy.pipeline import INSTALLED, PER_ATTEMPT, PER_REQUEST, compose, receive
from tests.core.doubles import make_call


class Noting:
    """Says when it is entered and left."""

    def __init__(self, name: str, said: list[str], tries: int = 1) -> None:
        self._name = name
        self._said = said
        self._tries = tries

    async def __call__(self, call: Call, call_next: Handler) -> Reply:
        reply = Reply(500)
        for _ in range(self._tries):
            self._said.append(f"{self._name} in")
            reply = await call_next(call)
            self._said.append(f"{self._name} out")
        return reply


def innermost(said: list[str]) -> Handler:
    async def handler(call: Call) -> Reply:
        said.append(call.id)
        return Reply(201)

    return handler


async def test_policies_run_in_the_order_of_the_list():
    said: list[str] = []
    handler = compose([Noting("a", said), Noting("b", said)], innermost(said))
    assert (await handler(make_call())).status == 201
    assert said == ["a in", "b in", "req_1", "b out", "a out"]


async def test_no_policies_are_the_innermost_handler_itself():
    handler = innermost([])
    assert compose([], handler) is handler


async def test_a_policy_may_ask_the_next_several_times():
    said: list[str] = []
    await compose([Noting("a", said, tries=2), Noting("b", said)], innermost(said))(make_call())
    assert said.count("a in") == said.count("b in") == said.count("req_1") == 2


async def test_a_policy_may_answer_itself_or_refuse():
    async def answers(call: Call, call_next: Handler) -> Reply:
        return Reply(204)

    async def refuses(call: Call, call_next: Handler) -> Reply:
        raise ClientError("no")

    said: list[str] = []
    assert (await compose([answers, Noting("b", said)], innermost(said))(make_call())).status == 204
    with pytest.raises(ClientError):
        await compose([Noting("a", said), refuses], innermost(said))(make_call())
    assert said == ["a in"]


async def test_one_handler_serves_many_calls():
    said: list[str] = []
    handler = compose([Noting("a", said)], innermost(said))
    await handler(make_call(id="one"))
    await handler(make_call(id="two"))
    assert said == ["a in", "one", "a out", "a in", "two", "a out"]


async def test_the_body_is_received_before_what_comes_next():
    said: list[str] = []

    async def receiving(call: Call) -> None:
        said.append("received")

    await compose([receive], innermost(said))(make_call(receive=receiving))
    assert said == ["received", "req_1"]


async def test_the_time_in_which_a_body_arrives_is_its_clients():
    async def receiving(call: Call) -> None:
        call.awaited = 2.0

    call = make_call(receive=receiving)
    await compose([receive], innermost([]))(call)
    assert call.arriving == 2.0


async def test_a_body_that_is_refused_ends_the_call():
    async def receiving(call: Call) -> None:
        raise ClientError("no JSON")

    said: list[str] = []
    with pytest.raises(ClientError):
        await compose([receive], innermost(said))(make_call(receive=receiving))
    assert not said


def test_nothing_stands_outside_the_record_and_a_body_is_read_before_it_is_routed():
    assert PER_REQUEST[0] == "record"
    assert PER_REQUEST.index("receive") < PER_REQUEST.index("route")


def test_every_built_in_policy_has_a_place():
    assert set(BUILT_IN) <= {*PER_REQUEST, *PER_ATTEMPT}
    placed = [name for name in (*PER_REQUEST, *PER_ATTEMPT) if name != INSTALLED]
    assert len(placed) == len(set(placed))


def test_installed_policies_have_a_place_in_both_lists():
    assert INSTALLED in PER_REQUEST
    assert INSTALLED in PER_ATTEMPT
    assert PER_REQUEST.index(INSTALLED) > PER_REQUEST.index("record")


class Odd:
    """Policies whose call is no plain method of two."""

    async def with_more(self, call: Call, call_next: Handler, more: int = 1) -> Reply:
        assert more == 1
        return await call_next(call)

    async def of_any(self, *arguments: Any) -> Reply:
        call, call_next = arguments
        reply: Reply = await call_next(call)
        return reply

    @staticmethod
    async def alone(call: Call, call_next: Handler) -> Reply:
        return await call_next(call)


@pytest.mark.parametrize("policy", [Odd().with_more, Odd().of_any, Odd.alone, partial(Odd.with_more, Odd())])
async def test_whatever_is_called_with_a_call_and_a_handler_is_a_policy(policy: Policy):
    said: list[str] = []
    handler = compose([policy, Noting("b", said), policy], innermost(said))
    assert (await handler(make_call())).status == 201
    assert said == ["b in", "req_1", "b out"]


async def test_a_policy_that_stands_in_two_chains_has_the_next_of_each():
    said: list[str] = []
    policy = Noting("a", said)
    first, second = compose([policy], innermost(said)), compose([policy, Noting("b", said)], innermost(said))
    await first(make_call(id="one"))
    await second(make_call(id="two"))
    await first(make_call(id="three"))
    assert said == ["a in", "one", "a out", "a in", "b in", "two", "b out", "a out", "a in", "three", "a out"]
