"""Why a target failed, in the words of `fallback: [{on: CAUSE, to: NAME}]`."""

from __future__ import annotations

import re
from collections.abc import Callable

from proxy.core.errors import CapacityError, GatewayError, UpstreamError

#: Providers that have no code of their own for it say it in these words.
_TOO_LONG = re.compile(r"context (?:length|window|size)|too many tokens|prompt is too long", re.IGNORECASE)

_POLICY_CODES = frozenset(
    {
        "content_policy_violation",
        "content_filter",
        "content_policy",
        "moderation_blocked",
        "image_content_policy_violation",
        "bio_policy",
        "cyber_policy",
    }
)


def _of_kinds(*kinds: str) -> Callable[[GatewayError], bool]:
    wanted = frozenset(kinds)
    return lambda error: isinstance(error, UpstreamError) and error.kind in wanted


def _is_unavailable(error: GatewayError) -> bool:
    """The target is not asked at all now: it is cooling down, or full. A deadline that has passed has passed for every target."""
    return isinstance(error, CapacityError) and error.code != "deadline_exceeded"


def _is_failure(error: GatewayError) -> bool:
    """The provider's fault, of a kind that another one may not have. An answer over the limits would be over them again."""
    if isinstance(error, UpstreamError):
        return (error.fault == "upstream" or error.is_impatience) and error.kind != "response_too_large"
    return _is_unavailable(error)


def _exceeds_context(error: GatewayError) -> bool:
    if not isinstance(error, UpstreamError) or error.kind != "rejected":
        return False
    return error.code == "context_length_exceeded" or (error.status in (400, 413, 422) and _TOO_LONG.search(error.message) is not None)


def _offends_policy(error: GatewayError) -> bool:
    return isinstance(error, UpstreamError) and error.kind == "rejected" and (error.code in _POLICY_CODES or error.type in _POLICY_CODES)


#: A cause's name -> whether an error is one. `any` has all but the last two: in these the request itself is found wanting.
CAUSES: dict[str, Callable[[GatewayError], bool]] = {
    "any": _is_failure,
    "unreachable": _of_kinds("connect_failed", "connect_timeout", "dns", "tls"),
    "too_slow": _of_kinds("upstream_timeout", "connect_timeout"),
    "rate_limited": _of_kinds("rate_limit_exceeded", "insufficient_quota"),
    "overloaded": _of_kinds("overloaded"),
    "server_error": _of_kinds("server_error", "reset", "bad_upstream", "invalid_response", "response_failed"),
    "refused_credential": _of_kinds("provider_auth"),
    "unavailable": _is_unavailable,
    "context_window": _exceeds_context,
    "content_policy": _offends_policy,
}


def may_move(error: GatewayError) -> bool:
    """Whether the other targets of the same model may do better."""
    return _is_failure(error)


def kind_of(error: GatewayError) -> str:
    """A word of a closed list for the log and the metric."""
    return error.kind if isinstance(error, UpstreamError) else "unavailable"
