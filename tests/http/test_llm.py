"""The models that the hierarchy knows, as a caller sees them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from policies.resolve import Resolve
from proxy.core.call import ANONYMOUS, Principal
from proxy.core.errors import ClientError
from proxy.core.hierarchy import Hierarchy
from proxy.core.metrics import Registry
from proxy.core.protocols import Services
from proxy.core.resolved import Preferences
from proxy.http.llm import Llm
from proxy.routing.table import Table
from tests.core.doubles import HandClock, make_call

HIERARCHY = Hierarchy(
    Preferences(model="fast", fallback_model="unserved"),
    context_windows={"fast": 8192},
    allowed_models=("fast", "org/*", "unserved", "hidden"),
)
PROVIDERS = {"fast": ("east", "west"), "org/model": ("east",), "barred": ("east",)}


class Listed:
    async def __call__(self) -> dict[str, dict[str, Any]]:
        return {name: {"id": name, "object": "model", "owned_by": providers[0]} for name, providers in PROVIDERS.items()}

    def providers(self, model: str) -> tuple[str, ...]:
        return PROVIDERS.get(model, ())


async def models(principal: Principal = ANONYMOUS) -> dict[str, dict[str, Any]]:
    resolve = Resolve(HIERARCHY, Services(HandClock(), Registry(), lambda _fields: None))
    reply = await Llm(resolve, HIERARCHY, Listed(), [], str)(make_call("llm", method="GET", path="/llm/models", principal=principal))
    return {model["id"]: model for model in orjson.loads(reply.body)["data"]}


async def test_what_is_listed_or_configured_and_allowed_is_shown_with_its_use():
    found = await models()
    assert list(found) == ["fast", "org/model", "unserved"]
    assert found["fast"] == {
        "id": "fast",
        "object": "llm.model",
        "owned_by": "east",
        "providers": ["east", "west"],
        "listed": True,
        "params": {},
        "context_window": 8192,
        "used_as": ["default"],
    }
    assert (found["unserved"]["listed"], found["unserved"]["owned_by"], found["unserved"]["providers"]) == (False, None, [])


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        (Principal("ann", models=("org/*",)), ["org/model"]),
        (Principal("ann", providers=frozenset({"west"})), ["fast"]),
        (Principal("ann", models=("unserved",)), ["unserved"]),
        (Principal("ann", models=("barred",)), []),
    ],
)
async def test_a_key_sees_what_it_may_ask_for(principal: Principal, expected: list[str]):
    found = await models(principal)
    assert list(found) == expected
    if "fast" in found:
        assert (found["fast"]["owned_by"], found["fast"]["providers"]) == ("west", ["west"])


async def test_a_preview_refuses_a_model_that_leads_nowhere():
    resolve = Resolve(None, Services(HandClock(), Registry(), lambda _fields: None))
    answering = Llm(resolve, Hierarchy(), Listed(), [], Table({}, frozenset(), None).find)
    with pytest.raises(ClientError) as refused:
        await answering(make_call("llm", method="GET", path="/llm/config/preview", query="model=zz"))
    assert refused.value.code == "model_not_found"
