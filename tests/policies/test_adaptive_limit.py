"""The limit goes up slowly while all is well, and down at once when it is too much."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from policies.adaptive_limit import AdaptiveLimit, AdaptiveLimitSettings, fastest_after, lowered, raised
from proxy.core.board import ProviderState
from proxy.core.call import Call, Target
from proxy.core.errors import ClientError, UpstreamError
from proxy.core.metrics import Registry
from proxy.core.protocols import Services
from proxy.core.reply import Reply
from tests.core.doubles import HandClock, make_call

RULES = AdaptiveLimitSettings(start=10, least=2, most=12, cut=0.5, slow=4.0)
LIMITED = UpstreamError("rate_limit_exceeded", "m")


@pytest.mark.parametrize(("limit", "in_flight", "expected"), [(10.0, 10, 10.1), (10.0, 5, 10.1), (10.0, 4, 10.0), (12.0, 12, 12.0)])
def test_it_rises_by_one_for_each_round_in_which_it_was_needed(limit: float, in_flight: int, expected: float):
    assert raised(limit, in_flight, RULES) == expected


@pytest.mark.parametrize(("limit", "expected"), [(10.0, 5.0), (3.0, 2.0), (2.0, 2.0)])
def test_it_falls_by_a_share_and_never_below_the_least(limit: float, expected: float):
    assert lowered(limit, RULES) == expected


@pytest.mark.parametrize(("fastest", "seconds", "expected"), [(None, 3.0, 3.0), (3.0, 1.0, 1.0), (1.0, 11.0, 1.01)])
def test_the_fastest_is_forgotten_slowly(fastest: float | None, seconds: float, expected: float):
    assert fastest_after(fastest, seconds) == pytest.approx(expected)


class Bench:
    def __init__(self, settings: AdaptiveLimitSettings = RULES) -> None:
        self.clock = HandClock()
        self.metrics = Registry()
        self.services = Services(self.clock, self.metrics, lambda fields: None)
        self.policy = AdaptiveLimit(settings, self.services)
        self.takes = 1.0

    @property
    def state(self) -> ProviderState:
        return self.services.board.provider("p")

    async def ask(self, answer: Reply | BaseException, model: str = "m", **members: Any) -> Reply:
        async def upstream(_call: Call) -> Reply:
            self.clock.move(self.takes)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return await self.policy(make_call(target=Target("p", model), **members), upstream)

    async def fail(self, error: BaseException) -> None:
        with pytest.raises(type(error)):
            await self.ask(error)


async def streamed() -> AsyncIterator[bytes]:
    yield b"data: 1\n\n"


async def test_what_is_over_the_limit_is_refused_before_it_is_sent():
    """As an overloaded provider would, so that another one may serve it; the client is told when to come back."""
    bench = Bench()
    replies = [await bench.ask(Reply(stream=streamed())) for _ in range(10)]
    with pytest.raises(UpstreamError) as caught:
        await bench.ask(Reply())
    error = caught.value
    assert (error.kind, error.status, error.retry_after, error.reached) == ("overloaded", 503, 1.0, False)
    assert bench.metrics.counters["llm_adaptive_limit_shed_total"].labels("p").value == 1
    replies[0].close()
    await bench.ask(Reply())


async def test_a_429_lowers_it_once_for_those_that_were_under_way_together():
    bench = Bench()
    bench.takes = 0.1
    for _ in range(3):
        await bench.fail(LIMITED)
    assert bench.state.limit == 5.0
    bench.clock.move(1)
    await bench.fail(LIMITED)
    assert bench.state.limit == 2.5


@pytest.mark.parametrize(("others", "limit"), [(4, 5.0), (3, 10.0), (0, 10.0)])
async def test_slow_first_content_lowers_it_too_while_half_of_it_is_in_use(others: int, limit: float):
    """A provider that has next to nothing to do is not slow because it has too much."""
    bench = Bench()
    await bench.ask(Reply())
    for _ in range(others):
        await bench.ask(Reply(stream=streamed()), operation="audio")
    bench.takes = 4.5
    await bench.ask(Reply())
    assert bench.state.limit == limit


async def test_each_kind_of_request_is_held_to_its_own_fastest():
    """Milliseconds of an embedding make no chat of a few hundred slow, nor does a stream's beginning a whole answer."""
    bench = Bench()
    kinds: list[tuple[float, dict[str, Any]]] = [
        (0.01, {"operation": "embedding"}),
        (0.2, {}),
        (0.05, {"stream": True}),
        (2.0, {"model": "large"}),
    ]
    for _ in range(8):
        await bench.ask(Reply(stream=streamed()), operation="audio")
    for _ in range(5):
        for bench.takes, members in kinds:
            await bench.ask(Reply(), **members)
    assert bench.state.limit is not None and bench.state.limit > 10.0


async def test_names_of_models_without_end_are_not_all_kept():
    bench = Bench()
    for number in range(1000):
        await bench.ask(Reply(), model=f"made-up-{number}")
    assert len(bench.state.fastest) == 256
    assert ("made-up-999", "chat", False) in bench.state.fastest


async def test_under_load_that_is_borne_it_rises_to_the_most():
    bench = Bench()
    replies = [await bench.ask(Reply(stream=streamed())) for _ in range(8)]
    for _ in range(100):
        await bench.ask(Reply())
    assert bench.state.limit == 12.0
    assert bench.metrics.gauges["llm_adaptive_limit"].labels("p").value == 12.0
    for reply in replies:
        reply.close()


@pytest.mark.parametrize("error", [LIMITED, UpstreamError("server_error", "m"), ClientError("m"), asyncio.CancelledError()])
async def test_whatever_ends_an_attempt_its_place_is_free_again(error: BaseException):
    bench = Bench()
    await bench.fail(error)
    assert bench.state.in_flight == 0


async def test_only_too_much_lowers_it():
    bench = Bench()
    for error in (UpstreamError("server_error", "m"), ClientError("m")):
        await bench.fail(error)
    assert bench.state.limit == 10.0


@pytest.mark.parametrize(("settings", "limit"), [({"most": 2}, 2.0), ({"least": 30}, 30.0), ({}, 10.0)])
async def test_a_limit_that_was_found_keeps_to_other_bounds(settings: dict[str, Any], limit: float):
    bench = Bench()
    await bench.fail(ClientError("m"))
    bench.policy = AdaptiveLimit(AdaptiveLimitSettings(**settings), bench.services)
    await bench.fail(ClientError("m"))
    assert bench.state.limit == limit


@pytest.mark.parametrize(("settings", "limit"), [({"start": 5000}, 1000.0), ({"start": 1, "least": 4}, 4.0)])
async def test_the_start_keeps_to_the_bounds(settings: dict[str, Any], limit: float):
    bench = Bench(AdaptiveLimitSettings(**settings))
    await bench.fail(ClientError("m"))
    assert bench.state.limit == limit
