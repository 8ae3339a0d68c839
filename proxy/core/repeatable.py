"""Which requests may be made twice."""

from __future__ import annotations

from proxy.core.call import Call

#: Operations that leave nothing behind at the provider, so that doing them twice does no harm.
REPEATABLE = frozenset(
    ("chat", "completion", "embedding", "responses", "moderations", "decisions", "rerank", "score", "classify", "pooling", "tokenize")
)

#: Members of a request with which it leaves something behind all the same.
_STORING = ("background", "store", "conversation")


def is_repeatable(call: Call) -> bool:
    """Whether doing it twice leaves nothing at the provider that was not there before."""
    return call.operation in REPEATABLE and not any(call.body.get(member) for member in _STORING)
