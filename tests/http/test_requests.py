"""The last requests over HTTP: listed, explained, and refused where there is none of that id."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from proxy.core.metrics import Registry
from proxy.core.recent import Recent, explained, summary
from proxy.http.admin import admin_app
from proxy.http.api import Desk
from proxy.http.requests import Requests
from tests.core.doubles import make_call
from tests.core.test_recent import eventful_call

EPOCH = 1_700_000_000.0
KEY = "an administrator's key"


class Memory:
    """What one process knows."""

    def __init__(self) -> None:
        self.recent = Recent(10)
        self.asked: list[Any] = []

    async def requests(self, most: int) -> list[dict[str, Any]]:
        self.asked.append(most)
        return [summary(each, EPOCH) for each in self.recent.newest(most)]

    async def explain(self, id: str) -> dict[str, Any] | None:
        self.asked.append(id)
        found = self.recent.find(id)
        return None if found is None else {**explained(found, EPOCH), "worker": 1}


@pytest.fixture
def memory() -> Memory:
    found = Memory()
    found.recent.note(eventful_call(), 200, "ok", None, 1002.0)
    found.recent.note(make_call("unknown", id="req_2", started=1001.0), 404, "client_error", "unknown_url", 1002.0)
    return found


@pytest.fixture
async def client(memory: Memory) -> AsyncIterator[TestClient]:
    async def numbers() -> Registry:
        return Registry()

    app = admin_app(numbers, lambda: {"status": "ready"}, key=KEY, desk=lambda: Desk(Requests(memory).endpoints()))
    async with TestClient(TestServer(app), headers={"Authorization": f"Bearer {KEY}"}) as found:
        yield found


async def test_the_last_requests_are_listed_the_newest_first(client: TestClient):
    listed = (await (await client.get("/admin/requests")).json())["data"]
    assert [(each["id"], each["status"], each["at"]) for each in listed] == [
        ("req_2", 404, "2023-11-14T22:30:01Z"),
        ("req_1", 200, "2023-11-14T22:30:00Z"),
    ]


async def test_a_request_that_served_is_explained_in_full(client: TestClient):
    answer = await client.get("/admin/requests/req_1/explain")
    told = await answer.json()
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert (told["worker"], told["retries"], [each["why"] for each in told["attempts"]]) == (1, 1, ["first", "retry", "fallback"])


async def test_a_request_that_came_nowhere_is_explained_too(client: TestClient):
    told = await (await client.get("/admin/requests/req_2/explain")).json()
    assert (told["error"], told["served"], told["attempts"], told["configuration"]) == ("unknown_url", None, [], None)


@pytest.mark.parametrize("id", ["req_3", "%00", "x" * 3000])
async def test_an_id_that_nobody_knows_is_not_found(client: TestClient, memory: Memory, id: str):
    answer = await client.get(f"/admin/requests/{id}/explain")
    assert (answer.status, (await answer.json())["error"]["code"]) == (404, "not_found")
    assert all(len(asked) < 200 for asked in memory.asked)


@pytest.mark.parametrize(
    ("limit", "status"), [("1", 200), ("1000", 200), ("0", 400), ("1001", 400), ("x", 400), ("-1", 400), ("\u0661", 400)]
)
async def test_the_list_has_bounds(client: TestClient, memory: Memory, limit: str, status: int):
    assert (await client.get("/admin/requests", params={"limit": limit})).status == status
    assert memory.asked == ([int(limit)] if status == 200 else [])


async def test_a_stranger_sees_no_request(client: TestClient, memory: Memory):
    for path in ("/admin/requests", "/admin/requests/req_1/explain"):
        answer = await client.get(path, headers={"Authorization": "Bearer wrong"})
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="comporta"'
    assert memory.asked == []
