"""The list of models, answered here: what the configuration names, and what a provider without a list of ours says it has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote

import orjson

from proxy.core.call import Call
from proxy.core.protocols import Handler
from proxy.core.reply import Reply
from proxy.routing.table import unknown_model

#: Lists the models of providers, as OpenAI's model objects, by public name.
Listing = Callable[[], Awaitable[Mapping[str, dict[str, Any]]]]


class Models:
    """`GET /v1/models` and `GET /v1/models/{id}`. Deleting a fine-tuned model goes on to its provider through `gateway`."""

    def __init__(self, listing: Listing, gateway: Handler) -> None:
        self._listing = listing
        self._gateway = gateway

    async def __call__(self, call: Call) -> Reply:
        if call.method != "GET":
            return await self._gateway(call)
        listed = await self._listing()
        # Names may hold slashes, which clients write as they are or percent-encoded.
        name = unquote(call.path.removeprefix("/models").removeprefix("/"))
        if not name:
            return _json({"object": "list", "data": list(listed.values())})
        if name not in listed:
            raise unknown_model(name, listed)
        return _json(listed[name])


def _json(value: dict[str, Any]) -> Reply:
    return Reply(200, {"content-type": "application/json"}, orjson.dumps(value))
