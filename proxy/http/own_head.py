"""What the gateway itself says in the head of an answer: which request this was, who served it, and how long that took."""

from __future__ import annotations

from typing import TypeAlias

from proxy.core.call import Call
from proxy.core.milliseconds import milliseconds

#: The version of the API that our own answers follow; a provider's own word goes before it.
API_VERSION = "2020-10-01"

#: Headers that are ours alone: whatever else says them is not asked.
OURS = frozenset(
    {
        "x-request-id",
        "x-comporta-config-source",
        "x-comporta-explain",
        "x-comporta-model",
        "x-comporta-provider",
        "x-comporta-attempts",
        "x-comporta-overhead-ms",
    }
)

_VERSION = f"openai-version: {API_VERSION}\r\n"

#: So many sets of facts are kept as the lines that they are: clients choose among names of models without end.
_MOST_KEPT = 1024

#: The source of the configuration, the model that served, its provider, and the number of attempts.
_Facts: TypeAlias = tuple[str | None, str | None, str, int]


class OwnHead:
    """Header lines of answers; what is the same for many of them is kept."""

    def __init__(self) -> None:
        self._kept: dict[_Facts, str] = {}

    def lines(self, call: Call, headers: dict[str, str], now: float) -> str:
        """Each ended by CRLF. `headers` are the answer's others, from which those that are ours are taken; `now` as the call's times."""
        if not OURS.isdisjoint(headers):
            for name in OURS.intersection(headers):
                del headers[name]
        target, resolved = call.target, call.resolved
        source = None if resolved is None else resolved.source
        if target is None:
            served = "" if source is None else f"x-comporta-config-source: {source}\r\n"
        else:
            facts = (source, call.served, target.provider, len(call.attempts))
            served = f"{self._kept.get(facts) or self._keep(facts)}{milliseconds(call.overhead)}\r\n"
        if resolved is not None and "explain" in call.notes:
            served = f"{served}x-comporta-explain: {call.notes['explain']}\r\n"
        taken = "" if "openai-processing-ms" in headers else f"openai-processing-ms: {int((now - call.started) * 1e3)}\r\n"
        version = "" if "openai-version" in headers else _VERSION
        return f"x-request-id: {call.id}\r\n{served}{taken}{version}"

    def _keep(self, facts: _Facts) -> str:
        """The lines of these facts, up to the time that it took."""
        names = ("x-comporta-config-source", "x-comporta-model", "x-comporta-provider", "x-comporta-attempts")
        told = zip(names, facts, strict=True)
        lines = "".join(f"{name}: {value}\r\n" for name, value in told if value is not None) + "x-comporta-overhead-ms: "
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[facts] = lines
        return lines
