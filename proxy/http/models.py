"""The list of models, answered here: what the configuration names, and what a provider without a list of ours says it has.

One model may be asked for by any name that a request for it would be sent on with, such as `provider/model`: not all of these are listed.

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
from proxy.core.wishes import MODEL_LENGTH, is_name
from proxy.routing.table import unknown_model

#: The member of a model that OpenAI's does not have.
EXTENSION = "comporta"


class Listing(Protocol):
    """The models of providers."""

    async def __call__(self) -> Mapping[str, dict[str, Any]]:
        """OpenAI's model objects, by public name."""

    def providers(self, model: str) -> tuple[str, ...]:
        """Who serves a model of that name, the first choice first, whether it is listed or not."""


class Finding(Listing, Protocol):
    """The models of providers, by any name."""

    async def find(self, model: str) -> dict[str, Any] | None:
        """OpenAI's model object of a name that need not be listed; None where nobody has it."""


class Models:
    """`GET /v1/models` and `GET /v1/models/{id}`. Deleting a fine-tuned model goes on to its provider through `gateway`.

    `allows` says whether the configuration allows a name to anybody at all.
    """

    def __init__(self, listing: Finding, gateway: Handler, allows: Callable[[str], bool]) -> None:
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
        found = listed.get(name) or await self._unlisted(call.principal, name)
        if found is None:
            raise unknown_model(name, listed)
        return _json(found)

    async def _unlisted(self, principal: Principal, name: str) -> dict[str, Any] | None:
        """Whoever may not call it does not get so far that somebody is asked for it."""
        every = self._listing.providers(name)
        providers = usable(principal, name, every) if is_name(name, MODEL_LENGTH) and self._allows(name) else ()
        found = await self._listing.find(name) if providers else None
        return None if found is None else seen(found, providers, every)

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
