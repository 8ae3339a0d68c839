"""What the breaker writes on the board, on every way out of an attempt."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from policies.circuit_breaker import CircuitBreaker, CircuitBreakerSettings
from proxy.core.board import TargetState, circuit, is_available, is_unmeasured
from proxy.core.call import Call, Target
from proxy.core.errors import START, CapacityError, ClientDisconnected, ClientError, StreamError, UpstreamError, late
from proxy.core.metrics import Registry
from proxy.core.protocols import UNSENT, Services
from proxy.core.reply import Reply
from proxy.routing.strategies import STRATEGIES, Candidate, Moment, Seen
from tests.core.doubles import HandClock, make_call

TARGET = Target("p", "m", "public")
FAILED = UpstreamError("server_error", "m")


class Bench:
    """A breaker, its clock and the state of its one target. `takes` is how long each attempt does."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.metrics = Registry()
        self.services = Services(self.clock, self.metrics, lambda fields: None)
        self.policy = CircuitBreaker(CircuitBreakerSettings(), self.services)
        self.takes = 0.0
        self.seen_in_flight: list[int] = []
        self.seen_circuit: list[str] = []

    @property
    def state(self) -> TargetState:
        return self.services.board.of(TARGET)

    @property
    def circuit(self) -> str:
        return circuit(self.state, self.clock.now)

    async def ask(self, answer: Reply | BaseException, **members: Any) -> Reply:
        async def upstream(_call: Call) -> Reply:
            self.seen_in_flight.append(self.state.in_flight)
            self.seen_circuit.append(self.circuit)
            self.clock.move(self.takes)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return await self.policy(make_call(target=TARGET, **members), upstream)

    async def fail(self, times: int = 5, error: BaseException = FAILED, **members: Any) -> None:
        for _ in range(times):
            with pytest.raises(type(error)):
                await self.ask(error, **members)

    def is_available(self) -> bool:
        return is_available(self.state, self.clock.now)


async def streamed() -> AsyncIterator[bytes]:
    yield b"data: 1\n\n"


async def test_a_whole_answer_is_under_way_until_it_is_here():
    bench = Bench()
    await bench.ask(Reply())
    assert (bench.seen_in_flight, bench.state.in_flight) == ([1], 0)


async def test_who_was_not_waited_for_is_neither_taken_out_nor_brought_back():
    """The trial of one that is out goes to the next request."""
    bench, hasty = Bench(), not_waited_for()
    await bench.fail(20, hasty)
    assert bench.circuit == "closed"
    await bench.fail(4)
    await bench.fail(1, hasty)
    await bench.fail(1)
    assert bench.circuit == "open"
    bench.clock.move(31)
    await bench.fail(1, hasty)
    assert (bench.circuit, bench.is_available()) == ("half_open", True)
    await bench.ask(Reply())
    assert bench.circuit == "closed"


async def test_a_stream_is_under_way_until_it_is_closed():
    bench = Bench()
    reply = await bench.ask(Reply(stream=streamed()))
    assert bench.state.in_flight == 1
    reply.close()
    assert bench.state.in_flight == 0


@pytest.mark.parametrize("error", [FAILED, ClientError("m"), ClientDisconnected("m"), asyncio.CancelledError(), RuntimeError("a bug")])
async def test_whatever_ends_an_attempt_it_is_no_longer_under_way(error: BaseException):
    bench = Bench()
    await bench.fail(1, error)
    assert bench.state.in_flight == 0


async def test_the_time_to_the_first_content_is_averaged():
    bench = Bench()
    bench.takes = 2.0
    await bench.ask(Reply())
    assert (bench.state.first_token, bench.state.measured) == (2.0, 1002.0)
    bench.takes = 5.0
    await bench.ask(Reply(stream=streamed()))
    assert bench.state.first_token == 5.0
    bench.takes = 1.0
    await bench.ask(Reply())
    assert 4.0 < (bench.state.first_token or 0) < 5.0


async def test_a_failure_is_no_measurement():
    bench = Bench()
    await bench.fail(1)
    assert bench.state.first_token is None


@pytest.mark.parametrize("error", [FAILED, UpstreamError("rejected", "m"), ClientError("m"), asyncio.CancelledError()])
async def test_an_attempt_without_content_is_known_to_have_been_made(error: BaseException):
    bench = Bench()
    bench.takes = 2.0
    await bench.fail(1, error)
    assert (bench.state.tried, is_unmeasured(bench.state)) == (bench.clock.now, True)
    await bench.ask(Reply())
    assert not is_unmeasured(bench.state)
    assert bench.state.first_token == pytest.approx(2.0)


def not_waited_for() -> UpstreamError:
    error = late(START)
    error.acquit()
    return error


