"""What a principal may do, as questions about values. Nothing here knows where a principal came from."""

from __future__ import annotations

import ipaddress
from fnmatch import fnmatchcase
from functools import lru_cache

from proxy.core.call import Principal

#: Operations that neither read nor leave anything on the account that the gateway's users share. Any other one, also one that is new,
#: needs a grant of its name: files and batches of one user are in another's reach there.
PLAIN = frozenset({"chat", "completion", "embedding", "models", "llm", "llm_config", "responses", "audio", "images", "moderations"}) | {
    "decisions", "rerank", "score", "classify", "pooling", "tokenize",
}  # fmt: skip

#: What stands among plain operations and is none: operation -> (method, or None for any; beginning of the path; grant that it needs).
_AMONG_PLAIN: dict[str, tuple[str | None, str, str]] = {
    "models": ("DELETE", "/models/", "fine_tuning"),
    "audio": (None, "/audio/voice", "voices"),
}

#: Grants of another name than the operation's.
FURTHER_GRANTS = frozenset(grant for _, _, grant in _AMONG_PLAIN.values())

_PLAINEST = PLAIN - _AMONG_PLAIN.keys()


def grant_for(operation: str, method: str, path: str) -> str | None:
    """The grant that a key needs for a request; None where `operations` decides. `path` is without `/v1`."""
    if operation not in PLAIN:
        return operation
    found = _AMONG_PLAIN.get(operation)
    if found is None or found[0] not in (None, method) or not path.startswith(found[1]):
        return None
    return found[2]


def may_ask(principal: Principal, operation: str, method: str, path: str) -> bool:
    """Whether a key may make this request at all. A path that does not exist may be asked for: it is refused to everyone."""
    grant = None if operation in _PLAINEST else grant_for(operation, method, path)
    if grant is None:
        return principal.operations is None or operation in principal.operations
    return grant in principal.grants or operation == "unknown"


def may_use(principal: Principal, model: str | None, provider: str) -> bool:
    """Whether it may have `model` (the name as it is asked for: public, or `provider/name`) from `provider`.

    A key that is limited to models may not leave the choice to the provider: None is refused to it.
    """
    return (principal.providers is None or provider in principal.providers) and may_name(principal, model)


def may_name(principal: Principal, model: str | None) -> bool:
    """Whether it may have `model` at all, whoever serves it."""
    patterns = principal.models
    return patterns is None or (model is not None and any(fnmatchcase(model, pattern) for pattern in patterns))


@lru_cache(maxsize=4096)
def may_come_from(networks: tuple[str, ...] | None, peer: str) -> bool:
    """Whether `peer` (an IP address, or what stands for one that is not known) is in one of `networks`; None is any.

    An IPv4 address that came over an IPv6 socket counts as itself. A network that is none lets nobody in.
    """
    if networks is None:
        return True
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in map(_network, networks) if network is not None)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
