"""The list of models, answered here: what the configuration names, and what a provider without a list of ours says it has.

Everybody sees what they may ask for, and no more: a model that is not for a key does not exist for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import unquote

import orjson

from proxy.core.call import Call, Principal
from proxy.core.permissions import may_use
from proxy.core.protocols import Handler
from proxy.core.reply import Reply
from proxy.routing.table import unknown_model

#: The member of a model that OpenAI's does not have.
EXTENSION = "comporta"


class Listing(Protocol):
    """The models of providers."""

    async def __call__(self) -> Mapping[str, dict[str, Any]]:
        """OpenAI's model objects, by public name."""

    def providers(self, model: str) -> tuple[str, ...]:
        """Who serves a model of that name, the first choice first, whether it is listed or not."""


class Models:
    """`GET /v1/models` and `GET /v1/models/{id}`. Deleting a fine-tuned model goes on to its provider through `gateway`.

    `allows` says whether the configuration allows a name to anybody at all.
    """

    def __init__(self, listing: Listing, gateway: Handler, allows: Callable[[str], bool]) -> None:
        self._listing = listing
        self._gateway = gateway
        self._allows = allows

    async def __call__(self, call: Call) -> Reply:
        if call.method != "GET":
            return await self._gateway(call)
        listed = self._visible(call.principal, await self._listing())
        # Names may hold slashes, which clients write as they are or percent-encoded.
        name = unquote(call.path.removeprefix("/models").removeprefix("/"))
        if not name:
            return _json({"object": "list", "data": list(listed.values())})
        if name not in listed:
            raise unknown_model(name, listed)
        return _json(listed[name])

    def _visible(self, principal: Principal, listed: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        found = {}
        for name, model in listed.items():
            providers = usable(principal, name, self._listing.providers(name)) if self._allows(name) else ()
            if providers:
                found[name] = seen(model, providers, self._listing.providers(name))
        return found


def usable(principal: Principal, model: str, providers: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `providers` that may serve `model` to the principal."""
    return tuple(each for each in providers if may_use(principal, model, each))


def seen(model: Mapping[str, Any], providers: tuple[str, ...], every: tuple[str, ...]) -> dict[str, Any]:
    """A model to somebody for whom `providers` out of `every` may serve it. An owner that is none of ours is the provider's own word."""
    owner = model.get("owned_by")
    return {**model, "owned_by": providers[0] if owner is None or owner in every else owner, EXTENSION: {"providers": list(providers)}}


def _json(value: dict[str, Any]) -> Reply:
    return Reply(200, {"content-type": "application/json"}, orjson.dumps(value))
