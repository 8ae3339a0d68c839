"""Which provider serves a call: a look-up in the table of models.

What a client sends chooses among configured targets, never a destination.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

from proxy.core.call import Call, Target, Timeouts
from proxy.core.errors import ClientError
from proxy.core.protocols import Handler
from proxy.core.reply import Reply


@dataclass(frozen=True, slots=True)
class Table:
    """Public names, and the providers that `provider/model` may address.

    `default` is the provider of requests that name no model; with `open`, also of model names that the table does not have.
    """

    targets: Mapping[str, Target]
    providers: frozenset[str]
    default: str | None
    open: bool = False

    def find(self, model: str | None) -> Target:
        """The target of a model's name. Raises ClientError (404 `model_not_found`) with the nearest names."""
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
        raise unknown_model(model, self.targets)


def unknown_model(model: str, known: Iterable[str]) -> ClientError:
    """404 `model_not_found`, with the nearest of the names that are known."""
    names = sorted(known)
    near = get_close_matches(model, names, n=3, cutoff=0.4) or names[:5]
    hint = f" Near to it: {', '.join(near)}." if near else ""
    return ClientError(f"The model {model[:200]!r} does not exist.{hint}", param="model", code="model_not_found", status=404)


class Patience(Protocol):
    """What a provider's settings say of time."""

    def timeouts(self, call: Call) -> Timeouts: ...


class Route:
    """Sets the call's target and, from its provider's settings, its timeouts."""

    def __init__(self, table: Table, providers: Mapping[str, Patience]) -> None:
        self._table = table
        self._providers = providers

    async def __call__(self, call: Call, call_next: Handler) -> Reply:
        call.target = target = self._table.find(call.model)
        call.timeouts = self._providers[target.provider].timeouts(call)
        return await call_next(call)
