"""The section `models`: public names, who serves them, by which strategy, and what is tried when that fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, field_validator

from proxy.core.names import nearest
from proxy.fields import Duration, Section
from proxy.http.routes import OPERATIONS
from proxy.routing.causes import CAUSES
from proxy.routing.conditions import FACTS, METADATA
from proxy.settings.messages import Findings
from proxy.settings.tree import Path

Strategy = Literal["weighted", "least_latency", "least_busy", "cheapest", "priority", "sticky"]


def _cause(value: str) -> str:
    if value not in CAUSES:
        raise ValueError(f"there is no cause {value!r}; {nearest(value, CAUSES)}")
    return value


class FallbackRule(Section):
    """A fallback for failures of one cause."""

    on: Annotated[str, AfterValidator(_cause), Field(json_schema_extra={"enum": list(CAUSES)})] = Field(
        description="the cause: any, too_slow, rate_limited, context_window, ..."
    )
    to: str = Field(description="the model that is tried then")


class PriceSettings(Section):
    """What a target costs, in US dollars for a million tokens."""

    input: float = Field(description="of the prompt", ge=0)
    output: float = Field(description="of the answer", ge=0)


class RangeSettings(Section):
    """A condition on a number."""

    above: float | None = Field(None, description="it must be more than this")
    below: float | None = Field(None, description="it must be less than this")


Plain: TypeAlias = str | int | float | bool

#: What facts are that are no text, and how that is written. What a request's metadata says may be anything.
_WRITTEN: dict[str, tuple[tuple[type, ...], str]] = {
    "stream": ((bool, int), "true or false, without quotes"),
    "prompt_tokens": ((int, float, RangeSettings), "a number without quotes, or {above: 1000}"),
    "max_tokens": ((int, float, RangeSettings), "a number without quotes, or {above: 1000}"),
}
_TEXT = ((str,), 'text, such as "1" in quotes')


def _require_written(name: str, value: Any) -> None:
    """Raises ValueError for what the fact `name` never is."""
    kinds, written = _WRITTEN.get(name, _TEXT)
    for one in value if isinstance(value, list) else [value]:
        if type(one) not in kinds:
            raise ValueError(f"{name!r} is never {'a range' if isinstance(one, RangeSettings) else repr(one)}; write {written}")


class TargetEntry(Section):
    """One of several who may serve a model."""

    provider: str = Field(description="name of a configured provider")
    model: str = Field("", description="the model's name there; left out: the same as here")
    weight: float = Field(1.0, description="share of the requests, relative to the other weights; 0: only when the others fail", ge=0)
    priority: int = Field(1, description="with the strategy `priority`: 1 is tried before 2", ge=0)
    price: PriceSettings | None = Field(None, description="what it costs; the strategy `cheapest` needs it")
    when: dict[str, Plain | list[Plain] | RangeSettings] = Field(
        default_factory=dict, description="what must hold of a request: task_type, tier, prompt_tokens, metadata.NAME, ..."
    )

    @field_validator("when")
    @classmethod
    def _facts(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name, wanted in value.items():
            if name not in FACTS and not (name.startswith(METADATA) and name != METADATA):
                raise ValueError(f"nothing is known of {name!r}; {nearest(name, [*FACTS, METADATA + 'NAME'])}")
            if name in FACTS:
                _require_written(name, wanted)
        operations = value.get("operation", [])
        for operation in operations if isinstance(operations, list) else [operations]:
            if operation not in OPERATIONS:
                raise ValueError(f"there is no operation {operation!r}; {nearest(str(operation), OPERATIONS)}")
        return value


class ModelEntry(Section):
    """Who serves a model."""

    provider: str = Field(description="name of a configured provider")
    model: str = Field("", description="the model's name there; left out: the same as here")
    fallback: list[str | FallbackRule] = Field(
        default_factory=list, description="models that are tried in turn when this one fails: NAME, or {on: CAUSE, to: NAME}"
    )

    @property
    def targets(self) -> list[TargetEntry]:
        """The one target, as the long form has it."""
        return [TargetEntry(provider=self.provider, model=self.model)]

    def named(self, name: str) -> ModelEntry:
        """The same with the model's name where it was left out."""
        return self if self.model else self.model_copy(update={"model": name})


