"""The models that the hierarchy knows, as a caller sees them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from policies.resolve import Resolve
from proxy.core.board import Board
from proxy.core.call import ANONYMOUS, Principal, Target
from proxy.core.errors import ClientError
from proxy.core.hierarchy import Hierarchy
from proxy.core.metrics import Registry
from proxy.core.protocols import Services
from proxy.core.resolved import Preferences
from proxy.http.llm import Llm
from proxy.routing.router import Router
from proxy.routing.table import Table
from tests.core.doubles import HandClock, make_call
from tests.policies.routes import Patient

HIERARCHY = Hierarchy(
    Preferences(model="fast", fallback_model="unserved"),
    context_windows={"fast": 8192},
    allowed_models=("fast", "org/*", "unserved", "hidden"),
)
TABLE = Table({name: Target("east", name, name) for name in ("fast", "hidden")}, frozenset({"east"}), None)
ROUTER = Router(TABLE, {"east": Patient()}, Board(), HandClock())
PROVIDERS = {"fast": ("east", "west"), "org/model": ("east",), "barred": ("east",)}


class Listed:
    async def __call__(self) -> dict[str, dict[str, Any]]:
        return {name: {"id": name, "object": "model", "owned_by": providers[0]} for name, providers in PROVIDERS.items()}

    def providers(self, model: str) -> tuple[str, ...]:
        return PROVIDERS.get(model, ())


async def models(principal: Principal = ANONYMOUS) -> dict[str, dict[str, Any]]:
    resolve = Resolve(HIERARCHY, Services(HandClock(), Registry(), lambda _fields: None))
    answering = Llm(resolve, HIERARCHY, Listed(), [], ROUTER.candidates)
    reply = await answering(make_call("llm", method="GET", path="/llm/models", principal=principal))
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


async def preview(query: str, principal: Principal = ANONYMOUS, hierarchy: Hierarchy | None = HIERARCHY) -> dict[str, Any]:
    resolve = Resolve(hierarchy, Services(HandClock(), Registry(), lambda _fields: None))
    call = make_call("llm", method="GET", path="/llm/config/preview", query=query, principal=principal)
    found: dict[str, Any] = orjson.loads((await Llm(resolve, hierarchy or Hierarchy(), Listed(), [], ROUTER.candidates)(call)).body)
    return found["values"]


@pytest.mark.parametrize(
    ("query", "principal", "hierarchy", "refusal"),
    [
        ("model=zz", ANONYMOUS, None, (404, "model_not_found")),
        ("model=barred", ANONYMOUS, HIERARCHY, (403, "model_not_allowed")),
        ("model=hidden", Principal("ann", models=("fast",)), HIERARCHY, (403, "model_not_allowed")),
        ("", Principal("ann", models=("hidden",)), HIERARCHY, (403, "model_not_allowed")),
        ("model=fast", Principal("ann", providers=frozenset({"west"})), None, (403, "model_not_allowed")),
        ("task_type=B", Principal("ann", task_types=frozenset({"A"})), HIERARCHY, (403, "permission_denied")),
        ("model=fast", Principal("ann", may_set=frozenset()), None, (403, "permission_denied")),
        ("model=auto", ANONYMOUS, replace(HIERARCHY, alias="auto", system=Preferences()), (404, "model_not_found")),
    ],
)
async def test_a_preview_refuses_what_a_chat_would_be_refused(
    query: str, principal: Principal, hierarchy: Hierarchy | None, refusal: tuple[int, str]
):
    with pytest.raises(ClientError) as refused:
        await preview(query, principal, hierarchy)
    assert (refused.value.status, refused.value.code) == refusal


@pytest.mark.parametrize(
    ("query", "principal"),
    [
        ("", Principal("ann", models=("fast",), providers=frozenset({"east"}))),
        ("task_type=A", Principal("ann", task_types=frozenset({"A"}))),
        ("model=hidden", Principal("ann", may_set=frozenset())),
    ],
)
async def test_a_preview_shows_a_limited_key_what_it_would_get(query: str, principal: Principal):
    assert (await preview(query, principal))["model"] == {"value": "fast", "source": "system"}
