"""Which requests may be made twice."""

from __future__ import annotations

from proxy.core.call import Call
from proxy.core.errors import GatewayError, UpstreamError

#: Operations that leave nothing behind at the provider, so that doing them twice does no harm.
REPEATABLE = frozenset(
    ("chat", "completion", "embedding", "responses", "moderations", "decisions", "rerank", "score", "classify", "pooling", "tokenize")
)

#: Of operations that also keep something, such as voices, the paths of what leaves nothing behind.
_REPEATABLE_PATHS = frozenset(("/audio/speech", "/audio/transcriptions", "/audio/translations"))

#: Members of a request with which it leaves something behind all the same.
_STORING = ("background", "store", "conversation")

#: Methods with which doing it twice is doing it once.
IDEMPOTENT = frozenset({"GET", "HEAD"})

#: Failures with which a provider says that it has not begun: nothing of the request is left there.
_REFUSALS = frozenset({"rate_limit_exceeded", "insufficient_quota", "overloaded", "provider_auth", "rejected"})


def is_repeatable(call: Call) -> bool:
    """Whether doing it twice leaves nothing at the provider that was not there before."""
    is_of_a_kind = call.operation in REPEATABLE or call.path in _REPEATABLE_PATHS
    return is_of_a_kind and not any(call.body.get(member) for member in _STORING)


def may_be_done_twice(call: Call, error: GatewayError) -> bool:
    """Whether another provider may be asked after `error`: this one has not done it, or doing it twice does no harm."""
    if not isinstance(error, UpstreamError) or not error.reached or error.kind in _REFUSALS:
        return True
    return call.method in IDEMPOTENT or is_repeatable(call)
