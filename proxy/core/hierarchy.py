"""Which configuration holds for one request: system, task type, user, request, field by field.

A level overrides only what it sets. Zero is a value; None is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from proxy.core.resolved import LEVELS, Preferences, Resolved

#: What each level may set. Timeouts are seconds for the whole answer.
FIELDS = ("model", "fallback_model", "timeout", "max_retries")

#: What the source of one of a level's `timeouts` is called: `timeouts.idle`.
TIMEOUTS = "timeouts."

#: Members of a request's body that a level may fill in.
PARAMS = ("temperature", "top_p", "max_tokens")

SYSTEM, TASK_TYPE, USER, REQUEST = LEVELS

PREMIUM = "premium"

_NONE = Preferences()


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The system level, and what it says of task types, models and tiers.

    system           what holds where nothing more specific sets anything
    task_types       the same fields by task type
    params           members of a request's body by model, out of `PARAMS`
    context_windows  tokens by model
    premium_model, standard_model   the models of users of the premium tier, and of all others that are known
    alias            the model's name that asks for none: the hierarchy decides; None: every name is a model's
    larger_model     takes the requests that are too long for their own model
    allowed_models   patterns (`llama3*`) of what may be used at all; None: every model
    """

    system: Preferences = _NONE
    task_types: Mapping[str, Preferences] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    context_windows: Mapping[str, int] = field(default_factory=dict)
    premium_model: str | None = None
    standard_model: str | None = None
    alias: str | None = None
    larger_model: str | None = None
    allowed_models: tuple[str, ...] | None = None

    def uses(self) -> dict[str, list[str]]:
        """What the system level uses each of its models as, by model."""
        found: dict[str, list[str]] = {}
        named = [("default", self.system.model), ("fallback", self.system.fallback_model), ("larger", self.larger_model)]
        named += [("premium", self.premium_model), ("standard", self.standard_model)]
        named += [(name, level.model) for name, level in self.task_types.items()]
        for use, model in named:
            if model is not None:
                found.setdefault(model, []).append(use)
        return found

    def allows(self, model: str) -> bool:
        return self.allowed_models is None or any(fnmatchcase(model, pattern) for pattern in self.allowed_models)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the request itself sets. `params` as in `PARAMS`, `timeouts` as in `Preferences`."""

    model: str | None = None
    fallback_model: str | None = None
    timeout: float | None = None
    max_retries: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    timeouts: Mapping[str, float] = field(default_factory=dict)


NOTHING_ASKED = Asked()


def resolve(system: Hierarchy, task_type: str | None, preferences: Preferences, tier: str | None, asked: Asked) -> Resolved:
    """The outcome for one request.

    `tier` is None for a user of whom nothing is known, empty for one without a tier. A task type that the system does not list gets the
    system level, and is marked (unless the user has set something for it: then it is known). A tier's model that changes nothing counts as
    not set.
    """
    values: dict[str, Any] = {"timeouts": {}}
    sources: dict[str, str] = {}
    for source, level in _levels(system, task_type, preferences):
        if source == USER and level is preferences:
            _take_tier(system, tier, values, sources)
        _take(level, source, values, sources)
    _take(asked, REQUEST, values, sources)
    model = values.get("model")
    params = {**system.params.get(model, {}), **asked.params} if model is not None else dict(asked.params)
    sources.update({name: REQUEST if name in asked.params else SYSTEM for name in params})
    window = system.context_windows.get(model) if model is not None else None
    if window is not None:
        sources["context_window"] = SYSTEM
    return Resolved(
        **values,
        context_window=window,
        params=params,
        task_type=task_type,
        is_known_task_type=task_type is None or task_type in system.task_types or task_type in preferences.task_types,
        sources=sources,
        source=_most_specific(sources),
        tier=tier,
    )


def _levels(system: Hierarchy, task_type: str | None, preferences: Preferences) -> Iterator[tuple[str, Preferences]]:
    """The levels below the request's, the least specific first."""
    yield SYSTEM, system.system
    if task_type is not None and task_type in system.task_types:
        yield TASK_TYPE, system.task_types[task_type]
    yield USER, preferences
    if task_type is not None and task_type in preferences.task_types:
        yield USER, preferences.task_types[task_type]


def _take(level: Preferences | Asked, source: str, values: dict[str, Any], sources: dict[str, str]) -> None:
    for name in FIELDS:
        value = getattr(level, name)
        if value is not None:
            values[name] = value
            sources[name] = source
    for name, seconds in level.timeouts.items():
        values["timeouts"][name] = seconds
        sources[TIMEOUTS + name] = source


def _take_tier(system: Hierarchy, tier: str | None, values: dict[str, Any], sources: dict[str, str]) -> None:
    """The model of a user's tier: at the user's level, below what the user set."""
    model = None if tier is None else system.premium_model if tier == PREMIUM else system.standard_model
    if model is not None and model != values.get("model"):
        values["model"] = model
        sources["model"] = USER


def with_params(resolved: Resolved, params: Mapping[str, Any]) -> Resolved:
    """`resolved` with members that the request itself sets."""
    old = resolved
    sources = {**old.sources, **dict.fromkeys(params, REQUEST)}
    filled = {**old.params, **params}
    # By position, since requests pay for it: `replace` costs three times as much.
    limits = (old.timeout, old.max_retries, old.context_window)
    kind = (old.task_type, old.is_known_task_type)
    return Resolved(old.model, old.fallback_model, *limits, filled, *kind, sources, REQUEST, old.timeouts, old.tier)


def with_model(system: Hierarchy, resolved: Resolved, model: str, source: str) -> Resolved:
    """`resolved` with another model, that model's parameters, and what the request set of them."""
    own = {name: value for name, value in resolved.params.items() if resolved.sources[name] == REQUEST}
    params = {**system.params.get(model, {}), **own}
    kept = {name: level for name, level in resolved.sources.items() if name in FIELDS or name.startswith(TIMEOUTS)}
    sources = kept | {"model": source}
    sources |= {name: REQUEST if name in own else SYSTEM for name in params}
    window = system.context_windows.get(model)
    if window is not None:
        sources["context_window"] = SYSTEM
    return replace(resolved, model=model, context_window=window, params=params, sources=sources, source=_most_specific(sources))


def without_fallback(resolved: Resolved) -> Resolved:
    sources = {name: source for name, source in resolved.sources.items() if name != "fallback_model"}
    return replace(resolved, fallback_model=None, sources=sources, source=_most_specific(sources))


def _most_specific(sources: Mapping[str, str]) -> str:
    return max(sources.values(), key=LEVELS.index, default=SYSTEM)


def without_models(level: Preferences) -> Preferences:
    """What a level says of time and tries: its models are for text, and nothing for an embedding."""
    inner = {name: without_models(found) for name, found in level.task_types.items()}
    return Preferences(timeout=level.timeout, max_retries=level.max_retries, task_types=inner, timeouts=level.timeouts)


def for_embeddings(system: Hierarchy) -> Hierarchy:
    """The system level without its models."""
    task_types = {name: without_models(level) for name, level in system.task_types.items()}
    return Hierarchy(without_models(system.system), task_types, allowed_models=system.allowed_models)


def described(resolved: Resolved) -> dict[str, dict[str, Any]]:
    """Each value that is set, by name, with its `value` and its `source`."""
    values = {name: getattr(resolved, name) for name in (*FIELDS, "context_window")} | dict(resolved.params)
    values |= {TIMEOUTS + name: value for name, value in resolved.timeouts.items()}
    return {name: {"value": value, "source": resolved.sources[name]} for name, value in values.items() if name in resolved.sources}
