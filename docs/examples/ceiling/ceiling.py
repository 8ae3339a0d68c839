"""A policy: a ceiling on the tokens that a request may ask for. The example of docs/add_a_policy.md."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import Field

from comporta import Call, ClientError, Handler, Reply, Section, Services

#: Where a request says how much it wants, newest spelling first.
MEMBERS = ("max_completion_tokens", "max_tokens")


class CeilingSettings(Section):
    """`policies.ceiling` in the configuration."""

    max_tokens: int = Field(4096, ge=1, description="most tokens that a request may ask for")


class Ceiling:
    """Refuses what asks for too much, and counts how much of what was asked for was used. It reads the body: it stands after `receive`."""

    Settings = CeilingSettings

    def __init__(self, settings: CeilingSettings, services: Services) -> None:
        self._most = settings.max_tokens
        self._tokens = services.metrics.counter("ceiling_tokens_total", "Tokens of requests that named a limit.", "kind")

    async def __call__(self, call: Call, call_next: Handler) -> Reply:
        member, asked = asked_for(call.body)
        if asked > self._most:
            raise ClientError(f"{member!r} must be at most {self._most}.", param=member, code="ceiling_exceeded")
        reply = await call_next(call)
        reply.headers["x-ceiling-max-tokens"] = str(self._most)
        if asked:
            reply.on_close(partial(self._count, call, asked))
        return reply

    def _count(self, call: Call, asked: int, _error: BaseException | None) -> None:
        """Runs once when the answer is over, delivered or not; by then its usage is known."""
        self._tokens.labels("asked").add(asked)
        self._tokens.labels("written").add(call.usage.completion if call.usage is not None else 0)


def asked_for(body: dict[str, Any]) -> tuple[str, int]:
    """The member that names a limit, and that limit; 0 where none does. Pure, so that its test needs no gateway."""
    for member in MEMBERS:
        value = body.get(member)
        if isinstance(value, int) and not isinstance(value, bool):
            return member, value
    return MEMBERS[0], 0
