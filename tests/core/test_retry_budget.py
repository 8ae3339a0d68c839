"""Retries that a provider is spared."""

from __future__ import annotations

from proxy.core.retry_budget import RetryBudget

SHARE = 0.1


def spent(budget: RetryBudget, now: float, share: float = SHARE) -> int:
    """How many retries it gives at once."""
    count = 0
    while budget.can_take(now, share):
        budget.take()
        count += 1
    return count


def test_a_client_alone_is_helped():
    assert spent(RetryBudget(), 0.0) == 10


def test_a_tenth_of_the_requests_comes_on_top():
    budget = RetryBudget()
    budget.requests = 500
    assert spent(budget, 0.0) == 10 + 50


def test_time_gives_one_a_second_and_keeps_ten():
    budget = RetryBudget()
    spent(budget, 0.0)
    assert spent(budget, 3.5) == 3
    assert spent(budget, 1000.0) == 10


def test_what_many_requests_earned_long_ago_is_gone():
    budget = RetryBudget()
    budget.requests = 10_000
    budget.fill(0.0, SHARE)
    assert spent(budget, 120.0) == 10


def test_without_a_share_only_time_counts():
    budget = RetryBudget()
    budget.requests = 1000
    assert spent(budget, 0.0, 0.0) == 10


def test_a_clock_that_stands_still_or_goes_back_gives_nothing():
    budget = RetryBudget()
    assert spent(budget, 100.0) == 10
    assert spent(budget, 100.0) == 0
    assert spent(budget, 50.0) == 0
