"""Which models there are and who may serve them: what the configuration's `models` come to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from proxy.core.call import Target
from proxy.core.errors import ClientError
from proxy.routing.strategies import Candidate


@dataclass(frozen=True, slots=True)
class Rule:
    """After a failure of this `cause` the model `to` is tried."""

    cause: str
    to: str


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """A model of which there is more to say than who serves it. `latency` is in seconds, for the strategy `cheapest`."""

    candidates: tuple[Candidate, ...]
    strategy: str = "weighted"
    fallback: tuple[Rule, ...] = ()
    latency: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Public names, and the providers that `provider/model` may address.

    `default` is the provider of requests that name no model; with `open`, also of model names that the table does not have. `routes` has
    the models with several targets, a condition or a fallback; `targets` has the first target of these too. `hidden` are the names that
    the configuration allows to nobody.
    """

    targets: Mapping[str, Target]
    providers: frozenset[str]
    default: str | None
    open: bool = False
    routes: Mapping[str, ModelRoute] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()

    def find(self, model: str | None, is_shown: Callable[[str], bool] | None = None) -> Target:
        """The (first) target of a model's name. Raises ClientError (404 `model_not_found`) with the nearest of the names that are shown."""
        if model is None:
            if self.default is None:
                raise ClientError(
                    "The request names no model, and there is no default provider.", param="model", code="model_not_found", status=404
                )
            return Target(self.default, None)
        target = self.targets.get(model)
        if target is not None:
            return target
        provider, slash, name = model.partition("/")
        if slash and name and provider in self.providers:
            return Target(provider, name)
        if self.open and self.default is not None:
            return Target(self.default, model)
        raise unknown_model(model, filter(is_shown, self.targets.keys() - self.hidden))


def unknown_model(model: str, known: Iterable[str]) -> ClientError:
    """404 `model_not_found`, with the nearest of the names that are known."""
    names = sorted(known)
    near = get_close_matches(model, names, n=3, cutoff=0.4) or names[:5]
    hint = f" Near to it: {', '.join(near)}." if near else ""
    return ClientError(f"The model {model[:200]!r} does not exist.{hint}", param="model", code="model_not_found", status=404)
