"""What the gateway itself says in the head of an answer: which request this was, who served it, and how long that took."""

from __future__ import annotations

from math import floor
from typing import TypeAlias

from proxy.core.call import Call
from proxy.core.milliseconds import milliseconds
from proxy.core.protocols import Clock

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

#: The source of the configuration, the model that was asked for (or that a fallback led to), the target's public and own name
#: of it, its provider, and the number of attempts. From the models' names follows which one served.
_Facts: TypeAlias = tuple[str | None, str | None, str | None, str | None, str, int]


class OwnHead:
    """Header lines of answers; what is the same for many of them is kept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[_Facts, str] = {}

    def early_lines(self, call: Call, headers: dict[str, str]) -> str:
        """`lines` of an answer that begins while its provider is still waited for: that is not the gateway's time."""
        now = self._clock.monotonic()
        running = max((now - attempt.started for attempt in call.attempts if attempt.ended is None), default=0.0)
        call.upstream_seconds += running
        try:
            return self.lines(call, headers)
        finally:
            call.upstream_seconds -= running

    def lines(self, call: Call, headers: dict[str, str]) -> str:
        """Each ended by CRLF. `headers` are the others: what is ours is taken out of them. The call's overhead ends here."""
        took = self._clock.monotonic() - call.started
        overhead = took - call.upstream_seconds - call.arriving
        call.overhead = overhead if overhead > 0.0 else 0.0
        if not OURS.isdisjoint(headers):
            for name in OURS.intersection(headers):
                del headers[name]
        rest = "" if "openai-version" in headers else _VERSION
        if "openai-processing-ms" not in headers:
            rest = f"openai-processing-ms: {floor(took * 1e3)}\r\n{rest}"
        if call.notes and "explain" in call.notes:
            rest = f"x-comporta-explain: {call.notes['explain']}\r\n{rest}"
        target, resolved = call.target, call.resolved
        source = None if resolved is None else resolved.source
        if target is None:
            served = "" if source is None else f"x-comporta-config-source: {source}\r\n"
            return f"x-request-id: {call.id}\r\n{served}{rest}"
        facts = (source, call.stand_in or call.model, target.public, target.model, target.provider, len(call.attempts))
        served = self._kept.get(facts) or self._keep(facts, call.served)
        return f"x-request-id: {call.id}\r\n{rest}{served}{milliseconds(call.overhead)}\r\n"

    def _keep(self, facts: _Facts, model: str | None) -> str:
        """The lines of these facts, by which `model` served, up to the time that it took."""
        source, *_, provider, attempts = facts
        names = ("x-comporta-config-source", "x-comporta-model", "x-comporta-provider", "x-comporta-attempts")
        told = zip(names, (source, model, provider, attempts), strict=True)
        lines = "".join(f"{name}: {value}\r\n" for name, value in told if value is not None) + "x-comporta-overhead-ms: "
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[facts] = lines
        return lines
