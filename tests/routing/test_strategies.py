"""The order in which targets are tried: pure functions, held against their arithmetic."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from proxy.core.board import TargetState
from proxy.core.call import Target
from proxy.routing.strategies import STRATEGIES, Candidate, Moment, Price, Seen, available_first, sticky, weighted

NOW = 1000.0


def seen(name: str, state: dict[str, Any] | None = None, **candidate: Any) -> Seen:
    found = TargetState()
    for field, value in ({"measured": NOW} | (state or {})).items():
        setattr(found, field, value)
    return Seen(Candidate(Target(name, "m"), **candidate), found)


def names(found: list[Seen]) -> str:
    return " ".join(each.candidate.target.provider for each in found)


def moment(seed: int = 1, **more: Any) -> Moment:
    return Moment(NOW, random.Random(seed).random, **more)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_every_strategy_orders_all_targets_and_loses_none(name: str, count: int):
    targets = [seen(str(number), {"first_token": 0.1 * number}, weight=number) for number in range(count)]
    for seed in range(20):
        found = STRATEGIES[name](targets, moment(seed, key="k"))
        assert sorted(map(id, found)) == sorted(map(id, targets))


def test_weights_are_shares():
    generator = random.Random(7)
    targets = [seen("a", weight=9), seen("b", weight=1), seen("c", weight=0)]
    first = Counter(names(weighted(targets, Moment(NOW, generator.random))[:1]) for _ in range(10_000))
    assert 8_850 < first["a"] < 9_150
    assert first["c"] == 0


LATENCY: list[tuple[list[Seen], str]] = [
    ([seen("slow", {"first_token": 0.9}), seen("fast", {"first_token": 0.2})], "fast slow"),
    ([seen("fast", {"first_token": 0.2, "in_flight": 9}), seen("slow", {"first_token": 0.9})], "slow fast"),
    ([seen("known", {"first_token": 0.2}), seen("new")], "new known"),
    ([seen("new", {"in_flight": 1}), seen("known", {"first_token": 5.0})], "known new"),
    ([seen("failing", {"failures": 2, "tried": NOW - 1}), seen("known", {"first_token": 5.0})], "known failing"),
    ([seen("refusing", {"tried": NOW - 29}), seen("known", {"first_token": 5.0})], "known refusing"),
    ([seen("refused", {"tried": NOW - 31}), seen("known", {"first_token": 0.2})], "refused known"),
    ([seen("refusing", {"tried": NOW - 1}), seen("new")], "new refusing"),
    ([seen("in-vain", {"tried": NOW - 1, "first_token": 0.3, "measured": 0.0}), seen("known", {"first_token": 5.0})], "known in-vain"),
    (
        [seen("waited-for", {"tried": NOW - 31, "first_token": 9.0, "measured": 0.0}), seen("known", {"first_token": 5.0})],
        "waited-for known",
    ),
    (
        [seen("slow-in-vain", {"first_token": 5.0, "measured": NOW - 120, "tried": NOW - 1}), seen("fast", {"first_token": 0.2})],
        "fast slow-in-vain",
    ),
    ([seen("fast", {"first_token": 0.2}), seen("once-slow", {"first_token": 5.0, "measured": NOW - 120})], "once-slow fast"),
]


@pytest.mark.parametrize(("targets", "expected"), LATENCY)
def test_the_fastest_for_who_comes_now_is_first(targets: list[Seen], expected: str):
    assert names(STRATEGIES["least_latency"](targets, moment())) == expected


def test_of_two_the_less_busy_one_is_first():
    for seed in range(20):
        assert names(STRATEGIES["least_busy"]([seen("a", {"in_flight": 5}), seen("b", {"in_flight": 4})], moment(seed))) == "b a"


def test_busy_is_by_weight():
    found = STRATEGIES["least_busy"]([seen("big", {"in_flight": 5}, weight=10), seen("small", {"in_flight": 1})], moment())
    assert names(found) == "big small"


def test_the_busiest_of_many_is_never_first():
    targets = [seen(str(number), {"in_flight": number}) for number in range(5)]
    first = {names(STRATEGIES["least_busy"](targets, moment(seed))[:1]) for seed in range(200)}
    assert "4" not in first and len(first) > 2


@pytest.mark.parametrize("count", [2, 3])
def test_who_refuses_at_once_is_not_the_less_busy_one(count: int):
    refusing = seen("refusing", {"tried": NOW - 1})
    others = [seen(str(number), {"in_flight": 9}) for number in range(count - 1)]
    for seed in range(20):
        assert STRATEGIES["least_busy"]([refusing, *others], moment(seed))[-1] is refusing
    refusing.state.tried = NOW - 31
    assert "refusing" in {names(STRATEGIES["least_busy"]([refusing, *others], moment(seed))[:1]) for seed in range(50)}


def test_of_the_cheapest_a_slow_one_is_asked_again_now_and_then():
    slow = seen("slow", {"first_token": 9.0, "measured": NOW - 29}, price=Price(1.0, 1.0))
    dear = seen("dear", {"first_token": 0.1}, price=Price(5.0, 5.0))

    def order() -> str:
        return names(STRATEGIES["cheapest"]([slow, dear], moment(latency=2.0, prompt=10)))

    assert order() == "dear slow"
    slow.state.measured = NOW - 31
    assert order() == "slow dear"
    slow.state.in_flight = 1
    assert order() == "dear slow", "one request is enough"
    slow.state.in_flight, slow.state.tried = 0, NOW - 1
    assert order() == "dear slow"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"prompt": 1000, "completion": 10}, "long short none"),
        ({"prompt": 10, "completion": 1000}, "short long none"),
        ({"prompt": 1000, "completion": 10, "latency": 2.0}, "short none long"),
        ({"prompt": 1000, "completion": 10, "latency": 3.0}, "long short none"),
    ],
)
def test_the_cheapest_is_by_what_the_request_will_take_and_fast_enough(more: dict[str, Any], expected: str):
    targets = [
        seen("none", {"first_token": 0.1}),
        seen("short", {"first_token": 0.1}, price=Price(5.0, 5.0)),
        seen("long", {"first_token": 2.5}, price=Price(1.0, 20.0)),
    ]
    assert names(STRATEGIES["cheapest"](targets, moment(**more))) == expected


def test_tiers_come_in_their_order_and_weights_decide_within_one():
    targets = [seen("c", priority=2), seen("a", priority=1), seen("b", priority=1, weight=0)]
    assert {names(STRATEGIES["priority"](targets, moment(seed))) for seed in range(20)} == {"a b c"}


def test_a_key_keeps_to_its_target_and_moves_only_when_that_goes():
    targets = [seen(name) for name in "abcd"]
    before = {key: sticky(targets, moment(1, key=key)) for key in map(str, range(400))}
    assert all(names(sticky(list(reversed(targets)), moment(2, key=key))) == names(order) for key, order in before.items())
    without = [each for each in targets if each.candidate.target.provider != "b"]
    for key, order in before.items():
        stayed = [each for each in order if each.candidate.target.provider != "b"]
        assert sticky(without, moment(3, key=key)) == stayed
    assert min(Counter(names(order[:1]) for order in before.values()).values()) > 60


def test_sticky_keys_are_spread_by_weight():
    targets = [seen("a", weight=3), seen("b", weight=1)]
    first = Counter(names(sticky(targets, moment(1, key=str(key)))[:1]) for key in range(4000))
    assert 2_850 < first["a"] < 3_150


def test_without_a_key_a_request_goes_anywhere():
    assert len({names(sticky([seen("a"), seen("b")], moment(seed))) for seed in range(20)}) == 2


def test_what_is_on_trial_is_not_asked_twice_at_once():
    targets = [seen("trial", {"closed_until": NOW - 1, "probing": True}), seen("in"), seen("out", {"closed_until": NOW + 5})]
    assert names(available_first(targets, NOW)) == "in trial out"
