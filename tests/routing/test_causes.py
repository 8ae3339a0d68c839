"""Which failure is which cause, and which of them another target may mend."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.errors import START, UPSTREAM_KINDS, CapacityError, GatewayError, UpstreamError, late
from proxy.routing.causes import CAUSES, may_move

#: kind -> the causes that it is, beside `any`.
KINDS = {
    "connect_failed": {"unreachable"},
    "connect_timeout": {"unreachable", "too_slow"},
    "dns": {"unreachable"},
    "tls": {"unreachable"},
    "reset": {"server_error"},
    "bad_upstream": {"server_error"},
    "invalid_response": {"server_error"},
    "response_failed": {"server_error"},
    "server_error": {"server_error"},
    "upstream_timeout": {"too_slow"},
    "rate_limit_exceeded": {"rate_limited"},
    "insufficient_quota": {"rate_limited"},
    "overloaded": {"overloaded"},
    "provider_auth": {"refused_credential"},
    "stream_interrupted": set(),
    "stream_truncated": set(),
}
FINAL = {"rejected", "response_too_large"}


def causes(error: GatewayError) -> set[str]:
    return {name for name, is_one in CAUSES.items() if is_one(error)}


@pytest.mark.parametrize("kind", UPSTREAM_KINDS)
def test_every_kind_has_its_causes(kind: str):
    error = UpstreamError(kind, "it failed")
    assert causes(error) == (set() if kind in FINAL else {"any", *KINDS[kind]})
    assert may_move(error) is (kind not in FINAL)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"code": "context_length_exceeded"}, {"context_window"}),
        ({"message": "This model's maximum context length is 8192 tokens."}, {"context_window"}),
        ({"code": "content_policy_violation"}, {"content_policy"}),
        ({"code": "content_filter"}, {"content_policy"}),
        ({"code": "moderation_blocked"}, {"content_policy"}),
        ({"code": "image_content_policy_violation"}, {"content_policy"}),
        ({"code": "bio_policy"}, {"content_policy"}),
        ({"code": "cyber_policy"}, {"content_policy"}),
        ({"status": 404, "message": "no such context window"}, set()),
        ({"code": "invalid_request"}, set()),
    ],
)
def test_of_what_a_provider_rejects_only_length_and_content_have_a_cause(more: dict[str, Any], expected: set[str]):
    error = UpstreamError("rejected", **{"message": "no", **more})
    assert causes(error) == expected
    assert not may_move(error)


def test_a_target_that_was_not_waited_for_any_longer_may_be_followed_by_another_one():
    error = late(START)
    error.acquit()
    assert causes(error) == {"any", "too_slow"}
    assert may_move(error)


def test_a_target_that_is_full_is_unavailable_and_a_deadline_that_has_passed_is_nothing():
    assert causes(CapacityError("full")) == {"any", "unavailable"}
    assert causes(CapacityError("late", status=504, code="deadline_exceeded")) == set()