@pytest.mark.parametrize("error", [asyncio.CancelledError(), not_waited_for()], ids=["left", "its time-out"])
async def test_how_long_a_client_waited_in_vain_is_what_the_target_takes_at_least(error: BaseException):
    bench = Bench()
    await bench.ask(Reply())
    for bench.takes, least in ((3.0, 3.0), (1.0, 3.0), (4.0, 4.0)):
        await bench.fail(1, error)
        assert bench.state.first_token == least


@pytest.mark.parametrize("error", [asyncio.CancelledError(), not_waited_for()], ids=["left", "its time-out"])
async def test_a_target_that_every_client_gives_up_is_passed_over_and_tried_by_one_at_a_time(error: BaseException):
    """Though each of them had less time than the administrator gives; content from anywhere brings it back."""
    bench = Bench()
    bench.takes = 10.0
    await bench.fail(4, error, stream=True)
    assert bench.circuit == "closed"
    await bench.fail(1, error, stream=True)
    assert (bench.circuit, bench.is_available()) == ("open", False)
    bench.clock.move(30)
    assert bench.is_available()
    await bench.fail(1, error, stream=True)
    assert (bench.seen_circuit[-1], bench.circuit) == ("half_open", "open")
    bench.clock.move(30)
    await bench.ask(Reply(stream=streamed()), stream=True)
    assert (bench.circuit, bench.is_available()) == ("closed", True)
    await bench.fail(4, error, stream=True)
    assert bench.circuit == "closed"


UNASKED = UpstreamError("upstream_timeout", "m", reached=False)
UNASKED.acquit()


@pytest.mark.parametrize(
    ("error", "takes", "members"),
    [
        (not_waited_for(), 4.0, {"stream": True}),
        (not_waited_for(), 50.0, {}),
        (UNASKED, 10.0, {"stream": True}),
        (asyncio.CancelledError(UNSENT), 10.0, {"stream": True}),
        (asyncio.CancelledError(), 10.0, {"stream": True, "interrupted": CapacityError("m")}),
        (asyncio.CancelledError(), 90.0, {"content": object()}),
        (UpstreamError("rejected", "m"), 10.0, {"stream": True}),
    ],
    ids=["soon", "whole", "no place", "unsent", "shutdown", "upload", "refused"],
)
async def test_who_gives_up_for_another_reason_passes_over_nobody(error: BaseException, takes: float, members: dict[str, Any]):
    bench = Bench()
    bench.takes = takes
    await bench.fail(10, error, **members)
    assert bench.circuit == "closed"


async def test_a_whole_answer_is_waited_for_in_vain_where_none_was_ever_so_long():
    bench = Bench()
    bench.takes = 8.0
    await bench.ask(Reply())
    bench.takes = 15.0
    await bench.fail(5, not_waited_for())
    assert bench.circuit == "closed"
    bench.takes = 16.0
    await bench.fail(5, not_waited_for())
    assert bench.circuit == "open"


async def test_content_that_was_asked_for_before_ends_the_rest_of_a_slow_target():
    bench = Bench()

    async def slow(_call: Call) -> Reply:
        bench.takes = 10.0
        await bench.fail(5, asyncio.CancelledError(), stream=True)
        assert bench.circuit == "open"
        return Reply()

    await bench.policy(make_call(target=TARGET), slow)
    assert bench.circuit == "closed"


async def test_an_upload_that_its_client_broke_off_says_nothing_of_how_fast_the_target_is():
    bench = Bench()

    async def slow(_call: Call) -> Reply:
        bench.clock.move(60)
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await bench.policy(make_call(target=TARGET, content=object()), slow)
    assert (bench.state.first_token, bench.state.tried) == (None, bench.clock.now)


@pytest.mark.parametrize("error", [UpstreamError("rejected", "m"), asyncio.CancelledError()])
async def test_a_target_that_gives_nothing_gets_one_request_of_many_under_least_latency(error: BaseException):
    bench = Bench()
    other = Target("other", "m", "public")
    order = [Candidate(TARGET), Candidate(other)]
    asked = []

    async def upstream(call: Call) -> Reply:
        assert call.target is not None
        asked.append(call.target.provider)
        bench.clock.move(0.3 if call.target == TARGET else 0.5)
        if call.target == TARGET:
            raise error
        return Reply()

    for number in range(50):
        seen = [Seen(each, bench.services.board.of(each.target)) for each in order]
        first = STRATEGIES["least_latency"](seen, Moment(bench.clock.now, Random(number).random))[0]
        with contextlib.suppress(type(error)):
            await bench.policy(make_call(target=first.candidate.target), upstream)
    assert asked.count("p") == 1


