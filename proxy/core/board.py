"""What is known of every target at this moment: who is busy, who is fast, who is out. One per process; policies read and write it.

A target is *in*; or *out*, until `closed_until`, because it failed too often, asked to be left alone, or let all its clients wait in vain;
or, after that, *on trial*: one attempt at a time, and its outcome decides. Being out is advice to whoever chooses among targets: a target
that is the only one left is tried all the same, because refusing without an alternative helps no one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp

from proxy.core.call import Target
from proxy.core.errors import UpstreamError
from proxy.core.quantile import Quantile
from proxy.core.retry_budget import RetryBudget

#: Seconds that a target is left alone after a 429 that says nothing of how long.
COOL_DOWN = 1.0

#: The most seconds that a target is left alone because it asked for it: then one attempt sees whether it still holds.
LONGEST_COOL_DOWN = 600.0

#: Seconds of staying in after which earlier ejections are forgotten.
FORGOTTEN = 300.0

#: Seconds after which a target that has given no content, or too late, is worth another attempt.
_AGAIN = 30.0

#: The least seconds without any content after which a client that gives up tells something: of a stream; and of a whole answer, which
#: has none before its end, where nobody knows how long those take.
_IN_VAIN = 5.0
_IN_VAIN_WHOLE = 60.0

#: Kinds of failure that speak against the target. What the client got wrong never does.
COUNTED = frozenset(
    (
        "connect_failed",
        "connect_timeout",
        "dns",
        "tls",
        "reset",
        "bad_upstream",
        "upstream_timeout",
        "invalid_response",
        "server_error",
        "overloaded",
        "provider_auth",
        "insufficient_quota",
        "stream_interrupted",
        "stream_truncated",
    )
)

#: Targets of a provider whose state is kept. Clients choose among names of models without end: idle ones are dropped beyond it.
_MOST = 4096

#: So many are dropped at once: what is looked at to choose them is all of the provider's.
_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Ejection:
    """When a target is taken out: after so many `failures` in a row, for `seconds` times the count of it, at most for `longest`."""

    failures: int = 5
    seconds: float = 30.0
    longest: float = 300.0


class TargetState:
    """One target's state. Times are `Clock.monotonic()` seconds.

    in_flight        attempts under way
    first_token      moving average of the seconds to the first content (of a whole answer: to its end), None before the first;
                     where clients waited in vain for longer, that long
    measured         when content last moved `first_token`; 0.0: there was none yet
    tried            when an attempt last ended without any content
    longest          seconds that the longest of its whole answers took, 0.0 before the first
    in_vain          attempts that clients gave up without any content (`is_in_vain`), since the last content
    passed_over      until when it is out for these; 0.0: it is not
    failures         failures in a row that count against it
    ejections        times in a row that it was taken out for them
    closed_until     until when it is out, by what attempts have met; 0.0: it is in
    held_until       until when it passes for out, by what a health check has found; 0.0: it does not
    probing          whether the one attempt that may bring it back is under way
    returned         when it last came back
    tails            seconds to the content of all but the slowest answers, where somebody wants to know, by what that one measures
    """

    __slots__ = (
        "closed_until",
        "ejections",
        "failures",
        "first_token",
        "held_until",
        "in_flight",
        "in_vain",
        "longest",
        "measured",
        "passed_over",
        "probing",
        "returned",
        "tails",
        "tried",
    )

    def __init__(self) -> None:
        self.in_flight = 0
        self.first_token: float | None = None
        self.measured = 0.0
        self.tried = float("-inf")
        self.longest = 0.0
        self.in_vain = 0
        self.passed_over = 0.0
        self.failures = 0
        self.ejections = 0
        self.closed_until = 0.0
        self.held_until = 0.0
        self.probing = False
        self.returned = 0.0
        self.tails: dict[tuple[bool, float, int], Quantile] = {}


class ProviderState:
    """What all targets of a provider share: its retry budget, and how many attempts it is given at once.

    in_flight  attempts under way that `adaptive_limit` let pass
    limit      how many it may have, None before the first
    fastest    slowly rising minima of the seconds to the first content, by model, operation and whether it is streamed
    cut        when the limit was last lowered
    """

    __slots__ = ("budget", "cut", "fastest", "in_flight", "limit")

    def __init__(self) -> None:
        self.budget = RetryBudget()
        self.in_flight = 0
        self.limit: float | None = None
        self.fastest: dict[tuple[str | None, str, bool], float] = {}
        self.cut = float("-inf")


class Board:
    """State by provider and model, and by provider."""

    def __init__(self) -> None:
        self._states: dict[str, dict[str | None, TargetState]] = {}
        self._room: dict[str, int] = {}
        self._configured: frozenset[tuple[str, str | None]] = frozenset()
        self._providers: dict[str, ProviderState] = {}

    def of(self, target: Target) -> TargetState:
        try:
            return self._states[target.provider][target.model]
        except KeyError:
            return self._added(target)

    def keep(self, configured: Iterable[tuple[str, str | None]]) -> None:
        """These targets, by provider and model, are never dropped; those that were told before may be."""
        self._configured = frozenset(configured)

    def _added(self, target: Target) -> TargetState:
        states = self._states.setdefault(target.provider, {})
        if len(states) >= self._room.get(target.provider, _MOST):
            self._drop(target.provider, states)
        state = states[target.model] = TargetState()
        return state

    def _drop(self, provider: str, states: dict[str | None, TargetState]) -> None:
        """Forget a batch of idle ones: the oldest that are in, then of those that are out the ones that are back soonest."""
        idle = [model for model, state in states.items() if not state.in_flight and (provider, model) not in self._configured]
        idle.sort(key=lambda model: states[model].closed_until)
        for model in idle[:_BATCH]:
            del states[model]
        # Those that stay may be many: it is not looked again before as many have come.
        self._room[provider] = max(_MOST, len(states) + _BATCH)

    def provider(self, name: str) -> ProviderState:
        """The state of a configured provider."""
        state = self._providers.get(name)
        if state is None:
            state = self._providers[name] = ProviderState()
        return state

    def pardon(self, provider: str) -> None:
        """Know nothing of its targets: it is another provider now, or is spoken to in another way.

        What is still under way there tells of the one before, and ends in the states that it began with.
        """
        self._states.pop(provider, None)

    def states(self) -> dict[tuple[str, str | None], TargetState]:
        """All of them, by provider and model."""
        return {(provider, model): state for provider, states in self._states.items() for model, state in states.items()}


# -- who may be chosen --


def is_available(state: TargetState, now: float) -> bool:
    """Whether an attempt should go there if there is a choice: it is in, or due for its one trial."""
    return state.closed_until <= now and state.held_until <= now and not state.probing


def circuit(state: TargetState, now: float) -> str:
    """How the target stands, in the words of circuit breakers: `closed` (in), `open` (out) or `half_open` (one attempt will tell)."""
    if seconds_out(state, now):
        return "open"
    return "half_open" if state.closed_until or state.held_until or state.probing else "closed"


def seconds_out(state: TargetState, now: float) -> float:
    """How long until it may be tried again; 0.0 if it may be now."""
    return max(0.0, state.closed_until - now, state.held_until - now)


def is_ejected(state: TargetState, now: float) -> bool:
    """Whether it is out because it failed, and not only asked to be left alone."""
    return state.ejections > 0 and state.closed_until > now


def is_unmeasured(state: TargetState) -> bool:
    """Whether it never had content: `first_token` is then unknown, or no more than what it takes at least."""
    return state.first_token is None or not state.measured


def is_worth_a_try(state: TargetState, now: float) -> bool:
    """Whether one more attempt would tell something: none is under way, and none has told anything for a while."""
    last = state.tried if is_unmeasured(state) else max(state.tried, state.measured)
    return not state.in_flight and now - last >= _AGAIN


def is_silent(state: TargetState, now: float) -> bool:
    """Whether it was asked in vain a moment ago, and never had any content."""
    return is_unmeasured(state) and now - state.tried < _AGAIN


# -- what an attempt's end says --


def counts(error: UpstreamError) -> bool:
    """Whether a failure speaks against its target. `overloaded` that did not reach it is our own pool's; who was given less time than the
    administrator gives has not failed."""
    return error.kind in COUNTED and not error.is_impatience and (error.reached or error.kind != "overloaded")


def note_success(state: TargetState, now: float, *, while_out: bool = False) -> None:
    """An attempt went well. It brings the target back only if it began `while_out`: one from before says nothing of now."""
    state.failures = 0
    if while_out:
        state.closed_until = state.held_until = 0.0
        state.probing = False
        state.returned = now
    elif state.ejections and state.closed_until == 0.0 and now - state.returned >= FORGOTTEN:
        state.ejections = 0


def note_no_content(state: TargetState, now: float, waited: float | None) -> None:
    """An attempt ended without content, whoever is to blame. `waited`: it was given up after so many seconds, so it takes longer."""
    state.tried = now
    if waited is not None and (state.first_token is None or waited > state.first_token):
        state.first_token = waited
        if state.measured:
            state.measured = now


def is_in_vain(waited: float, longest: float, *, stream: bool) -> bool:
    """Whether an attempt that was given up after `waited` seconds without content says that there may be none to wait for.

    A whole answer may just be long: it must have had twice the time of the `longest` one so far, or a minute.
    """
    return waited >= (_IN_VAIN if stream else min(max(2.0 * longest, _IN_VAIN), _IN_VAIN_WHOLE) if longest else _IN_VAIN_WHOLE)


def note_in_vain(state: TargetState, now: float, rules: Ejection) -> None:
    """Another attempt was in vain, by its client's patience. One says nothing of the target; as many as may fail in a row, without any
    content between them, pass it over until it is worth another attempt."""
    state.in_vain += 1
    if state.in_vain >= rules.failures and state.closed_until <= now:
        state.closed_until = state.passed_over = now + _AGAIN


def note_content(state: TargetState) -> None:
    """After attempts that were in vain content has come, from whichever attempt: there is some to wait for."""
    state.in_vain = 0
    if state.passed_over and state.passed_over == state.closed_until:
        state.closed_until = 0.0
        state.probing = False
    state.passed_over = 0.0


def note_failure(state: TargetState, error: UpstreamError, now: float, rules: Ejection) -> None:
    """An attempt failed. A 429 leaves the target alone for as long as it says, unless it was for one of its credentials only; others
    count, and too many of them take it out."""
    hint = min(error.retry_after or 0.0, LONGEST_COOL_DOWN)
    if error.kind == "rate_limit_exceeded":
        if not error.spare_credential:
            state.closed_until = max(state.closed_until, now + (hint or COOL_DOWN))
    elif counts(error) and state.closed_until <= now:  # failing while it is out is no news
        on_trial = state.ejections > 0 and state.closed_until != 0.0
        state.closed_until = 0.0
        if state.held_until <= now:
            state.held_until = 0.0
        state.failures += 1
        if on_trial or state.failures >= rules.failures:
            state.failures = 0
            state.ejections += 1
            state.closed_until = now + max(min(rules.seconds * state.ejections, rules.longest), hint)


def peak_average(average: float | None, sample: float, elapsed: float, tau: float = 10.0) -> float:
    """The next moving average of seconds: up at once to a worse `sample`, down by what `elapsed` seconds weigh against `tau`.

    Source: the peak-sensitive EWMA of Finagle's load balancers, https://twitter.github.io/finagle/guide/Clients.html#load-balancing.
    """
    if average is None or sample >= average:
        return sample
    weight = exp(-elapsed / tau) if elapsed > 0.0 else 1.0
    return average * weight + sample * (1.0 - weight)
