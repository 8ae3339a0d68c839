"""Whether a provider can be reached with a key: its list of models is asked for, and the answer is put into words."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

import providers
from proxy.catalogue import listed_by
from proxy.core.clock import SystemClock
from proxy.core.errors import UpstreamError
from proxy.fields import Section
from proxy.snapshot import build_upstream

#: How many models are named in words, and how long a name may be.
_NAMED = 5
_LONGEST = 200


@dataclass(frozen=True)
class Verdict:
    """`outcome` is a word for scripts: ok, or a key of `ADVICE`; `models` are those that the provider lists."""

    outcome: str
    said: str
    models: tuple[str, ...] | None = None

    @property
    def is_ok(self) -> bool:
        return self.outcome == "ok"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


ADVICE = {
    "wrong_key": "the provider does not accept the key: copy it again, and look whether it is of this provider and still valid",
    "no_dns": "the host name of base_url cannot be resolved: it is misspelt, or this machine has no network",
    "no_network": "nothing accepts connections at base_url: wrong host or port, the server is down, or a firewall is between",
    "tls": "no trusted TLS connection: http instead of https, a certificate of one's own (set ca), or something in between",
    "wrong_url": "what answers at base_url lists no models: base_url goes up to and with the version, such as /v1",
    "limited": "the provider knows the key, and its limit or quota is reached",
    "no_answer": "connected, and no answer came in time, or it broke off",
    "failed": "the provider itself failed: try again later",
    "no_key": "there is no key to try",
}

_OUTCOMES = {
    "provider_auth": "wrong_key",
    "dns": "no_dns",
    "connect_failed": "no_network",
    "connect_timeout": "no_network",
    "tls": "tls",
    "invalid_response": "wrong_url",
    "bad_upstream": "wrong_url",
    "rejected": "wrong_url",
    "response_too_large": "wrong_url",
    "rate_limit_exceeded": "limited",
    "insufficient_quota": "limited",
    "reset": "no_answer",
    "upstream_timeout": "no_answer",
}


def is_triable(section: Section) -> bool:
    """Whether there is anything to ask: a provider at an address."""
    return hasattr(section, "base_url")


async def tried(section: Section, secret: str | None) -> Verdict:
    """The verdict on a provider's section with this key in the place of its own; None: with no key. The key is kept nowhere."""
    only: dict[str, Any] = {"api_key": None if secret is None else "store:tried", "api_keys": ()}
    kinds = await asyncio.to_thread(providers.kinds)
    clock = SystemClock()
    upstream = build_upstream("tried", section.model_copy(update=only), kinds, lambda _reference: secret or "", clock)
    try:
        models = await listed_by(upstream, clock)
    except UpstreamError as error:
        outcome = _OUTCOMES.get(error.kind, "failed")
        return Verdict(outcome, ADVICE[outcome])
    finally:
        await upstream.transport.close()
    return _works(tuple(name for name in models if _is_shown(name, secret)))


def _is_shown(name: str, secret: str | None) -> bool:
    """A provider may call its models anything; nothing that it says shows the key, or moves a terminal's cursor."""
    return name.isprintable() and len(name) <= _LONGEST and (not secret or secret not in name)


def _works(models: tuple[str, ...]) -> Verdict:
    count = "one model" if len(models) == 1 else f"{len(models)} models"
    named = ", ".join(models[:_NAMED]) + (", ..." if len(models) > _NAMED else "")
    return Verdict("ok", f"it works: {count}" + (f": {named}" if named else ""), models)