class ModelTargets(Section):
    """The long form of a model: a list of who may serve it."""

    targets: list[TargetEntry] = Field(description="who may serve it", min_length=1)
    strategy: Strategy = Field("weighted", description="which target is asked first, and which after it")
    latency: Duration | None = Field(
        None, description="with the strategy `cheapest`: targets whose first content takes longer than this come last"
    )
    fallback: list[str | FallbackRule] = Field(
        default_factory=list, description="models that are tried in turn when every target has failed: NAME, or {on: CAUSE, to: NAME}"
    )

    def named(self, name: str) -> ModelTargets:
        """The same with the model's name where a target left it out."""
        named = [target if target.model else target.model_copy(update={"model": name}) for target in self.targets]
        return self.model_copy(update={"targets": named})

    @property
    def provider(self) -> str:
        """The first target's."""
        return self.targets[0].provider

    @property
    def model(self) -> str:
        """The first target's."""
        return self.targets[0].model


Entry: TypeAlias = ModelEntry | ModelTargets


# ---------------------------------------------------------------------------------------------------------------- between the sections
def check_models(models: Mapping[str, Entry], listed: Sequence[str], findings: Findings) -> None:
    """Every provider and every fallback exists, no chain of fallbacks comes back to where it was. `listed` has the providers' names."""
    for name, entry in models.items():
        for path, provider in _providers(name, entry):
            before, slash, rest = provider.partition("/")
            if slash and before in listed:
                findings.problem(path, "names a provider and a model in one", f"write {name}: {{provider: {before}, model: {rest}}}")
            elif provider not in listed:
                findings.problem(path, f"there is no provider {provider!r}", nearest(provider, listed))
        before, slash, rest = name.partition("/")
        if slash and before in listed:
            findings.warning(("models", name), f"hides the model {rest!r} of the provider {before!r}")
        _check_targets(name, entry, findings)
        for path, _, to in chained(name, entry):
            if to not in models and not _is_addressed(to, listed):
                hint = f"it is a provider: write {to}/MODEL" if to in listed else nearest(to, models)
                findings.problem(path, f"there is no model {to!r}", hint)
    _check_cycles(models, findings)


def _providers(name: str, entry: Entry) -> Iterator[tuple[Path, str]]:
    if isinstance(entry, ModelEntry):
        yield ("models", name, "provider"), entry.provider
        return
    for place, target in enumerate(entry.targets):
        yield ("models", name, "targets", place, "provider"), target.provider


def _check_targets(name: str, entry: Entry, findings: Findings) -> None:
    if isinstance(entry, ModelEntry):
        return
    path: Path = ("models", name, "targets")
    if not any(target.weight for target in entry.targets):
        findings.problem(path, "every weight is 0, so nobody serves it first", "give one of them a weight")
    if all(target.when for target in entry.targets):
        findings.warning(path, "each has a condition: a request that meets none of them is refused", "leave one without `when`")
    for place, target in enumerate(entry.targets):
        if entry.strategy == "cheapest" and target.price is None:
            findings.problem(
                (*path, place), "has no price, by which the strategy `cheapest` chooses", "add price: {input: 0.5, output: 1.5}"
            )


def chained(name: str, entry: Entry) -> Iterator[tuple[Path, str, str]]:
    """(path, cause, model) of each fallback."""
    for place, rule in enumerate(entry.fallback):
        path: Path = ("models", name, "fallback", place)
        if isinstance(rule, FallbackRule):
            yield (*path, "to"), rule.on, rule.to
        else:
            yield path, "any", rule


def _is_addressed(name: str, listed: Sequence[str]) -> bool:
    provider, slash, model = name.partition("/")
    return bool(slash and model and provider in listed)


def _check_cycles(models: Mapping[str, Entry], findings: Findings) -> None:
    """One problem for each fallback that leads back to a model on the way to it."""
    done: set[str] = set()
    for name in models:
        way, left = [name], [chained(name, models[name])]
        while way:
            if way[-1] in done or (step := next(left[-1], None)) is None:
                done.add(way.pop())
                left.pop()
                continue
            path, _, to = step
            if to in way:
                findings.problem(path, f"leads in a circle: {' -> '.join((*way[way.index(to) :], to))}", "a chain of fallbacks has an end")
            elif to in models:
                way.append(to)
                left.append(chained(to, models[to]))