async def test_five_failures_take_the_target_out_and_a_trial_brings_it_back():
    bench = Bench()
    await bench.fail()
    assert (bench.is_available(), bench.circuit) == (False, "open")
    bench.clock.move(30)
    assert bench.is_available()
    await bench.ask(Reply())
    assert bench.seen_circuit[-1] == "half_open"
    assert (bench.is_available(), bench.circuit) == (True, "closed")


@pytest.mark.parametrize("error", [ClientError("m"), UpstreamError("rejected", "m"), asyncio.CancelledError()])
async def test_what_the_client_does_takes_nothing_out(error: BaseException):
    bench = Bench()
    await bench.fail(50, error)
    assert bench.is_available() and bench.state.failures == 0


async def test_during_a_trial_nobody_else_is_sent_there():
    bench = Bench()
    await bench.fail()
    bench.clock.move(30)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(_call: Call) -> Reply:
        entered.set()
        await leave.wait()
        return Reply()

    trial = asyncio.ensure_future(bench.policy(make_call(target=TARGET), slow))
    await entered.wait()
    assert not bench.is_available()
    leave.set()
    await trial
    assert bench.is_available()


async def test_a_trial_that_fails_leaves_it_out_for_longer():
    bench = Bench()
    await bench.fail()
    bench.clock.move(30)
    await bench.fail(1)
    assert (bench.is_available(), bench.circuit, bench.state.closed_until) == (False, "open", bench.clock.now + 60)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ClientError("m")])
async def test_a_trial_without_an_outcome_is_held_again(error: BaseException):
    bench = Bench()
    await bench.fail()
    bench.clock.move(30)
    await bench.fail(1, error)
    assert bench.is_available() and bench.state.closed_until != 0.0


async def test_an_only_target_that_is_out_is_tried_and_comes_back_when_it_answers():
    """Nobody else could be chosen: a refusal would have helped no one."""
    bench = Bench()
    await bench.fail(20)
    assert bench.state.ejections == 1, "failing while it is out is no news"
    await bench.ask(Reply())
    assert (bench.is_available(), bench.circuit) == (True, "closed")


async def test_a_429_is_a_cool_down():
    bench = Bench()
    await bench.fail(1, UpstreamError("rate_limit_exceeded", "m", retry_after=7.0))
    assert (bench.state.closed_until, bench.state.failures, bench.circuit) == (1007.0, 0, "open")


async def test_streams_that_break_after_they_began_count_as_well():
    bench = Bench()
    for _ in range(5):
        reply = await bench.ask(Reply(stream=streamed()))
        reply.close(StreamError("stream_interrupted", "m"))
    assert not bench.is_available()


async def test_a_stream_that_ended_well_is_a_success_and_one_that_was_left_is_nothing():
    bench = Bench()
    await bench.fail(4)
    (await bench.ask(Reply(stream=streamed()))).close(ClientDisconnected("m"))
    assert bench.state.failures == 4
    (await bench.ask(Reply(stream=streamed()))).close()
    assert bench.state.failures == 0


async def test_a_stream_on_trial_brings_the_target_back_when_it_begins():
    """It may take minutes to its end."""
    bench = Bench()
    await bench.fail()
    bench.clock.move(30)
    reply = await bench.ask(Reply(stream=streamed()))
    assert bench.is_available()
    reply.close()


async def test_a_target_that_checks_keep_out_is_brought_back_by_a_request_and_taken_out_by_requests():
    bench = Bench()
    bench.state.held_until = bench.clock.now + 75
    await bench.ask(Reply())
    assert (bench.seen_circuit, bench.circuit) == (["open"], "closed")
    bench.state.held_until = bench.clock.now + 75
    await bench.fail()
    bench.state.held_until = 0.0
    assert (bench.circuit, bench.state.ejections) == ("open", 1)


async def test_when_checks_have_ended_one_attempt_at_a_time_is_the_trial_and_one_failure_is_only_one():
    bench = Bench()
    bench.state.held_until = bench.clock.now + 75
    bench.clock.move(75)
    probing = []

    async def upstream(_call: Call) -> Reply:
        probing.append(bench.is_available())
        raise FAILED

    with pytest.raises(UpstreamError):
        await bench.policy(make_call(target=TARGET), upstream)
    assert (probing, bench.circuit, bench.state.failures) == ([False], "closed", 1)


async def test_the_settings_say_when_and_for_how_long():
    bench = Bench()
    bench.policy = CircuitBreaker(
        CircuitBreakerSettings.model_validate({"failures": 2, "ejection": "10s", "longest": "15s"}), bench.services
    )
    await bench.fail(2)
    assert bench.state.closed_until == bench.clock.now + 10
    bench.clock.move(10)
    await bench.fail(1)
    assert bench.state.closed_until == bench.clock.now + 15
