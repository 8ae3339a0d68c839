"""A second request beside a first one that takes long: the first good answer is taken, the other request is cancelled.

Before any content has gone out, for few of all calls, and never what may not be made twice.
Source: hedged requests, Dean and Barroso, "The Tail at Scale", Communications of the ACM 56(2), 2013.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from copy import copy
from functools import partial
from typing import NamedTuple

from pydantic import Field

from proxy.core.board import is_available
from proxy.core.call import HEDGE_LOST, Attempt, Call, Target, Usage
from proxy.core.errors import CapacityError, GatewayError, UpstreamError, let_go
from proxy.core.protocols import Handler, Services, Told
from proxy.core.quantile import Quantile
from proxy.core.repeatable import is_repeatable
from proxy.core.reply import Reply
from proxy.fields import Duration, Section
from proxy.routing.causes import may_move
from proxy.routing.router import Router

#: Hedges that calls without one have saved up, at most.
_MOST_SAVED = 10.0

#: Seconds that what was cancelled has to end in, which takes it a turn of the loop: the record then says what it may have cost.
_TO_END = 0.01

#: A key of `Call.notes`: what the record says of a hedge.
NOTE = "hedge"


class HedgeSettings(Section):
    """Off unless the configuration names it."""

    after: str = Field(
        "p95",
        pattern=r"^p[5-9]\d$",
        description="ask a second target when the first has taken longer than so many of 100 of its answers do",
    )
    least: Duration = Field(0.1, gt=0, description="never sooner than this")
    samples: int = Field(50, ge=2, le=10_000, description="answers of a target that are measured first")
    share: float = Field(0.02, gt=0, le=0.5, description="hedges for each call, at most")
    same_target: bool = Field(False, description="ask the same target a second time where the model has no other")


class Rival(NamedTuple):
    """A target that might be asked as well. `expected`: seconds to its content, None where nothing is known."""

    target: Target
    is_in: bool
    expected: float | None


def chosen(rivals: Iterable[Rival], left: float | None, saved: float) -> Target | str:
    """Whom to ask, or why nobody: `nobody` is there and in, it would be too `late` for the `left` seconds, or the share is `spent`."""
    rival = next((each for each in rivals if each.is_in), None)
    if rival is None:
        return "nobody"
    if left is not None and left <= (rival.expected or 0.0):
        return "late"
    return rival.target if saved >= 1.0 else "spent"


class Hedge:
    """Inside of `retry`, which sees one outcome; outside of the breaker, which sees each of the two attempts."""

    Settings = HedgeSettings
    is_optional = True

    def __init__(self, settings: HedgeSettings, services: Services, router: Router) -> None:
        self._settings = settings
        self._rank = int(settings.after[1:]) / 100
        self._saved = 0.0
        self._board = services.board
        self.clock = services.clock
        self.router = router
        metrics = services.metrics
        self._hedges = metrics.counter(
            "llm_hedges_total", "Second requests beside a slow first one, by what became.", "provider", "outcome"
        )
        self._withheld = metrics.counter("llm_hedges_withheld_total", "Slow requests that got no second one.", "provider", "reason")
        self._lost = metrics.counter("llm_hedge_tokens_total", "Tokens of requests whose answers nobody got.", "provider", "kind")
        self._unrecorded = metrics.counter("llm_lost_tokens_total", "Tokens of attempts whose answers nobody got.", "provider", "kind")

    def __call__(self, call: Call, call_next: Handler) -> Awaitable[Reply]:
        if not call.attempts:
            saved = self._saved + self._settings.share
            self._saved = saved if saved < _MOST_SAVED else _MOST_SAVED
        if call.content is not None or not (call.others or self._settings.same_target) or not is_repeatable(call):
            return call_next(call)
        return self._timed(call, call_next)

    async def _timed(self, call: Call, call_next: Handler) -> Reply:
        assert call.target is not None, "an attempt has a target"
        tail = self.tail(call.target, call.stream)
        started = self.clock.monotonic()
        delay = self._delay(call, tail, started)
        reply = await (call_next(call) if delay is None else Race(self, call, call_next).run(delay))
        # Of a first request that lost it is only known that it takes longer than this.
        tail.add(self.clock.monotonic() - started)
        return reply

    def _delay(self, call: Call, tail: Quantile, now: float) -> float | None:
        """Seconds until a second request is made; None: there will be none. One is enough for a call."""
        if tail.value is None or NOTE in call.notes:
            return None
        delay = max(tail.value, self._settings.least)
        return delay if call.deadline is None or delay < call.deadline - now else None

    def tail(self, target: Target, stream: bool) -> Quantile:
        """How long all but the slowest of a target's answers take: to the first content of a stream, to the end of a whole answer."""
        tails = self._board.of(target).tails
        key = (stream, self._rank, self._settings.samples)
        found = tails.get(key)
        if found is None:
            found = tails[key] = Quantile(self._rank, self._settings.samples)
        return found

    def rival(self, call: Call) -> Target | None:
        """Who is asked as well; it is paid for."""
        first = call.target
        assert first is not None, "an attempt has a target"
        now = self.clock.monotonic()
        found = chosen(self._rivals(call, first, now), None if call.deadline is None else call.deadline - now, self._saved)
        if isinstance(found, str):
            self._withheld.labels(first.provider, found).value += 1
            return None
        self._saved -= 1.0
        return found

    def _rivals(self, call: Call, first: Target, now: float) -> Iterable[Rival]:
        """The model's other targets that this call has not asked; the same one again only where there is no other."""
        asked = {(each.target.provider, each.target.model) for each in call.attempts} | {(first.provider, first.model)}
        others = [each for each in call.others if each.public == first.public and (each.provider, each.model) not in asked]
        for target in others or ([first] if self._settings.same_target else []):
            state = self._board.of(target)
            yield Rival(target, is_available(state, now), state.first_token)

    def refund(self) -> None:
        """A rival that was paid for was not asked."""
        self._saved += 1.0

    def count(self, provider: str, outcome: str) -> None:
        self._hedges.labels(provider, outcome).value += 1

    def count_lost(self, provider: str, usage: Usage, *, is_recorded: bool) -> None:
        """What a request cost whose answer nobody got. `is_recorded`: the record, which counts it among others, is written already."""
        for counter in (self._lost, self._unrecorded) if is_recorded else (self._lost,):
            counter.labels(provider, "prompt").value += usage.prompt
            counter.labels(provider, "completion").value += usage.completion


