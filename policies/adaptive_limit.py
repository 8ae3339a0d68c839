"""How many attempts a provider is given at once, found out by trying: one more now and then while all goes well, a share less when not.

Too many are told by a 429, or, while there are many, by first content that takes several times as long as it can. What is over the limit
is refused at once, like the answer of a provider that is overloaded, so that another target may serve it.

Source: additive increase, multiplicative decrease, as in TCP (RFC 5681, 3.1), and
https://netflixtechblog.medium.com/performance-under-load-3e6fa9a60581.
"""

from __future__ import annotations

from functools import partial

from pydantic import Field

from proxy.core.board import ProviderState
from proxy.core.call import Call
from proxy.core.errors import UpstreamError
from proxy.core.protocols import Handler, Services
from proxy.core.reply import Reply
from proxy.fields import Section

#: Seconds between two cuts: the attempts under way when the first was made tell nothing of its effect.
BETWEEN_CUTS = 1.0

#: How much of the way to a slower pace `fastest` goes with each answer: a provider that has become slower for good is not held to its past.
_FORGETS = 0.001

#: Kinds of requests whose `fastest` is kept for each provider: clients choose among names of models without end.
_MOST_KINDS = 256

#: What a refused client is told to wait, in seconds, where nobody else can serve it.
_RETRY_AFTER = 1.0


class AdaptiveLimitSettings(Section):
    """Off unless the configuration names it."""

    start: int = Field(50, ge=1, description="attempts at once that a provider is given at first")
    least: int = Field(2, ge=1, description="attempts at once that it is always given")
    most: int = Field(1000, ge=1, description="attempts at once that it is never given more than")
    cut: float = Field(0.7, gt=0, lt=1, description="what is left of the limit when it was too much")
    slow: float = Field(4.0, gt=1, description="how many times longer than the fastest first content is too long")


def is_put_to_the_test(limit: float, in_flight: int) -> bool:
    """Whether there are so many that their outcome says something of the limit. One that is far from being reached stays."""
    return in_flight * 2 >= limit


def raised(limit: float, in_flight: int, rules: AdaptiveLimitSettings) -> float:
    """The limit after an attempt that went well."""
    return min(limit + 1.0 / limit, float(rules.most)) if is_put_to_the_test(limit, in_flight) else limit


def lowered(limit: float, rules: AdaptiveLimitSettings) -> float:
    return max(limit * rules.cut, float(rules.least))


def fastest_after(fastest: float | None, seconds: float) -> float:
    """The lowest seconds to the first content, rising slowly."""
    return seconds if fastest is None or seconds < fastest else fastest + (seconds - fastest) * _FORGETS


class AdaptiveLimit:
    Settings = AdaptiveLimitSettings
    is_optional = True

    def __init__(self, settings: AdaptiveLimitSettings, services: Services) -> None:
        self._rules = settings
        self._board = services.board
        self._clock = services.clock
        self._limit = services.metrics.gauge("llm_adaptive_limit", "Attempts at once that a provider is given.", "provider")
        self._shed = services.metrics.counter("llm_adaptive_limit_shed_total", "Attempts refused because of that limit.", "provider")

    async def __call__(self, call: Call, call_next: Handler) -> Reply:
        assert call.target is not None, "an attempt has a target"
        provider = call.target.provider
        state = self._board.provider(provider)
        # Between bounds that a reload may have changed.
        rules, limit = self._rules, state.limit
        state.limit = float(min(max(rules.start if limit is None else limit, rules.least), rules.most))
        if state.in_flight >= int(state.limit):
            self._shed.labels(provider).value += 1
            raise UpstreamError(
                "overloaded", "The gateway has as many requests at the provider as it can bear.", retry_after=_RETRY_AFTER, reached=False
            )
        state.in_flight += 1
        started = self._clock.monotonic()
        try:
            reply = await call_next(call)
        except BaseException as error:
            state.in_flight -= 1
            if isinstance(error, UpstreamError) and error.kind == "rate_limit_exceeded":
                self._lower(provider, state, self._clock.monotonic())
            raise
        self._learn(call, state, started)
        if reply.stream is None:
            state.in_flight -= 1
        else:
            reply.on_close(partial(_release, state))
        return reply

    def _learn(self, call: Call, state: ProviderState, started: float) -> None:
        assert state.limit is not None and call.target is not None
        now, provider = self._clock.monotonic(), call.target.provider
        seconds = now - started
        # Of what takes as long: an embedding, a stream's beginning and a whole chat are of different kinds.
        kind = (call.target.model, call.operation, call.stream)
        fastest = state.fastest.get(kind)
        if fastest is None and len(state.fastest) >= _MOST_KINDS:
            del state.fastest[next(iter(state.fastest))]
        state.fastest[kind] = fastest_after(fastest, seconds)
        if fastest is not None and seconds > fastest * self._rules.slow:
            if is_put_to_the_test(state.limit, state.in_flight):
                self._lower(provider, state, now)
        else:
            state.limit = raised(state.limit, state.in_flight, self._rules)
            self._limit.labels(provider).value = state.limit

    def _lower(self, provider: str, state: ProviderState, now: float) -> None:
        assert state.limit is not None
        if now - state.cut >= BETWEEN_CUTS:
            state.cut = now
            state.limit = lowered(state.limit, self._rules)
            self._limit.labels(provider).value = state.limit


def _release(state: ProviderState, _error: BaseException | None) -> None:
    state.in_flight -= 1
