"""The table of administrative endpoints: who may ask, what is checked, what is described."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import BaseModel, Field, field_serializer

from proxy.core.metrics import Registry
from proxy.http.admin import admin_app
from proxy.http.api import Asked, Desk, Endpoint, openapi
from proxy.http.guard import GUARD

KEY = "an administrator's key"
KEYLESS = ("/healthz", "/readyz", "/openapi.json", "/admin/docs")


class Lamp(BaseModel):
    name: str
    watts: int = Field(gt=0)


class Thread(BaseModel):
    """Says whether it is written in the event loop's thread."""

    is_loop: bool = True

    @field_serializer("is_loop")
    def _written(self, _is_loop: bool) -> bool:
        return threading.current_thread() is threading.main_thread()


def endpoints() -> list[Endpoint]:
    kept = {"desk": Lamp(name="desk", watts=5)}

    async def show(asked: Asked) -> Lamp:
        return kept[asked.path["name"]]

    async def put(asked: Asked) -> Lamp:
        asked.require(kept.get(asked.path["name"]))
        kept[asked.path["name"]] = asked.body
        return asked.body

    async def remove(asked: Asked) -> None:
        del kept[asked.path["name"]]

    async def thread(_asked: Asked) -> Thread:
        return Thread()

    return [
        Endpoint("GET", "/thread", "Where answers are written.", thread, Thread),
        Endpoint("GET", "/lamps/{name}", "One lamp.", show, Lamp, query=(("unit", "what watts are shown in"),)),
        Endpoint("PUT", "/lamps/{name}", "Set a lamp.", put, Lamp, Lamp),
        Endpoint("DELETE", "/lamps/{name}", "Remove a lamp.", remove),
    ]


@pytest.fixture(params=[None, KEY], ids=["no key", "key"])
def key(request: pytest.FixtureRequest) -> str | None:
    return request.param


@pytest.fixture
async def client(key: str | None) -> AsyncIterator[TestClient]:
    async def numbers() -> Registry:
        return Registry()

    app = admin_app(numbers, lambda: {"status": "ready"}, key=key, desk=lambda: Desk(endpoints()))
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with TestClient(TestServer(app), headers=headers) as found:
        yield found


@pytest.mark.parametrize("shown", ["", "Bearer ", "Bearer wrong", "Basic " + KEY, "Bearer " + KEY + "x"])
async def test_with_a_key_everything_but_health_asks_for_it(client: TestClient, key: str | None, shown: str):
    headers = {"Authorization": shown}
    answers = [await client.get(path, headers=headers) for path in ("/lamps/desk", "/metrics")]
    assert [answer.status for answer in answers] == ([200, 200] if key is None else [401, 401])
    assert [(await client.get(path, headers=headers)).status for path in KEYLESS] == [200] * len(KEYLESS)
    if key is not None:
        assert KEY not in await answers[0].text()


async def test_another_key_is_asked_for_from_the_moment_it_is_given(client: TestClient, key: str | None):
    client.app[GUARD].ask_for("the next one")
    assert [(await client.get(path)).status for path in ("/lamps/desk", "/metrics")] == [401, 401]
    shown = {"Authorization": "Bearer the next one"}
    assert [(await client.get(path, headers=shown)).status for path in ("/lamps/desk", "/metrics")] == [200, 200]
    client.app[GUARD].ask_for(key)
    assert (await client.get("/lamps/desk")).status == 200


@pytest.mark.parametrize(("host", "status"), [("evil.example:8081", 403), ("localhost", 200), ("[::1]:8081", 200), ("127.0.0.1:1", 200)])
async def test_without_a_key_only_this_machine_by_its_own_name_is_answered(client: TestClient, key: str | None, host: str, status: int):
    answer = await client.get("/lamps/desk", headers={"Host": host})
    assert answer.status == (status if key is None else 200)


async def test_a_body_that_a_foreign_page_could_send_unasked_is_refused(client: TestClient):
    answer = await client.put("/lamps/desk", data=b'{"name":"desk","watts":7}', headers={"Content-Type": "text/plain"})
    assert answer.status == 415


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        (b"{", "invalid_json", None),
        (b'{"name":"desk","watts":0}', "invalid_value", "watts"),
        (b'{"name":"desk"}', "invalid_value", "watts"),
    ],
)
async def test_a_wrong_body_is_named(client: TestClient, body: bytes, code: str, named: str | None):
    answer = await client.put("/lamps/desk", data=body, headers={"Content-Type": "application/json"})
    error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["param"]) == (400, code, named)


async def test_an_answer_is_written_in_a_thread(client: TestClient):
    assert await (await client.get("/thread")).json() == {"is_loop": False}


async def test_an_unknown_parameter_is_refused(client: TestClient):
    assert (await client.get("/lamps/desk?unit=mW")).status == 200
    answer = await client.get("/lamps/desk?units=mW")
    error = (await answer.json())["error"]
    assert (answer.status, error["param"], "did you mean 'unit'?" in error["message"]) == (400, "units", True)


async def test_what_has_changed_since_it_was_read_is_not_overwritten(client: TestClient):
    tag = (await client.get("/lamps/desk")).headers["ETag"]
    first = await client.put("/lamps/desk", json={"name": "desk", "watts": 7}, headers={"If-Match": tag})
    second = await client.put("/lamps/desk", json={"name": "desk", "watts": 9}, headers={"If-Match": tag})
    assert (first.status, second.status) == (200, 412)
    assert (await (await client.get("/lamps/desk")).json())["watts"] == 7


async def test_what_answers_nothing_answers_204(client: TestClient):
    assert (await client.delete("/lamps/desk")).status == 204


def test_the_description_names_every_endpoint_with_its_models():
    described = openapi(endpoints())
    lamps = described["paths"]["/lamps/{name}"]
    assert set(lamps) == {"get", "put", "delete"}
    assert lamps["put"]["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Lamp"}
    assert [parameter["name"] for parameter in lamps["get"]["parameters"]] == ["name", "unit"]
    assert described["components"]["schemas"]["Lamp"]["properties"]["watts"]["exclusiveMinimum"] == 0