class Race:
    """The first request in the task of the client, and after a while perhaps a second one in a task of its own, on a copy of the call.

    The copy keeps the two apart: target, usage and attempts of the winner are merged into the client's call when the other one has ended.
    """

    __slots__ = (
        "_arm",
        "_call",
        "_call_next",
        "_cancelling",
        "_client",
        "_cut",
        "_first_is_over",
        "_had",
        "_has_interrupted",
        "_hedge",
        "_second",
        "_started",
        "_waited",
    )

    def __init__(self, hedge: Hedge, call: Call, call_next: Handler) -> None:
        self._hedge = hedge
        self._call = call
        self._call_next = call_next
        self._arm = call
        self._second: asyncio.Task[Reply] | None = None
        self._first_is_over = False
        #: The second one's attempts, once it was cancelled: what they may have cost is known when it has ended.
        self._cut: list[Attempt] | None = None
        self._has_interrupted = False
        self._had = len(call.attempts)
        self._waited = call.upstream_seconds
        self._started = hedge.clock.monotonic()

    async def run(self, delay: float) -> Reply:
        """The first good answer of the two. Raises what the first one raises where there is none."""
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        self._client = task
        self._cancelling = task.cancelling()
        timer = asyncio.get_running_loop().call_later(delay, self._begin)
        try:
            reply = await self._call_next(self._call)
        except (asyncio.CancelledError, GatewayError) as error:
            timer.cancel()
            return await self._instead(error)
        except BaseException:
            timer.cancel()
            self._first_is_over = True
            self._drop("cancelled")
            raise
        timer.cancel()
        self._first_is_over = True
        if self._has_interrupted:
            self._client.uncancel()
        try:
            await self._dropped("lost")
        except BaseException as error:
            reply.close(error)
            raise
        return reply

    def _begin(self) -> None:
        """The first request has taken long enough."""
        rival = self._hedge.rival(self._call)
        if rival is None:
            return
        self._call.notes[NOTE] = {"hedge": "lost"}
        self._arm = arm = copy(self._call)
        arm.attempts, arm.notes = [], dict(arm.notes)
        arm.usage = arm.first_token = arm.last_token = None
        arm.upstream_seconds = 0.0
        arm.tokens_seen = 0
        self._hedge.router.direct(arm, rival)
        self._second = asyncio.get_running_loop().create_task(self._ask(arm, rival))
        self._second.add_done_callback(self._second_ended)

    async def _ask(self, arm: Call, rival: Target) -> Reply:
        started = self._hedge.clock.monotonic()
        reply = await self._call_next(arm)
        self._hedge.tail(rival, arm.stream).add(self._hedge.clock.monotonic() - started)
        return reply

    def _second_ended(self, task: asyncio.Task[Reply]) -> None:
        error = _end_of(task)
        if error is not None and not isinstance(error, (GatewayError, asyncio.CancelledError)):
            task.get_loop().call_exception_handler({"message": "a second request failed unforeseen", "exception": error, "task": task})
        if error is not None:
            let_go(error)
        if self._cut is not None:
            if error is None:
                task.result().close(asyncio.CancelledError())
            self._write_off(self._cut, self._arm.usage)
        elif error is None and not self._first_is_over:
            self._has_interrupted = True
            self._client.cancel()

    # -- the first one has no answer --

    async def _instead(self, error: BaseException) -> Reply:
        """The second one's answer, if there is one; else the first one's failure."""
        self._first_is_over = True
        if self._has_interrupted and self._client.uncancel() <= self._cancelling:
            return self._won()
        if self._second is None:
            raise error
        if not isinstance(error, (UpstreamError, CapacityError)) or not may_move(error):
            # The client has left, or it is the request that is at fault.
            await self._dropped("cancelled")
            raise error
        try:
            await asyncio.wait([self._second])
        except asyncio.CancelledError:
            await self._given_up()
            raise
        if not self._second.cancelled() and self._second.exception() is None:
            return self._won()
        self._call.upstream_seconds = self._passed()
        self._drop("failed")
        raise error

    # -- what became of them --

    def _won(self) -> Reply:
        """The second one's answer is the client's."""
        assert self._second is not None, "a second one has won"
        reply, call, arm = self._second.result(), self._call, self._arm
        self._take_over("won")
        stream: object = reply.stream
        if isinstance(stream, Told):
            stream.serve(call)
        elif stream is not None:
            reply.on_close(partial(_settle, call, arm))
        return reply

    def _take_over(self, outcome: str) -> None:
        """The second one is the client's request now; the first one is what nobody gets."""
        call, arm = self._call, self._arm
        self._write_off(call.attempts[self._had :], call.usage)
        self._take_attempts()
        call.target, call.timeouts = arm.target, arm.timeouts
        call.notes = {**arm.notes, NOTE: {"hedge": outcome}}
        call.upstream_seconds = self._passed()
        _settle(call, arm)
        self._hedge.count(_provider(arm), outcome)

    def _passed(self) -> float:
        """Seconds that providers were waited for until now, the two of them together."""
        return self._waited + self._hedge.clock.monotonic() - self._started

    async def _given_up(self) -> None:
        """The client has left when only the second one was still asked: that one was its request."""
        task = self._second
        assert task is not None, "a second one is waited for"
        self._cut = []
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_TO_END)
        elif not task.cancelled() and task.exception() is None:
            task.result().close(asyncio.CancelledError())
        if self._arm.attempts:
            self._take_over("cancelled")
        else:
            self._unasked()

    async def _dropped(self, outcome: str) -> None:
        """`_drop`, and wait for what is cancelled; whoever does not end when told to is not waited for."""
        self._drop(outcome)
        if self._cut and self._second is not None:
            await asyncio.wait([self._second], timeout=_TO_END)

    def _drop(self, outcome: str) -> None:
        """Nobody wants the second one's answer, if there is a second one."""
        task, arm = self._second, self._arm
        if task is None:
            return
        if not task.done():
            self._cut = list(arm.attempts)
            task.cancel()
        elif task.cancelled() or task.exception() is not None:
            outcome = "failed"
        else:
            task.result().close(asyncio.CancelledError())
        if not arm.attempts:  # there was no time for it, or the gateway itself refused it
            self._unasked()
            return
        self._take_attempts()
        self._call.notes[NOTE]["hedge"] = outcome
        self._hedge.count(_provider(arm), outcome)
        self._write_off(arm.attempts, None if self._cut else arm.usage)

    def _unasked(self) -> None:
        self._hedge.refund()
        del self._call.notes[NOTE]

    def _take_attempts(self) -> None:
        for attempt in self._arm.attempts:
            attempt.is_hedge = True
        self._call.attempts += self._arm.attempts

    def _write_off(self, attempts: list[Attempt], usage: Usage | None) -> None:
        """Attempts of the one that lost: how they ended, and what the last of them may have cost."""
        for attempt in attempts:
            attempt.error = attempt.error or HEDGE_LOST
        if not attempts or usage is None:
            return
        attempts[-1].usage = usage
        self._hedge.count_lost(attempts[-1].target.provider, usage, is_recorded=self._call.recorder is None)


def _end_of(task: asyncio.Task[Reply]) -> BaseException | None:
    """How it has failed: a cancelled task, too, keeps the error that ended it, with all of its frames, until somebody has asked for it."""
    try:
        task.result()
    except BaseException as error:  # noqa: BLE001 - it is told, not handled
        return error
    return None


def _settle(call: Call, arm: Call, _error: BaseException | None = None) -> None:
    call.usage, call.tokens_seen, call.first_token, call.last_token = arm.usage, arm.tokens_seen, arm.first_token, arm.last_token


def _provider(call: Call) -> str:
    assert call.target is not None, "an attempt has a target"
    return call.target.provider
