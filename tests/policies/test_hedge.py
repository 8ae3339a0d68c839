"""A second request beside a slow first one: when, to whom, who wins, and what becomes of the other."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

import pytest

from policies.circuit_breaker import CircuitBreaker, CircuitBreakerSettings
from policies.fallback import Fallback, FallbackSettings
from policies.hedge import Hedge, HedgeSettings, Rival, chosen
from policies.record import Record, RecordSettings, line
from policies.retry import Retry, RetrySettings
from proxy.core.board import Board
from proxy.core.call import HEDGE_LOST, Attempt, Call, Credential, Target, Timeouts, Usage
from proxy.core.errors import CapacityError, GatewayError, UpstreamError
from proxy.core.metrics import Registry
from proxy.core.protocols import Handler, LLMProvider, Policy, Services, UpstreamRequest
from proxy.core.recent import Recent, explained
from proxy.core.reply import Reply
from proxy.dispatch import Dispatch, Upstream
from proxy.pipeline import compose
from proxy.routing.router import Router
from proxy.routing.table import Table
from tests.core.doubles import HandClock, in_virtual_time, make_call
from tests.transport.wired import ORIGIN, pool

A, B, C = Target("a", "m-a", "m"), Target("b", "m-b", "m"), Target("c", "m-c", "m")
FAILED = UpstreamError("server_error", "it failed", status=503)
REJECTED = UpstreamError("rejected", "no", status=422)
SHARE = 0.5
SETTINGS = {"least": "100ms", "samples": 5, "share": SHARE}


@pytest.mark.parametrize(
    ("rivals", "left", "saved", "expected"),
    [
        ([], None, 9.0, "nobody"),
        ([Rival(A, False, None)], None, 9.0, "nobody"),
        ([Rival(A, True, None)], None, 9.0, A),
        ([Rival(A, False, None), Rival(B, True, 1.0)], None, 1.0, B),
        ([Rival(A, True, None)], None, 0.99, "spent"),
        ([Rival(A, True, None)], 0.0, 9.0, "late"),
        ([Rival(A, True, 2.0)], 2.0, 9.0, "late"),
        ([Rival(A, True, 2.0)], 2.1, 9.0, A),
    ],
)
def test_who_is_asked_as_well(rivals: list[Rival], left: float | None, saved: float, expected: Target | str):
    assert chosen(rivals, left, saved) == expected


class Patient:
    def timeouts(self, call: Call) -> Timeouts:
        return Timeouts()


class World:
    """Targets that take their seconds and then answer or fail, in virtual time, under the policies that stand around an attempt."""

    def __init__(self, clock: HandClock, **settings: Any) -> None:
        self.clock = clock
        self.board = Board()
        self.metrics = Registry()
        self.services = Services(clock, self.metrics, lambda _line: None, board=self.board)
        self.plays: dict[str, tuple[float, GatewayError | None]] = {"a": (0.2, None), "b": (0.2, None), "c": (0.2, None)}
        self.asked: list[str] = []
        self.cancelled: list[str] = []
        self.closed: dict[str, BaseException | None] = {}
        targets = {"m": A}
        self.router = Router(Table(targets, frozenset("abc"), None), dict.fromkeys("abc", Patient()), self.board, clock)
        self.hedge = Hedge(HedgeSettings.model_validate({**SETTINGS, **settings}), self.services, self.router)
        self.handler = compose([self.hedge], self._attempt)

    async def _attempt(self, call: Call) -> Reply:
        target = call.target
        assert target is not None
        name = target.provider
        self.asked.append(name)
        started = self.clock.monotonic()
        attempt = Attempt(target, started)
        call.attempts.append(attempt)
        seconds, error = self.plays[name]
        try:
            await asyncio.sleep(seconds)
            if error is not None:
                attempt.error = getattr(error, "kind", "unavailable")
                raise error
        except asyncio.CancelledError:
            self.cancelled.append(name)
            call.usage = call.estimated_usage()
            raise
        finally:
            attempt.ended = self.clock.monotonic()
            call.upstream_seconds += attempt.ended - started
        call.target = Target(target.provider, target.model, target.public, Credential("env:" + name, "s"))
        call.usage = Usage(1, ord(name), reported=True)
        call.first_token = call.last_token = self.clock.monotonic()
        call.tokens_seen = ord(name)
        reply = Reply(200, {"by": name}, stream=_words(name) if call.stream else None)
        reply.on_close(lambda error: self.closed.__setitem__(name, error))
        return reply

    def call(self, **members: Any) -> Call:
        given = {"target": A, "others": (B,), "model": "m", "started": self.clock.now, "raw": b"12345678", "timeouts": Timeouts()}
        return make_call(**{**given, **members})

    async def warm(self, count: int = 5) -> None:
        """As many calls as are measured first, of a second each."""
        plays, self.plays = self.plays, {**self.plays, "a": (1.0, None)}
        for _ in range(count):
            await self.handler(self.call())
        self.plays = plays
        self.asked.clear()

    def hedges(self) -> dict[tuple[str, ...], float]:
        return {labels: child.value for labels, child in self.metrics.counters["llm_hedges_total"].children.items()}

    def lost(self, name: str = "llm_hedge_tokens_total") -> dict[tuple[str, ...], float]:
        return {labels: child.value for labels, child in self.metrics.counters[name].children.items()}

    def withheld(self) -> dict[tuple[str, ...], float]:
        return {labels: child.value for labels, child in self.metrics.counters["llm_hedges_withheld_total"].children.items()}


async def _words(name: str) -> AsyncIterator[bytes]:
    yield name.encode()


Play = Callable[[World], Coroutine[Any, Any, None]]


def played(**settings: Any) -> Callable[[Play], Callable[[], None]]:
    """A test in virtual time, in a world with these settings."""

    def wrapped(test: Play) -> Callable[[], None]:
        async def main(clock: HandClock) -> None:
            await test(World(clock, **settings))

        def run() -> None:
            in_virtual_time(main)

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return wrapped


# ---------------------------------------------------------------------------------------------------------------------------- when
@played()
async def test_nobody_else_is_asked_before_enough_answers_were_measured(world: World):
    await world.warm(4)
    world.plays["a"] = (60.0, None)
    await world.handler(world.call())
    assert world.asked == ["a"]


@played()
async def test_a_second_target_is_asked_once_the_first_takes_longer_than_most_do(world: World):
    await world.warm()
    world.plays["a"] = (60.0, None)
    call = world.call()
    reply = await world.handler(call)
    assert (reply.headers["by"], world.asked, world.cancelled) == ("b", ["a", "b"], ["a"])
    assert world.clock.now - call.started == pytest.approx(1.0 + 0.2)


@played()
async def test_an_answer_that_comes_as_soon_as_most_do_stays_alone(world: World):
    await world.warm()
    world.plays["a"] = (0.8, None)
    for _ in range(20):
        await world.handler(world.call())
    assert set(world.asked) == {"a"}
    assert asyncio.all_tasks() == {asyncio.current_task()}


@played(least="5s")
async def test_it_is_never_sooner_than_the_least_delay(world: World):
    await world.warm()
    world.plays["a"] = (4.9, None)
    await world.handler(world.call())
    assert world.asked == ["a"]


@played()
async def test_streams_and_whole_answers_are_measured_apart(world: World):
    await world.warm()
    world.plays["a"] = (60.0, None)
    await world.handler(world.call(stream=True))
    assert world.asked == ["a"]


@pytest.mark.parametrize(
    "members",
    [
        {"operation": "files"},
        {"body": {"store": True}},
        {"content": object()},
        {"others": ()},
        {"others": (Target("b", "m", "another model"),)},
        {"others": (A,)},
    ],
    ids=["an operation with effects", "stored", "streamed in", "no other", "only of another model", "only itself"],
)
def test_it_is_not_for_every_call(members: dict[str, Any]):
    async def main(clock: HandClock) -> None:
        world = World(clock)
        await world.warm()
        world.plays["a"] = (60.0, None)
        await world.handler(world.call(**members))
        assert world.asked == ["a"]

    in_virtual_time(main)


@played()
async def test_a_deadline_that_leaves_no_time_allows_none(world: World):
    await world.warm()
    world.plays["a"] = (60.0, None)
    await world.handler(world.call(deadline=world.clock.now + 0.9))
    world.board.of(B).first_token = 10.0
    await world.handler(world.call(deadline=world.clock.now + 9.0))
    assert (world.asked, world.withheld()) == (["a", "a"], {("a", "late"): 1})


@played()
async def test_a_target_that_is_out_is_passed_over(world: World):
    await world.warm()
    world.plays["a"] = (60.0, None)
    world.board.of(B).closed_until = world.clock.now + 1000
    assert (await world.handler(world.call(others=(B, C)))).headers["by"] == "c"
    await world.handler(world.call())
    assert (world.asked, world.withheld()) == (["a", "c", "a"], {("a", "nobody"): 1})


@played(share=0.02)
async def test_hedges_are_a_share_of_the_calls(world: World):
    await world.warm(100)
    world.plays["a"] = (10_000.0, None)
    calls = 300
    await asyncio.gather(*[world.handler(world.call()) for _ in range(calls)])
    most = 0.02 * (100 + calls)
    assert most - 1 <= sum(world.hedges().values()) <= most
    assert world.withheld()["a", "spent"] >= calls - most


@played(share=0.2)
async def test_a_second_request_that_was_never_made_costs_nothing_of_the_share(world: World):
    """The first answer comes in the moment in which the second request would have been made."""
    await world.warm()
    world.plays["a"] = (1.0 - 5e-10, None)
    call = world.call()
    await world.handler(call)
    assert (world.asked, world.hedges(), call.notes) == (["a"], {}, {})
    world.plays["a"] = (60.0, None)
    assert (await world.handler(world.call())).headers["by"] == "b"


@played(same_target=True)
async def test_the_same_target_is_asked_again_where_that_is_wanted_and_there_is_no_other(world: World):
    await world.warm()
    world.plays["a"] = (3.0, None)
    call = world.call(others=())
    await world.handler(call)
    assert (world.asked, len(call.attempts)) == (["a", "a"], 2)
    await world.handler(world.call())
    assert world.asked == ["a", "a", "a", "b"]


@played()
async def test_a_call_gets_one(world: World):
    await world.warm()
    world.plays.update(a=(60.0, FAILED), b=(0.1, FAILED))
    handler = compose([Retry(RetrySettings(), world.services, lambda _most: 0.0), world.hedge], world._attempt)
    call = world.call(others=(B, C))
    with pytest.raises(UpstreamError) as caught:
        await handler(call)
    assert caught.value is FAILED
    assert world.asked == ["a", "b", "a", "a"]
    assert [attempt.is_hedge for attempt in call.attempts] == [False, True, False, False]
    recent = Recent(1)
    recent.note(call, 503, "upstream_error", FAILED.code, world.clock.now)
    assert [each["why"] for each in explained(recent.newest(1)[0], 0.0)["attempts"]] == ["first", "hedge", "retry", "retry"]


# ---------------------------------------------------------------------------------------------------------------------------- who wins
@played()
async def test_what_is_known_of_the_winner_is_what_is_known_of_the_call(world: World):
    await world.warm()
    world.plays["a"] = (60.0, None)
    call = world.call(stream=False)
    await world.handler(call)
    assert call.target == Target("b", "m-b", "m", Credential("env:b", "s"))
    assert (call.usage, call.tokens_seen) == (Usage(1, ord("b"), reported=True), ord("b"))
    assert call.upstream_seconds == pytest.approx(1.2), "both were waited for at the same time"
    lost, won = call.attempts
    assert (lost.error, lost.usage, lost.is_hedge) == (HEDGE_LOST, Usage(2, 0), False)
    assert (won.error, won.usage, won.is_hedge) == (None, None, True)
    record = line(call, 200, "ok", None, world.clock.now)
    assert (record["hedge"], record["attempts"], record["provider"]) == ("won", 2, "b")
    assert (record["lost_prompt_tokens"], record["lost_completion_tokens"]) == (2, 0)
    assert world.hedges() == {("b", "won"): 1}
    assert world.metrics.counter("llm_hedge_tokens_total", "", "provider", "kind").labels("a", "prompt").value == 2


@played()
async def test_the_first_may_win_all_the_same(world: World):
    await world.warm()
    world.plays.update(a=(1.5, None), b=(60.0, None))
    call = world.call()
    reply = await world.handler(call)
    await asyncio.sleep(0)
    assert (reply.headers["by"], world.cancelled) == ("a", ["b"])
    assert call.target is not None and call.target.provider == "a"
    assert call.usage == Usage(1, ord("a"), reported=True)
    assert [(attempt.target.provider, attempt.error, attempt.usage) for attempt in call.attempts] == [
        ("a", None, None),
        ("b", HEDGE_LOST, Usage(2, 0)),
    ]
    record = line(call, 200, "ok", None, world.clock.now)
    assert (record["hedge"], record["lost_prompt_tokens"]) == ("lost", 2)
    assert world.hedges() == {("b", "lost"): 1}
    assert world.lost() == {("b", "prompt"): 2, ("b", "completion"): 0}


@pytest.mark.parametrize("kind", ["server_error", "reset"])
@pytest.mark.parametrize("answers", [False, True], ids=["waited for", "answers in the same moment"])
def test_who_leaves_the_second_one_when_the_first_has_failed_has_left_that_one(kind: str, answers: bool):
    """Then it is the request, and not one whose answer nobody wanted."""

    async def main(clock: HandClock) -> None:
        world = World(clock)
        await world.warm()
        charged = kind == "reset"

        async def attempt(call: Call) -> Reply:
            try:
                reply = await world._attempt(call)
            except UpstreamError:
                call.usage = Usage(2, 0) if charged else None
                raise
            asyncio.get_running_loop().call_soon(asking.cancel)
            return reply

        world.plays.update(a=(1.5, UpstreamError(kind, "it failed")), b=(2.0 if answers else 60.0, None))
        call = world.call(stream=False)
        asking = asyncio.ensure_future(compose([world.hedge], attempt)(call))
        asyncio.get_running_loop().call_later(60.0 if answers else 2.0, asking.cancel)
        await asyncio.wait([asking])
        assert asking.cancelled() and isinstance(world.closed.get("b"), asyncio.CancelledError) is answers
        assert call.target is not None and call.target.provider == "b"
        assert call.usage == (Usage(1, ord("b"), reported=True) if answers else Usage(2, 0))
        assert [(each.target.provider, each.error, each.is_hedge) for each in call.attempts] == [("a", kind, False), ("b", None, True)]
        record = line(call, 499, "cancelled", None, clock.now)
        assert (record["provider"], record["hedge"], record.get("lost_prompt_tokens")) == ("b", "cancelled", 2 if charged else None)
        assert world.hedges() == {("b", "cancelled"): 1}
        assert world.lost() == ({("a", "prompt"): 2, ("a", "completion"): 0} if charged else {})

    in_virtual_time(main)


class Plain:
    """Of a provider nothing but where it is."""

    def encode(self, call: Call, target: Target) -> UpstreamRequest:
        return UpstreamRequest("POST", f"{ORIGIN}/v1/x", {}, call.raw)


@pytest.mark.parametrize("leaves", [False, True])
def test_what_was_never_sent_is_not_written_off(leaves: bool):
    """The second request waits for the address of its provider, in a real pool."""

    async def main(clock: HandClock) -> None:
        world = World(clock)
        await world.warm()
        transport = pool(lookup=asyncio.get_running_loop().create_future())
        upstream = Upstream("b", cast(LLMProvider, Plain()), transport)
        dispatch = Dispatch({"b": upstream}, clock, world.metrics)

        async def attempt(call: Call) -> Reply:
            assert call.target is not None
            return await (dispatch(call) if call.target.provider == "b" else world._attempt(call))

        world.plays["a"] = (3.0, None)
        call = world.call()
        asking = asyncio.ensure_future(compose([world.hedge], attempt)(call))
        asyncio.get_running_loop().call_later(2.0, asking.cancel if leaves else lambda: None)
        await asyncio.wait([asking])
        record = line(call, 200, "ok", None, clock.now)
        assert (record["hedge"], "lost_prompt_tokens" in record) == ("cancelled" if leaves else "lost", False)
        assert ([each.usage for each in call.attempts if each.is_hedge], world.lost().get(("b", "prompt"), 0)) == ([None], 0)
        await transport.close()

    in_virtual_time(main)


@pytest.mark.parametrize("stream", [False, True])
def test_one_that_does_not_end_when_told_to_is_not_waited_for_and_is_written_off_once(stream: bool):
    async def main(clock: HandClock) -> None:
        world = World(clock)
        await world.warm()
        world.hedge.tail(A, stream).value = 1.0
        world.plays.update(a=(1.5, None), b=(60.0, None))

        async def stubborn(call: Call, call_next: Handler) -> Reply:
            asking = asyncio.ensure_future(call_next(call))
            try:
                return await asyncio.shield(asking)
            except asyncio.CancelledError:
                return await asking

        started, call = clock.now, world.call(stream=stream)
        reply = await compose([Record(RecordSettings(), world.services), world.hedge, stubborn], world._attempt)(call)
        assert reply.headers["by"] == "a"
        assert clock.now - started < 1.6
        call.end(reply, None)
        await asyncio.sleep(100)
        assert isinstance(world.closed["b"], asyncio.CancelledError)
        assert world.lost() == world.lost("llm_lost_tokens_total") == {("b", "prompt"): 1, ("b", "completion"): ord("b")}

    in_virtual_time(main)


@played()
async def test_a_client_that_leaves_while_the_other_one_ends_leaves_no_answer_open(world: World):
    await world.warm()
    world.plays.update(a=(1.5, None), b=(60.0, None))

    async def slow_to_end(call: Call, call_next: Handler) -> Reply:
        try:
            return await call_next(call)
        except asyncio.CancelledError:
            client.cancel()
            await asyncio.sleep(1.0)
            raise

    client = asyncio.ensure_future(compose([world.hedge, slow_to_end], world._attempt)(world.call()))
    with pytest.raises(asyncio.CancelledError):
        await client
    assert isinstance(world.closed["a"], asyncio.CancelledError)
    await asyncio.sleep(2.0)
    assert (world.lost()["b", "prompt"], asyncio.all_tasks()) == (2, {asyncio.current_task()})


@pytest.mark.parametrize("second", [0.5, 0.5 - 5e-10, 0.5 + 5e-10, 0.5 - 1e-6, 0.5 + 1e-6])
@pytest.mark.parametrize("stream", [False, True])
def test_two_that_answer_in_the_same_moment_leave_one_answer_and_the_other_closed(second: float, stream: bool):
    async def main(clock: HandClock) -> None:
        world = World(clock)
        world.hedge.tail(A, stream).value = 1.0
        await world.warm()
        world.hedge.tail(A, stream).value = 1.0
        world.plays.update(a=(1.5, None), b=(second, None))
        call = world.call(stream=stream)
        reply = await world.handler(call)
        await asyncio.sleep(1)
        by = reply.headers["by"]
        assert call.target is not None and call.target.provider == by
        assert len(call.attempts) == 2
        other = "b" if by == "a" else "a"
        assert other in world.cancelled or isinstance(world.closed.get(other), asyncio.CancelledError)
        assert by not in world.closed
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    in_virtual_time(main)


@played()
async def test_a_first_one_that_answers_although_it_was_told_to_stop_is_taken(world: World):
    await world.warm()
    world.plays.update(a=(60.0, None), b=(0.5, None))

    async def stubborn(call: Call, call_next: Handler) -> Reply:
        try:
            return await call_next(call)
        except asyncio.CancelledError:
            return Reply(200, {"by": "stubborn"})

    reply = await compose([world.hedge, stubborn], world._attempt)(world.call())
    await asyncio.sleep(0)
    assert (reply.headers["by"], list(world.closed)) == ("stubborn", ["b"])
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]  # a test runs in a task


@played()
async def test_a_stream_tells_the_clients_call_from_then_on(world: World):
    for _ in range(5):
        world.hedge.tail(A, True).add(1.0)
    world.hedge._saved = 5.0
    world.plays["a"] = (60.0, None)
    call = world.call(stream=True)
    reply = await world.handler(call)
    assert (call.tokens_seen, call.first_token) == (ord("b"), world.clock.now)
    reply.close(None)
    assert call.usage == Usage(1, ord("b"), reported=True)


@played()
async def test_a_first_one_that_fails_leaves_the_second_to_answer(world: World):
    await world.warm()
    world.plays.update(a=(1.1, FAILED), b=(1.0, None))
    call = world.call()
    reply = await world.handler(call)
    assert (reply.headers["by"], world.cancelled) == ("b", [])
    assert [attempt.error for attempt in call.attempts] == ["server_error", None]
    assert call.upstream_seconds == pytest.approx(2.0)


@played()
async def test_a_second_one_that_fails_is_nobodys_failure(world: World):
    await world.warm()
    world.plays.update(a=(3.0, None), b=(0.1, REJECTED))
    call = world.call()
    assert (await world.handler(call)).headers["by"] == "a"
    assert [attempt.error for attempt in call.attempts] == [None, "rejected"]
    assert world.hedges() == {("b", "failed"): 1}


@pytest.mark.parametrize("first", [None, FAILED], ids=["the first answers", "the first fails"])
def test_a_second_one_that_the_gateway_does_not_send_costs_nothing_of_the_share(first: UpstreamError | None):
    """A provider that is given no more attempts for now was not asked."""

    async def main(clock: HandClock) -> None:
        world = World(clock)
        await world.warm()
        world.plays["a"] = (2.0, first)

        async def limited(call: Call, call_next: Handler) -> Reply:
            if call.target == B:
                raise UpstreamError("overloaded", "full", reached=False)
            return await call_next(call)

        saved, call = world.hedge._saved, world.call()
        with contextlib.suppress(UpstreamError):
            await compose([world.hedge, limited], world._attempt)(call)
        assert (world.asked, world.hedges(), call.notes) == (["a"], {}, {})
        assert world.hedge._saved == saved + SHARE

    in_virtual_time(main)


@pytest.mark.parametrize("second", [0.05, 5.0], ids=["the second fails first", "the first fails first"])
def test_where_both_fail_the_first_ones_failure_counts(second: float):
    async def main(clock: HandClock) -> None:
        world = World(clock)
        await world.warm()
        world.plays.update(a=(1.1, FAILED), b=(second, CapacityError("full")))
        call = world.call()
        with pytest.raises(UpstreamError) as caught:
            await world.handler(call)
        assert caught.value is FAILED
        assert call.target == A
        assert [attempt.error for attempt in call.attempts] == ["server_error", "unavailable"]
        assert world.hedges() == {("b", "failed"): 1}
        assert call.upstream_seconds == pytest.approx(clock.now - call.started)

    in_virtual_time(main)


@played()
async def test_a_request_that_is_at_fault_itself_is_answered_at_once(world: World):
    await world.warm()
    world.plays.update(a=(1.1, REJECTED), b=(60.0, None))
    call = world.call()
    with pytest.raises(UpstreamError) as caught:
        await world.handler(call)
    await asyncio.sleep(0)
    assert (caught.value, world.cancelled) == (REJECTED, ["b"])
    assert world.clock.now - call.started == pytest.approx(1.1)


@played()
async def test_a_fallback_does_not_ask_again_who_was_asked_beside(world: World):
    await world.warm()
    world.plays.update(a=(1.1, FAILED), b=(0.2, FAILED))
    handler = compose([Fallback(FallbackSettings(), world.services, world.router), world.hedge], world._attempt)
    call = world.call(others=(B, C))
    assert (await handler(call)).headers["by"] == "c"
    assert world.asked == ["a", "b", "c"]


# --------------------------------------------------------------------------------------------------------------------- who leaves
@pytest.mark.parametrize("after", [0.5, 1.1, 1.3], ids=["before the second", "while both run", "while only the second runs"])
def test_a_client_that_leaves_ends_both(after: float):
    async def main(clock: HandClock) -> None:
        world = World(clock)
        await world.warm()
        world.plays.update(a=(1.2, FAILED), b=(60.0, None))
        call = world.call()
        task = asyncio.ensure_future(world.handler(call))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert len(world.cancelled) == {0.5: 1, 1.1: 2, 1.3: 1}[after]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert world.hedges() == ({} if after == 0.5 else {("b", "cancelled"): 1})

    in_virtual_time(main)


@played()
async def test_a_client_that_leaves_in_the_moment_of_the_second_answer_has_left(world: World):
    await world.warm()
    world.plays.update(a=(60.0, None), b=(0.5, None))
    task = asyncio.ensure_future(world.handler(world.call()))
    loop = asyncio.get_running_loop()
    loop.call_later(1.5, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(1)
    assert isinstance(world.closed.get("b"), asyncio.CancelledError) or "b" in world.cancelled


@played()
async def test_a_bug_in_the_second_one_is_reported_and_the_first_one_answers(world: World):
    await world.warm()
    world.plays.update(a=(3.0, None), b=(0.1, LookupError("a bug")))  # type: ignore[arg-type]  # that is the point
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
    assert (await world.handler(world.call())).headers["by"] == "a"
    assert [type(context["exception"]) for context in reported] == [LookupError]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_when_nothing_is_left_behind(seed: int):
    """Two targets, a client that may leave, times that meet: each attempt ends, each slot is given back, and no task outlives its call."""
    draw = random.Random(seed)
    moments = [0.0, 0.2, 0.5, 1.0, 1.2, 1.5, 3.0]

    async def main(clock: HandClock) -> None:
        world = World(clock)
        await world.warm()
        policies: list[Policy] = [Retry(RetrySettings(), world.services, lambda _most: 0.0), world.hedge, _breaker(world)]
        handler = compose(policies, world._attempt)
        for _ in range(25):
            for name in "ab":
                world.plays[name] = (draw.choice(moments), draw.choice([None, None, FAILED, REJECTED]))
            world.hedge.tail(A, False).value = world.hedge.tail(A, True).value = 1.0
            call = world.call(stream=draw.random() < 0.5)
            task = asyncio.ensure_future(handler(call))
            if draw.random() < 0.4:
                asyncio.get_running_loop().call_later(draw.choice(moments), task.cancel)
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is None:
                reply = task.result()
                assert call.target is not None and call.target.provider == reply.headers["by"]
                reply.close(None)
            await asyncio.sleep(5)
            assert all(attempt.ended is not None for attempt in call.attempts)
            assert [world.board.of(target).in_flight for target in (A, B)] == [0, 0]
            assert asyncio.all_tasks() == {asyncio.current_task()}

    in_virtual_time(main)


def _breaker(world: World) -> CircuitBreaker:
    return CircuitBreaker(CircuitBreakerSettings(failures=1000), world.services)
