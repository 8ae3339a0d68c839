"""`when`: what must hold of a request for a target to serve it. Declarative: a name, and the values or the range that it may have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from proxy.core.call import Call, tier_of
from proxy.core.estimate import estimated_tokens
from proxy.core.wishes import LENGTHS


@dataclass(frozen=True, slots=True)
class Range:
    """A number over `above` and under `below`; None is no bound."""

    above: float | None = None
    below: float | None = None

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return (self.above is None or value > self.above) and (self.below is None or value < self.below)


#: (name of a fact, what it may be). All of them must hold.
Condition: TypeAlias = tuple[tuple[str, "Range | tuple[Any, ...]"], ...]

#: Facts of one request's `metadata` member, by the name behind the dot.
METADATA = "metadata."


def prompt_tokens(call: Call) -> int:
    """An estimate: four bytes of text to a token."""
    return estimated_tokens(call.body)


def max_tokens(call: Call) -> Any:
    """The longest answer that the request asks for, by whichever name; None where it does not say."""
    return next((call.body[name] for name in LENGTHS if call.body.get(name) is not None), None)


FACTS: dict[str, Callable[[Call], Any]] = {
    "task_type": lambda call: call.resolved.task_type if call.resolved is not None else None,
    "tier": lambda call: tier_of(call.principal, call.end_user, call.resolved),
    "user": lambda call: named if (named := call.on_behalf) is not None else call.principal.id,
    "operation": lambda call: call.operation,
    "stream": lambda call: call.stream,
    "prompt_tokens": prompt_tokens,
    "max_tokens": max_tokens,
}


def holds(condition: Condition, call: Call, known: dict[str, Any] | None = None) -> bool:
    """Whether all of it is true of `call`. What a request does not say is None, which is in no range and equal to nothing written.

    `known` keeps what was found, where more than one condition is looked at.
    """
    found = {} if known is None else known
    for name, wanted in condition:
        if name not in found:
            fact = FACTS.get(name)
            found[name] = fact(call) if fact is not None else _metadata(call, name)
        if found[name] is None or found[name] not in wanted:
            return False
    return True


def _metadata(call: Call, name: str) -> Any:
    members = call.body.get("metadata")
    value = members.get(name.removeprefix(METADATA)) if isinstance(members, dict) else None
    return value if isinstance(value, (str, int, float)) else None
