"""The views of several workers, and what they come to together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from proxy.core.metrics import Registry
from proxy.health import Health
from proxy.http.admin import admin_app
from proxy.http.api import Desk
from proxy.http.providers import Providers, merged, told

KEY = "an administrator's key"


def target(model: str | None = "x", **members: Any) -> dict[str, Any]:
    closed = {"state": "closed", "until": None, "failures": 0, "ejections": 0, "in_flight": 0, "first_token_seconds": None}
    return {"model": model, "serves": ["fast"], **closed, **members}


def standing(worker: int, *targets: dict[str, Any], health: Health | None = None, **members: Any) -> dict[str, Any]:
    provider = {"name": "a", "kind": "openai", "health": asdict(health or Health()), "limit": None, "targets": list(targets)}
    return {"worker": worker, "database": "up", "redis": None, "providers": [{**provider, **members}]}


UP = Health("up", 100.0, 200.0, 0.1, models=3, unlisted=("z",))


def test_the_worst_of_all_workers_is_shown_beside_the_view_of_each():
    views = [
        standing(0, target(in_flight=2, first_token_seconds=0.5, failures=1), limit=10),
        standing(1, target(state="open", until=1000.0, in_flight=1, ejections=2, first_token_seconds=0.7), limit=20),
        standing(2, target(state="half_open", serves=[])),
    ]
    [found] = merged(views)
    [one] = found.targets
    assert (one.state, one.in_flight, one.failures, one.ejections, one.first_token_seconds) == ("open", 3, 1, 2, 0.7)
    assert one.until is not None and one.until.timestamp() == 1000.0
    assert [(each.worker, each.state, each.in_flight) for each in one.workers] == [(0, "closed", 2), (1, "open", 1), (2, "half_open", 0)]
    assert (found.limit, found.in_flight, one.serves) == (30, 3, ["fast"])


def test_a_target_that_one_worker_alone_knows_is_shown_once():
    [found] = merged([standing(0, target("x")), standing(1, target("x"), target("y"), target(None))])
    assert [(each.model, [view.worker for view in each.workers]) for each in found.targets] == [("x", [0, 1]), ("y", [1]), (None, [1])]


def test_the_newest_check_is_what_is_known_of_a_provider():
    [found] = merged([standing(0, health=Health("down", 1.0, 150.0)), standing(1, health=UP), standing(2)])
    assert (found.health.state, found.health.models, found.health.unlisted_models) == ("up", 3, ["z"])
    assert found.limit is None


@pytest.fixture
async def client() -> AsyncIterator[TestClient]:
    async def numbers() -> Registry:
        return Registry()

    async def standings() -> list[dict[str, Any]]:
        return [standing(0, target(), health=UP), {**standing(1, target()), "database": "down"}]

    async def verbose() -> dict[str, Any]:
        return await told(standings)

    app = admin_app(numbers, lambda: {"status": "ready"}, key=KEY, desk=lambda: Desk(Providers(standings).endpoints(), verbose))
    async with TestClient(TestServer(app)) as found:
        yield found


HEADERS = {"Authorization": f"Bearer {KEY}"}


async def test_providers_are_shown_to_administrators(client: TestClient):
    assert (await client.get("/admin/providers")).status == 401
    found = await (await client.get("/admin/providers", headers=HEADERS)).json()
    assert [each["name"] for each in found["data"]] == ["a"]
    assert found["data"][0]["health"]["since"] == "1970-01-01T00:01:40Z"
    assert (await (await client.get("/admin/providers/a", headers=HEADERS)).json()) == found["data"][0]
    answer = await client.get("/admin/providers/b", headers=HEADERS)
    assert (answer.status, (await answer.json())["error"]["code"]) == (404, "not_found")


async def test_they_are_described(client: TestClient):
    document = await (await client.get("/openapi.json", headers=HEADERS)).json()
    assert {"/admin/providers", "/admin/providers/{name}"} <= set(document["paths"])
    assert "unlisted_models" in document["components"]["schemas"]["HealthShown"]["properties"]


async def test_a_verbose_readiness_needs_the_key_and_tells_the_worst_of_all_workers(client: TestClient):
    assert (await client.get("/readyz?verbose")).status == 401
    assert await (await client.get("/readyz")).json() == {"status": "ready"}
    found = await (await client.get("/readyz?verbose", headers=HEADERS)).json()
    assert (found["status"], found["providers"]["a"]["state"], found["database"], found["redis"]) == ("ready", "up", "down", None)
