"""Whether a provider can be reached with a key: its list of models is asked for, and the answer is put into words."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import providers
from proxy.catalogue import listed_by
from proxy.core.clock import SystemClock
from proxy.core.errors import UpstreamError
from proxy.fields import Section
from proxy.secrets import SecretError, resolve
from proxy.snapshot import build_upstream

#: The variable under which a key that is only being tried is looked up; no such variable is ever set.
_TRIED = "KEY"


@dataclass(frozen=True)
class Verdict:
    """`outcome` is a word for scripts: ok, or a key of `ADVICE`; `models` is how many the provider lists."""

    outcome: str
    said: str
    models: int | None = None

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


def tried(section: Section, find: Callable[[str], str]) -> Verdict:
    """The verdict on a provider's section as it stands, with its first key; `find` follows references."""
    for reference in getattr(section, "references", ())[:1]:
        try:
            find(reference)
        except SecretError as error:
            return Verdict("no_key", f"{reference}: {error}")
    try:
        models = asyncio.run(_listed(section, find))
    except UpstreamError as error:
        outcome = _OUTCOMES.get(error.kind, "failed")
        return Verdict(outcome, ADVICE[outcome])
    return Verdict("ok", f"it works: {models} models" if models != 1 else "it works: one model", models)


def tried_with(section: Section, secret: str | None, environ: Mapping[str, str] = os.environ) -> Verdict:
    """The same with this key, which is kept nowhere; None: with no key."""
    one: dict[str, Any] = {"api_key": f"env:{_TRIED}" if secret is not None else None, "api_keys": ()}
    held = {**environ, _TRIED: secret} if secret is not None else environ
    return tried(section.model_copy(update=one), lambda reference: resolve(reference, held))


async def _listed(section: Section, find: Callable[[str], str]) -> int:
    clock = SystemClock()
    upstream = build_upstream("tried", section, providers.kinds(), find, clock)
    try:
        return len(await listed_by(upstream, clock))
    finally:
        await upstream.transport.close()
