"""In what order a model's targets are tried. Each strategy is a pure function of the targets, their states and the moment."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple, TypeAlias

from proxy.core.board import TargetState, is_available, is_silent, is_unmeasured, is_worth_a_try, seconds_out
from proxy.core.call import Target
from proxy.routing.conditions import Condition

#: Seconds in which an old measurement loses about two thirds of its weight, so that a slow target is tried again now and then.
_FORGETTING = 30.0

_HASHES = 2.0**64


class Price(NamedTuple):
    """US dollars for a million tokens."""

    input: float
    output: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target that may serve a model. `priority`: 1 is tried before 2. `price` None is unknown, and dearer than all that are known."""

    target: Target
    weight: float = 1.0
    priority: int = 1
    price: Price | None = None
    when: Condition = ()


class Seen(NamedTuple):
    """A candidate, and what is known of it now."""

    candidate: Candidate
    state: TargetState


@dataclass(frozen=True, slots=True)
class Moment:
    """What a choice depends on beside the targets.

    now         `Clock.monotonic()`
    random      numbers in [0, 1)
    key         what keeps to one target (`sticky`), None: nothing does
    prompt, completion   tokens that are expected
    latency     seconds within which `cheapest` wants the first content
    """

    now: float
    random: Callable[[], float]
    key: str | None = None
    prompt: int = 0
    completion: int = 0
    latency: float | None = None


Strategy: TypeAlias = Callable[[list[Seen], Moment], list[Seen]]


def weighted(seen: list[Seen], moment: Moment) -> list[Seen]:
    """At random, in proportion to the weights; weight 0 comes last.

    Source: Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006.
    """
    return [each for _, _, each in sorted((_lot(each, moment.random()), place, each) for place, each in enumerate(seen))]


def _lot(seen: Seen, drawn: float) -> float:
    weight = seen.candidate.weight
    return -math.log(1.0 - drawn) / weight if weight > 0 else math.inf


def least_latency(seen: list[Seen], moment: Moment) -> list[Seen]:
    """By the seconds to the first content, times those who wait already. One request explores a target that was never measured.

    One that had no content for that request comes last for a while: whoever refuses, or is waited for in vain, is not fast.

    Source: the peak-EWMA balancer of https://twitter.github.io/finagle/guide/Clients.html
    """
    return sorted(weighted(seen, moment), key=lambda each: _expected(each.state, moment.now))


def _expected(state: TargetState, now: float) -> float:
    if state.first_token is None or is_unmeasured(state):
        return 0.0 if is_worth_a_try(state, now) else math.inf
    # An attempt without content measures nothing, and does not make the target faster either.
    told = max(state.measured, state.tried)
    return state.first_token * math.exp(min(0.0, (told - now) / _FORGETTING)) * (state.in_flight + 1)


def least_busy(seen: list[Seen], moment: Moment) -> list[Seen]:
    """Of two drawn at random the one with fewer attempts under way, for its weight; then the others by the same measure.

    Those that were asked in vain come last for a while: few are under way where nobody is served.
    Two choices rather than the least of all, since several processes would all find the same one.
    Source: Mitzenmacher, "The power of two choices in randomized load balancing", 2001.
    """

    def busy(each: Seen) -> tuple[bool, float]:
        return is_silent(each.state, moment.now), _load(each)

    drawn = sorted(weighted(seen, moment), key=lambda each: is_silent(each.state, moment.now))
    return sorted(drawn[:2], key=busy) + sorted(drawn[2:], key=busy)


def _load(seen: Seen) -> float:
    weight = seen.candidate.weight
    return (seen.state.in_flight + 1) / weight if weight > 0 else math.inf


def cheapest(seen: list[Seen], moment: Moment) -> list[Seen]:
    """By price for the tokens that are expected; targets that are slower than `moment.latency` come after all others.

    One request asks such a one again now and then, or it would stay slow for good.
    """

    def cost(each: Seen) -> tuple[bool, float]:
        price, first = each.candidate.price, each.state.first_token
        is_slow = moment.latency is not None and first is not None and first > moment.latency
        is_avoided = is_slow and not is_worth_a_try(each.state, moment.now)
        return is_avoided, math.inf if price is None else price.input * moment.prompt + price.output * moment.completion

    return sorted(weighted(seen, moment), key=cost)


def priority(seen: list[Seen], moment: Moment) -> list[Seen]:
    """Tier by tier, 1 first; within a tier by weight."""
    return sorted(weighted(seen, moment), key=lambda each: each.candidate.priority)


def sticky(seen: list[Seen], moment: Moment) -> list[Seen]:
    """The same key keeps to the same target while that is there, in proportion to the weights; a request without a key goes anywhere.

    Source: rendezvous hashing with weights, https://www.snia.org/sites/default/files/SDC15_presentations/dist_sys/Jason_Resch_New_Consistent_Hashings_Rev.pdf
    """
    key = moment.key
    if key is None:
        return weighted(seen, moment)
    return [each for _, _, each in sorted((_lot(each, _drawn(key, each.candidate.target)), place, each) for place, each in enumerate(seen))]


def _drawn(key: str, target: Target) -> float:
    """A number in [0, 1) that belongs to the two."""
    digest = blake2b(f"{key}\0{target.provider}\0{target.model}".encode("utf-8", "replace"), digest_size=8).digest()
    return min(int.from_bytes(digest, "big") / _HASHES, 1.0 - 2**-53)


STRATEGIES: dict[str, Strategy] = {
    "weighted": weighted,
    "least_latency": least_latency,
    "least_busy": least_busy,
    "cheapest": cheapest,
    "priority": priority,
    "sticky": sticky,
}


def available_first(seen: list[Seen], now: float) -> list[Seen]:
    """Those that are out go last, the one that is back soonest before the others; nobody is left out, lest nobody be left."""
    if all(is_available(each.state, now) for each in seen):
        return seen
    return sorted(seen, key=lambda each: (not is_available(each.state, now), seconds_out(each.state, now)))
