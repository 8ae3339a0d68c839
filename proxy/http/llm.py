"""What the hierarchy of configurations says, for those whom it concerns: the models that it knows, and what a request would get."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import orjson

from policies.resolve import Resolve
from proxy.core.call import Call, Principal
from proxy.core.hierarchy import Hierarchy, described
from proxy.core.reply import Reply
from proxy.core.wishes import MODEL_LENGTH, TASK_TYPE_LENGTH, invalid, is_name
from proxy.http.models import Listing, seen, usable

_PREVIEW = "/llm/config/preview"


class Llm:
    """`GET /v1/llm/models` and `GET /v1/llm/config/preview?task_type=&model=`.

    `acting` names the policies that a request goes through, outermost first. `find` raises ClientError for a name that leads
    nowhere (404), or nowhere for a principal (403).
    """

    def __init__(
        self,
        resolve: Resolve,
        hierarchy: Hierarchy,
        listing: Listing,
        acting: Sequence[str],
        find: Callable[[str, Principal], object],
    ) -> None:
        self._resolve = resolve
        self._hierarchy = hierarchy
        self._listing = listing
        self._acting = list(acting)
        self._find = find

    async def __call__(self, call: Call) -> Reply:
        if call.path == _PREVIEW:
            return _json(await self._preview(call))
        return _json({"object": "list", "data": self._models(call, await self._listing())})

    def _models(self, call: Call, listed: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """The models that this caller may ask for, with what the configuration says of them."""
        hierarchy = self._hierarchy
        uses = hierarchy.uses()
        names = sorted({*listed, *hierarchy.params, *hierarchy.context_windows, *uses})
        found = []
        for name in filter(hierarchy.allows, names):
            every = self._listing.providers(name)
            # What nobody serves is still what the configuration names, to those who are not limited in their providers.
            providers = usable(call.principal, name, every or ("",))
            if providers:
                found.append(
                    {
                        "id": name,
                        "object": "llm.model",
                        "owned_by": seen(listed[name], providers, every)["owned_by"] if name in listed else None,
                        "providers": list(providers) if every else [],
                        "listed": name in listed,
                        "params": dict(hierarchy.params.get(name, {})),
                        "context_window": hierarchy.context_windows.get(name),
                        "used_as": uses.get(name, []),
                    }
                )
        return found

    async def _preview(self, call: Call) -> dict[str, Any]:
        query = parse_qs(call.query)
        task_type, model = _named(query, "task_type", TASK_TYPE_LENGTH), _named(query, "model", MODEL_LENGTH)
        resolved = await self._resolve.preview(call, task_type, model)
        chosen = resolved.model or model
        if chosen is not None:
            self._find(chosen, call.principal)
        return {
            "object": "llm.config",
            "task_type": resolved.task_type,
            "known_task_type": resolved.is_known_task_type,
            "source": resolved.source,
            "values": described(resolved),
            "policies": self._acting,
        }


def _named(query: Mapping[str, list[str]], name: str, most: int) -> str | None:
    """A name in the query, None where it is left out. Raises ClientError (400)."""
    values = query.get(name)
    if values is None:
        return None
    if not is_name(values[-1], most):
        raise invalid(name, f"a name of at most {most} printable characters")
    return values[-1]


def _json(value: dict[str, Any]) -> Reply:
    return Reply(200, {"content-type": "application/json"}, orjson.dumps(value))
