"""What the hierarchy of configurations comes to for one request: every value with the level that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

#: The levels, the least specific first. A level overrides only what it sets; zero is a value, None is not.
LEVELS = ("system", "task_type", "user", "request")

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    return _NOTHING


@dataclass(frozen=True, slots=True)
class Preferences:
    """What one user has set. None inherits.

    `timeout` is in seconds, 0 < t <= 300; `max_retries` 0..10. `task_types` has for a task type the same fields again. `timeouts` are
    fields of `proxy.core.call.Timeouts`, in their units. `tier` is none of what is set: whose preferences these are, where that was asked
    for as well; empty for a user without one, None where no such user is known.
    """

    model: str | None = None
    fallback_model: str | None = None
    timeout: float | None = None
    max_retries: int | None = None
    task_types: Mapping[str, Preferences] = field(default_factory=dict)
    timeouts: Mapping[str, float] = field(default_factory=dict)
    tier: str | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """The outcome.

    `timeout` is in seconds; `params` are members of the request's body that fill what it left unset. `sources` has a level of `LEVELS` for
    each name that is set (`model`, `timeout`, `timeouts.idle`, `temperature`, ...); `source` is the most specific level that set anything.
    `timeouts` and `tier` as in `Preferences`: the former go before the provider's.
    """

    model: str | None = None
    fallback_model: str | None = None
    timeout: float | None = None
    max_retries: int | None = None
    context_window: int | None = None
    params: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    task_type: str | None = None
    is_known_task_type: bool = True
    sources: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    source: str = "system"
    timeouts: Mapping[str, float] = field(default_factory=_nothing)
    tier: str | None = None
