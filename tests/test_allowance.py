"""Whose limit has ended an attempt."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.allowance import due_to, had_its_time, own_share
from proxy.core.call import Timeouts
from proxy.core.errors import CONNECT, IDLE, PACE, START, TOTAL
from proxy.core.resolved import Resolved
from tests.core.doubles import make_call

OWN = Timeouts(connect=5.0, first_token=20.0, idle=10.0, total=100.0)
WHOLE = Timeouts(first_token=None)


def limits(**changed: float) -> Timeouts:
    return OWN.overridden(changed)


@pytest.mark.parametrize(
    ("bound", "given", "due", "deadline", "had"),
    [
        (START, OWN, OWN, None, True),
        (START, limits(first_token=0.1), OWN, None, False),
        (START, limits(first_token=60.0), OWN, None, True),
        (START, limits(total=0.1), OWN, None, False),
        (START, limits(total=19.99), OWN, None, True),
        (START, limits(total=17.9), OWN, None, False),
        (START, limits(total=4.99), OWN, 5.0, True),
        (START, limits(total=1.0), OWN, 5.0, False),
        (START, WHOLE, WHOLE, None, True),
        (START, Timeouts(first_token=30.25), WHOLE, None, False),
        (START, Timeouts(first_token=60.25), WHOLE, None, True),
        (CONNECT, OWN, OWN, None, True),
        (CONNECT, limits(connect=0.1), OWN, None, False),
        (CONNECT, limits(connect=2.99, total=2.99), OWN, 3.0, True),
        (IDLE, OWN, OWN, None, True),
        (IDLE, limits(idle=0.05), OWN, None, False),
        (IDLE, limits(idle=10.25), OWN, None, True),
        (TOTAL, OWN, OWN, None, True),
        (TOTAL, limits(total=1.0), OWN, None, False),
        (TOTAL, limits(total=4.99), OWN, 5.0, True),
        (PACE, limits(min_tokens_per_second=2.0), limits(min_tokens_per_second=2.0), None, True),
        (PACE, limits(min_tokens_per_second=1.0), limits(min_tokens_per_second=2.0), None, True),
        (PACE, limits(min_tokens_per_second=3.0), limits(min_tokens_per_second=2.0), None, False),
        (PACE, limits(min_tokens_per_second=2.0, window=1.0), limits(min_tokens_per_second=2.0), None, False),
        (PACE, limits(min_tokens_per_second=3.0), OWN, None, False),
        (START, Timeouts(None, None, None, None), Timeouts(None, None, None, None), None, True),
    ],
)
def test_an_attempt_had_its_time_unless_the_request_left_it_less(
    bound: str, given: Timeouts, due: Timeouts, deadline: float | None, had: bool
):
    assert had_its_time(bound, given, due, deadline) is had


@pytest.mark.parametrize(("awaited", "had"), [(0.0, True), (9.0, True), (11.0, False), (100.0, False)])
def test_the_time_that_the_clients_own_body_took_was_not_the_providers(awaited: float, had: bool):
    assert had_its_time(TOTAL, own_share(OWN, awaited), OWN) is had


def test_a_total_that_began_anew_with_each_piece_of_the_body_was_the_providers_whole():
    unset = Timeouts(total=600.0, defaults=frozenset({"total"}))
    assert had_its_time(TOTAL, own_share(unset, 1000.0), unset)


@pytest.mark.parametrize(
    ("resolved", "expected"),
    [
        (None, (OWN, None)),
        ({}, (OWN, None)),
        ({"timeout": 5.0, "sources": {"timeout": "system"}}, (OWN, 5.0)),
        ({"timeout": 5.0, "sources": {"timeout": "task_type"}}, (OWN, 5.0)),
        ({"timeout": 5.0, "sources": {"timeout": "user"}}, (OWN, None)),
        ({"timeout": 5.0, "sources": {"timeout": "request"}}, (OWN, None)),
        ({"timeouts": {"idle": 1.0}, "sources": {"timeouts.idle": "task_type"}}, (limits(idle=1.0), None)),
        ({"timeouts": {"idle": 1.0}, "sources": {"timeouts.idle": "request"}}, (OWN, None)),
        ({"timeouts": {"idle": 1.0}, "sources": {"timeouts.idle": "user"}}, (OWN, None)),
    ],
)
def test_what_the_administrator_sets_is_due_and_what_users_and_requests_set_is_not(
    resolved: dict[str, Any] | None, expected: tuple[Timeouts, float | None]
):
    call = make_call(resolved=None if resolved is None else Resolved(**resolved))
    assert due_to(call, OWN) == expected
