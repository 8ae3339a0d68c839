"""The last requests are kept as small facts, as many as asked for, and one of them is explained without a word of its text."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest

from proxy.core.call import Attempt, Call, Credential, Principal, Target, Timeouts, Usage
from proxy.core.recent import STOPPED, Recent, explained, summary, with_numbers
from proxy.core.resolved import Resolved
from tests.core.doubles import make_call

CANARY = "canary-4711"
EPOCH = 1_700_000_000.0
EAST = Target("east", "gpt", "fast", Credential("env:EAST", CANARY))
EAST_AGAIN = Target("east", "gpt", "fast", Credential("env:EAST_2", CANARY))
WEST = Target("west", "llama", "slow", Credential("env:WEST", CANARY))


def eventful_call(**members: Any) -> Call:
    """Asked of east twice, answered by west; a secret in every place where one could stand."""
    given: dict[str, Any] = {
        "model": "fast",
        "headers": {"authorization": CANARY},
        "query": f"key={CANARY}",
        "raw": CANARY.encode(),
        "body": {"model": "auto", "messages": [CANARY]},
        "notes": {"x": CANARY, STOPPED: {2: "spent"}},
        "peer": "192.0.2.7",
        "principal": Principal("ann", "cmp_1", "premium"),
        "resolved": Resolved(
            "fast", timeout=30.0, params={"temperature": 0.5}, sources={"model": "user", "timeout": "system"}, source="user"
        ),
        "target": WEST,
        "others": (WEST, Target("north", "qwen", "fast")),
        "attempts": [
            Attempt(EAST, 1000.01, 1000.51, "reset", usage=Usage(9, 2)),
            Attempt(EAST_AGAIN, 1000.6, 1000.7, "server_error"),
            Attempt(WEST, 1000.8, 1000.9),
        ],
        "fallback": "server_error",
        "timeouts": Timeouts(5.0, 30.0, None, 600.0),
        "deadline": 1030.0,
        "usage": Usage(9, 5, cached=2, reported=True),
        "upstream_seconds": 0.7,
        "overhead": 0.2,
        "first_token": 1000.9,
        "stream": True,
        "bytes_in": 7,
        "bytes_out": 8,
    }
    return make_call(**{**given, **members})


def kept(call: Call, status: int = 200, outcome: str = "ok", code: str | None = None) -> dict[str, Any]:
    recent = Recent(1)
    recent.note(call, status, outcome, code, 1002.0)
    found = recent.find(call.id)
    assert found is not None
    return explained(found, EPOCH)


def test_a_request_is_explained_from_what_was_asked_to_what_it_took():
    told = kept(eventful_call())
    assert told["at"] == EPOCH + 1000.0
    assert told["asked"] == {
        "operation": "chat",
        "method": "POST",
        "model": "auto",
        "stream": True,
        "user": "ann",
        "key": "cmp_1",
        "tier": "premium",
        "end_user": None,
        "address": "192.0.2.7",
    }
    assert told["configuration"]["values"] == {"model": {"value": "fast", "source": "user"}, "timeout": {"value": 30.0, "source": "system"}}
    assert told["served"] == {"provider": "west", "model": "llama", "public": "slow"}
    assert told["timeouts"] == {
        "connect": 5.0,
        "first_token": 30.0,
        "idle": None,
        "total": 600.0,
        "min_tokens_per_second": None,
        "deadline": 30.0,
    }
    assert told["tokens"] == {"prompt": 9, "completion": 5, "cached": 2, "reasoning": 0, "usage": "reported"}
    assert told["timing"] == {"total_ms": 2000.0, "first_token_ms": 900.0, "overhead_ms": 200.0, "upstream_ms": 700.0}
    assert (told["status"], told["outcome"], told["error"], told["bytes_in"], told["bytes_out"]) == (200, "ok", None, 7, 8)


@pytest.mark.parametrize(
    ("names_users", "of_the_named", "tier"), [(True, "gold", "gold"), (True, "", None), (True, None, None), (False, "gold", "premium")]
)
def test_the_tier_that_is_told_is_the_one_that_decided(names_users: bool, of_the_named: str | None, tier: str | None):
    """That of the user on whose behalf is asked, where the key may name one; not that of the key's owner."""
    service = Principal("service", "cmp_2", "premium", names_users=names_users)
    asked = kept(eventful_call(principal=service, end_user="bob", resolved=Resolved(tier=of_the_named)))["asked"]
    assert (asked["user"], asked["end_user"], asked["tier"]) == ("service", "bob", tier)


