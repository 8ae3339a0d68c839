"""Another try at the same target, where one may help. Before any content has gone out, within a budget, and never what may not be repeated.

Waits are full-jitter back-off (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/); a provider's own hint comes
before it, where it fits what is left of the deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

from backoff import expo, full_jitter
from pydantic import Field

from proxy.core.board import Board, is_ejected
from proxy.core.call import Call
from proxy.core.errors import GatewayError, UpstreamError, let_go
from proxy.core.protocols import Handler, Services
from proxy.core.recent import STOPPED
from proxy.core.repeatable import IDEMPOTENT, is_repeatable
from proxy.core.reply import Reply
from proxy.core.retry_budget import RetryBudget
from proxy.fields import Duration, Section

#: Kinds that may be tried again as often as the settings say.
AGAIN = frozenset({"connect_failed", "server_error", "rate_limit_exceeded"})

#: Kinds that are worth one more try: they cost a whole timeout, or work that the provider has done (and charged for) already.
ONCE = frozenset({"connect_timeout", "reset", "bad_upstream", "invalid_response", "response_failed", "stream_truncated"})

#: Of these nobody knows how far the provider came with the request.
AMBIGUOUS = frozenset({"reset", "bad_upstream"})

#: Kinds that clients repeat by themselves, as official ones do all that a provider says or that does not reach it. A limit of ours is none
#: of it: each try would cost a whole timeout.
_LEFT_TO_CLIENTS = AGAIN | {"dns", "overloaded", "reset", "upstream_timeout"}

#: Why nothing was repeated at all: rules that hold for every request of that sort. Of tries that are spent the settings may allow none.
_NEVER_REPEATED = frozenset({"kind", "streamed", "unrepeatable", "spent"})

#: A credential was refused: worth one try with another, if there is one.
CREDENTIAL = frozenset({"provider_auth", "insufficient_quota"})

#: It was refused by a 429, which says nothing of the request: worth a try with each other one, and no retry, since nothing was done yet.
_ITS_OWN = frozenset({"rate_limit_exceeded", "insufficient_quota"})

_MOST = 10


class RetrySettings(Section):
    """How often, how soon, and how much in all. A level of the configuration hierarchy may set `max_retries` for itself."""

    max_retries: int = Field(2, ge=0, le=_MOST, description="most retries of one request at one target")
    base: Duration = Field(0.5, gt=0, description="longest wait before the first retry; it doubles with each")
    cap: Duration = Field(30.0, gt=0, description="longest wait of all; a provider that asks for a longer one is not waited for")
    budget: float = Field(0.1, ge=0, le=1, description="retries for each request to a provider, beside one a second")
    ambiguous: bool = Field(True, description="repeat once what was cut off before an answer, though the provider may charge for both")


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after so many seconds."""

    after: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Do not, and why: a word for the log and for tests."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings, or a level above them, allow. `ceilings` are the longest waits before each retry, in seconds."""

    most: int
    ceilings: tuple[float, ...]
    cap: float
    ambiguous: bool


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of the request after a failure.

    retries     made so far
    once        of these, those that may be made only once
    left        seconds that may be waited, None without an end: see `Retry._left`
    waited      seconds that were waited so far
    repeatable  doing it twice does no harm
    idempotent  by its method: doing it twice is doing it once
    streamed    its body is passed on as it arrives, and is gone
    ejected     the target has been taken out, and there are others: of the model, or of its chain
    first       with the credential that has failed: it was not tried before
    affordable  the provider's budget has a retry left
    """

    retries: int = 0
    once: int = 0
    left: float | None = None
    waited: float = 0.0
    repeatable: bool = True
    idempotent: bool = False
    streamed: bool = False
    ejected: bool = False
    first: bool = True
    affordable: bool = True


def decide(error: UpstreamError, seen: Situation, rules: Rules, jitter: Callable[[float], float]) -> Again | Stop:
    """Whether to try again. `jitter` takes the longest wait and gives one between nothing and it. Rows 1-28 of docs/faults.md."""
    if is_change(error, seen):
        return _changed(seen)
    hint = error.retry_after or 0.0
    room = rules.cap if seen.left is None else min(rules.cap, seen.left)
    refused = _refused(error, seen, rules)
    if refused is not None:
        # What is too far off would not be waited for with tries left, either.
        return Stop("hint" if refused == "spent" and hint and hint >= room else refused)
    if not seen.affordable:
        return Stop("budget")
    if error.spare_credential:
        return Again(0.0)  # with another one there is nothing to wait for
    if hint >= room:
        return Stop("hint" if hint else "deadline")
    ceiling = rules.ceilings[min(seen.retries, len(rules.ceilings) - 1)]
    if seen.left is not None:
        ceiling = min(ceiling, (seen.left - hint) / 2)  # an attempt needs time, too
    return Again(hint + jitter(ceiling))


def is_change(error: UpstreamError, seen: Situation) -> bool:
    """Whether another try is none again, but the first one with another credential. There are as many of these as credentials."""
    return error.spare_credential and error.kind in _ITS_OWN and seen.first


def _changed(seen: Situation) -> Again | Stop:
    """Whether to go on with another credential. Nothing was done with the one before, and nothing is to be waited for."""
    if seen.streamed:
        return Stop("streamed")
    if seen.ejected:
        return Stop("ejected")
    return Stop("deadline") if seen.left is not None and seen.left <= 0 else Again(0.0)


def _refused(error: UpstreamError, seen: Situation, rules: Rules) -> str | None:
    """Why the failure, or the request, does not allow another try."""
    kind = error.kind
    if seen.streamed:
        return "streamed"
    if error.should_retry is False:
        return "told"
    once = is_once(error)
    if not once and kind not in AGAIN:
        return "kind"
    if error.reached and not (seen.repeatable or seen.idempotent):
        return "unrepeatable"
    if kind in AMBIGUOUS and error.reached and not (rules.ambiguous or seen.idempotent):
        return "ambiguous"
    if seen.retries >= rules.most or (once and seen.once):
        return "spent"
    return "ejected" if seen.ejected else None


def is_once(error: UpstreamError) -> bool:
    """Whether it is worth one more try and no other: also a failure behind a good status, where work had begun."""
    kind = error.kind
    return kind in ONCE or (kind in CREDENTIAL and error.spare_credential) or (kind == "server_error" and error.answered)


def helps_to_return(error: UpstreamError, stop: Stop) -> bool:
    """Whether the client may try again itself: the provider said when, and that was not waited for here.

    Not after tries that are spent: their hints were waited for, and the client would begin all of it anew. Nor is there a hint where
    another credential is left: the next request takes that one.
    """
    if error.spare_credential and error.kind in _ITS_OWN:
        return True
    is_asked_to = error.kind in ("rate_limit_exceeded", "overloaded") or (error.kind == "server_error" and error.status == 503)
    return is_asked_to and error.retry_after is not None and error.should_retry is not False and stop.reason != "spent"


def is_left_to_client(error: UpstreamError, stop: Stop, *, repeated: bool) -> bool:
    """Whether the client may do as it would without a gateway: nothing was repeated for it, nor would ever be."""
    if helps_to_return(error, stop):
        return True
    if repeated or stop.reason not in _NEVER_REPEATED:
        return False
    if error.answered and stop.reason in ("streamed", "unrepeatable"):
        return False
    return error.kind in _LEFT_TO_CLIENTS and error.bound is None and error.should_retry is not False


class Retry:
    """Outermost of an attempt's policies. What reaches it as an error has shown the client nothing; what is a reply is never repeated."""

    Settings = RetrySettings

    def __init__(
        self,
        settings: RetrySettings,
        services: Services,
        jitter: Callable[[float], float] = full_jitter,
        leads_on: Callable[[Call, GatewayError], bool] = lambda _call, _error: False,
    ) -> None:
        """`leads_on` says whether a target that is in would be asked next, of whatever model."""
        ceilings = tuple(islice(expo(2, settings.base, settings.cap), 1, 1 + _MOST))
        self._rules = Rules(settings.max_retries, ceilings, settings.cap, settings.ambiguous)
        self._share = settings.budget
        self._board: Board = services.board
        self._budgets: dict[str, RetryBudget] = {}
        self._clock = services.clock
        self._jitter = jitter
        self._leads_on = leads_on
        self._retries = services.metrics.counter("llm_retries_total", "Attempts that repeat a failed one.", "provider", "reason")
        self._exhausted = services.metrics.counter(
            "llm_retry_budget_exhausted_total", "Retries that were not made because the provider's budget was spent.", "provider"
        )

    async def __call__(self, call: Call, call_next: Handler) -> Reply:
        target = call.target
        if target is not None:
            try:
                budget = self._budgets[target.provider]
            except KeyError:
                # The board keeps the state of a provider for good.
                budget = self._budgets[target.provider] = self._board.provider(target.provider).budget
            budget.requests += 1
        try:
            return await call_next(call)
        except UpstreamError as error:
            failed = error
            let_go(failed)
        return await self._again(call, call_next, failed)

    async def _again(self, call: Call, call_next: Handler, failed: UpstreamError) -> Reply:
        rules, seen, changes = self._rules_for(call), self._situation(call), 0
        while True:
            seen = self._seen_now(call, seen, failed)
            decision = decide(failed, seen, rules, self._jitter)
            if isinstance(decision, Stop):
                raise self._final(call, failed, decision, repeated=seen.retries > 0 or len(call.attempts) > 1 + changes)
            change = is_change(failed, seen)
            self._count(call, failed, is_retry=not change)
            if change:
                changes += 1
            else:
                waited = seen.waited + decision.after
                seen = replace(seen, retries=seen.retries + 1, once=seen.once + is_once(failed), waited=waited)
            await self._wait(call, decision.after)
            try:
                return await call_next(call)
            except UpstreamError as error:
                failed = error
                let_go(failed)

    def _rules_for(self, call: Call) -> Rules:
        resolved = call.resolved
        if resolved is None or resolved.max_retries is None:
            return self._rules
        return replace(self._rules, most=resolved.max_retries)

    @staticmethod
    def _situation(call: Call) -> Situation:
        """What does not change from one try to the next."""
        return Situation(repeatable=is_repeatable(call), idempotent=call.method in IDEMPOTENT, streamed=call.content is not None)

    def _seen_now(self, call: Call, seen: Situation, failed: UpstreamError) -> Situation:
        target = call.target
        assert target is not None, "a provider failed that nobody chose"
        now = self._clock.monotonic()
        leads_on = self._leads_on(call, failed)
        return replace(
            seen,
            left=self._left(call, now, seen.waited if leads_on else None),
            # The only target is never out altogether: there is nobody whom another try would spare it for.
            first=not failed.spare_credential or _is_first(call),
            ejected=is_ejected(self._board.of(target), now) and (bool(call.others) or leads_on),
            affordable=self._board.provider(target.provider).budget.can_take(now, self._share),
        )

    def _left(self, call: Call, now: float, waited: float | None) -> float | None:
        """Seconds that may be waited; None: without an end. `waited`: so far, where somebody else would be asked instead.

        They end with the deadline; with the client's patience, which begins with the first attempt and anew with each ping; and, where
        somebody else may be asked, all together after the longest wait of one, or the time that content may take.
        """
        ends: list[float] = []
        if call.deadline is not None:
            ends.append(call.deadline - now)
        if call.patience is not None:
            heard = max(call.attempts[0].started, call.pinged) if call.attempts else now
            ends.append(heard + call.patience - now)
        if waited is not None:
            first = call.timeouts.first_token if call.timeouts is not None else None
            ends.append((self._rules.cap if first is None else min(first, self._rules.cap)) - waited)
        return min(ends, default=None)

    def _count(self, call: Call, failed: UpstreamError, *, is_retry: bool) -> None:
        assert call.target is not None
        provider = call.target.provider
        if is_retry:
            self._board.provider(provider).budget.take()
        self._retries.labels(provider, failed.kind).value += 1

    def _final(self, call: Call, failed: UpstreamError, stop: Stop, *, repeated: bool) -> UpstreamError:
        """The failure as the client sees it: official clients would repeat what was repeated here already, unless told not to."""
        if stop.reason == "budget" and call.target is not None:
            self._exhausted.labels(call.target.provider).value += 1
        call.notes.setdefault(STOPPED, {})[len(call.attempts)] = stop.reason
        if failed.kind != "rejected":
            failed.should_retry = None if is_left_to_client(failed, stop, repeated=repeated) else False
        return failed

    async def _wait(self, call: Call, seconds: float) -> None:
        """Time that a provider costs, not the gateway. Whoever cancels the request ends it at once."""
        if seconds <= 0:
            return
        started = self._clock.monotonic()
        try:
            await asyncio.sleep(seconds)
        finally:
            call.upstream_seconds += self._clock.monotonic() - started


def _is_first(call: Call) -> bool:
    """Whether the last attempt was the first at its target with its credential."""
    *earlier, last = call.attempts or (None,)
    return last is None or all(each.target != last.target for each in earlier)