def test_each_attempt_says_why_it_was_made_how_it_failed_and_why_it_was_the_last_at_its_target():
    told = kept(eventful_call())
    seen = [(each["provider"], each["credential"], each["why"], each["error"], each["not_repeated"]) for each in told["attempts"]]
    assert seen == [
        ("east", "env:EAST", "first", "reset", None),
        ("east", "env:EAST_2", "retry", "server_error", "spent"),
        ("west", "env:WEST", "fallback", None, None),
    ]
    assert [(each["started_ms"], each["ended_ms"]) for each in told["attempts"]] == [(10.0, 510.0), (600.0, 700.0), (800.0, 900.0)]
    assert (told["retries"], told["fallback"]) == (1, "server_error")
    lost = {"prompt": 9, "completion": 2, "cached": 0, "reasoning": 0, "usage": "estimated"}
    assert [each["tokens"] for each in told["attempts"]] == [lost, None, None]


def test_an_explanation_tells_who_was_asked_for_what_lies_there_and_who_was_searched():
    told = kept(eventful_call(notes={STOPPED: {0: "bound", 1: "spent", 2: "unknown"}}))
    assert [each["why"] for each in told["attempts"]] == ["bound", "retry", "search"]


def test_targets_that_were_never_asked_are_named():
    assert [each["provider"] for each in kept(eventful_call())["not_asked"]] == ["north"]


def test_nothing_of_a_text_or_a_secret_is_told_or_kept():
    call = eventful_call()
    recent = Recent(1)
    recent.note(call, 200, "ok", None, 1002.0)
    found = recent.find(call.id)
    assert found is not None
    assert CANARY not in json.dumps([explained(found, EPOCH), summary(found, EPOCH)])
    for part in (call.headers, call.raw, call.body, call.notes, call):
        assert all(part is not held for held in gc.get_referents(*found))


def test_a_parameter_that_is_a_text_is_left_out():
    wanted = Resolved(
        "fast", params={"temperature": 1, "max_tokens": CANARY * 1000}, sources={"max_tokens": "request", "temperature": "system"}
    )
    told = kept(eventful_call(resolved=wanted))
    assert told["configuration"]["values"] == {"temperature": {"value": 1, "source": "system"}}
    sober = Resolved(params={"top_p": 0.1})
    assert with_numbers(sober) is sober


def test_a_providers_code_is_cut():
    assert kept(eventful_call(), 400, "client_error", "c" * 5000)["error"] == "c" * 200


def test_a_request_that_came_nowhere_is_explained_too():
    told = kept(make_call("unknown", method="GET"), 404, "client_error", "unknown_url")
    assert (told["served"], told["attempts"], told["configuration"], told["timeouts"], told["tokens"]) == (None, [], None, None, None)
    assert (told["asked"]["model"], told["asked"]["address"], told["error"]) == (None, None, "unknown_url")


def noted(recent: Recent, *ids: str) -> None:
    for id in ids:
        recent.note(make_call(id=id), 200, "ok", None, 1001.0)


def test_the_newest_are_kept_and_listed_first():
    recent = Recent(3)
    noted(recent, "a", "b", "c", "d")
    assert [each.id for each in recent.newest(2)] == ["d", "c"]
    assert [each.id for each in recent.newest(10)] == ["d", "c", "b"]
    assert recent.find("a") is None


@pytest.mark.parametrize(("most", "left"), [(0, []), (1, ["c"]), (5, ["c", "b", "a"])])
def test_another_size_keeps_the_newest(most: int, left: list[str]):
    recent = Recent(3)
    noted(recent, "a", "b", "c")
    recent.resize(most)
    assert [each.id for each in recent.newest(10)] == left


def test_none_is_kept_where_none_is_wanted():
    recent = Recent()
    noted(recent, "a")
    assert recent.newest(1) == []


def test_a_line_of_the_list_has_what_tells_requests_apart():
    recent = Recent(1)
    recent.note(eventful_call(), 502, "upstream_error", "reset", 1002.0)
    assert summary(recent.newest(1)[0], EPOCH) == {
        "id": "req_1",
        "at": EPOCH + 1000.0,
        "operation": "chat",
        "model": "fast",
        "provider": "west",
        "user": "ann",
        "key": "cmp_1",
        "status": 502,
        "outcome": "upstream_error",
        "error": "reset",
        "attempts": 3,
        "fallback": "server_error",
        "total_ms": 2000.0,
    }
