"""Users, keys, preferences and the audit log over HTTP, upon a real SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import insert
from yarl import URL

from proxy.core.clock import SystemClock
from proxy.core.keys import digest, parse
from proxy.core.metrics import Registry
from proxy.http.admin import admin_app
from proxy.http.administration import Administration, Records
from proxy.http.api import Desk
from proxy.storage.audit import Audit
from proxy.storage.database import Database
from proxy.storage.keys import Keys, NewKey
from proxy.storage.limits import Limits
from proxy.storage.preferences import PreferenceTable
from proxy.storage.tables import users
from proxy.storage.users import Users
from tests.support.told import Told

KEY = "an administrator's key"
PEPPER = b"p" * 32


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(f"sqlite:///{tmp_path}/comporta.db", SystemClock())
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def records(database: Database, told: Told) -> Records:
    return Records(Users(database), Keys(database), PreferenceTable(database), Audit(database), PEPPER, told, NewKey, Limits)


@pytest.fixture
async def client(records: Records) -> AsyncIterator[TestClient]:
    async def numbers() -> Registry:
        return Registry()

    async def opened() -> Records:
        return records

    app = admin_app(numbers, lambda: {"status": "ready"}, key=KEY, desk=lambda: Desk(Administration(opened).endpoints()))
    async with TestClient(TestServer(app), headers={"Authorization": f"Bearer {KEY}"}) as found:
        yield found


@pytest.fixture
async def ada(client: TestClient) -> str:
    answer = await client.post("/admin/users", json={"id": "ada", "tier": "premium"})
    assert answer.status == 201
    return "ada"


async def test_a_user_is_made_changed_and_deleted(client: TestClient, ada: str, told: Told):
    assert (await (await client.get("/admin/users/ada")).json())["tier"] == "premium"
    changed = await client.patch("/admin/users/ada", json={"name": "Ada", "active": False})
    assert [(await changed.json())[name] for name in ("name", "tier", "active")] == ["Ada", "premium", False]
    assert (await client.delete("/admin/users/ada")).status == 204
    assert (await client.get("/admin/users/ada")).status == 404
    assert told == [("user", "ada"), ("user", "ada")]


async def test_whatever_a_name_holds_it_can_be_asked_for(client: TestClient, database: Database):
    name = "a\nb/c?d"
    assert (await client.post("/admin/users", json={"id": name})).status == 400
    # Before that was refused there may have been one.
    await database.change("root", "user.create", "user", None, None, insert(users).values(id=name))
    path = URL(f"/admin/users/{quote(name, safe='')}", encoded=True)
    assert (await (await client.get(path)).json())["id"] == name
    assert (await client.delete(path)).status == 204


async def test_a_user_is_made_once(client: TestClient, ada: str):
    assert (await client.post("/admin/users", json={"id": ada})).status == 409


async def test_users_come_in_pages(client: TestClient):
    for name in ("a", "b", "c"):
        await client.post("/admin/users", json={"id": name})
    page = await (await client.get("/admin/users?limit=2")).json()
    rest = await (await client.get(f"/admin/users?after={page['data'][-1]['id']}")).json()
    assert [[user["id"] for user in found["data"]] for found in (page, rest)] == [["a", "b"], ["c"]]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=%C2%B2", "page=2"])
async def test_a_page_that_makes_no_sense_is_refused(client: TestClient, query: str):
    assert (await client.get(f"/admin/users?{query}")).status == 400


async def test_a_key_is_shown_once_and_is_the_one_that_is_stored(client: TestClient, ada: str, records: Records):
    answer = await client.post("/admin/keys", json={"user_id": ada, "limits": {"models": ["gpt-*"], "grants": ["files"]}})
    made = await answer.json()
    assert (answer.status, answer.headers["Cache-Control"], parse(made["key"])) == (201, "no-store", made["id"])
    known = await records.keys.find(made["id"])
    assert known is not None
    assert known.digest == digest(made["key"], PEPPER)
    shown = await client.get(f"/admin/keys/{made['id']}")
    assert made["key"] not in await shown.text()
    assert (await shown.json())["limits"]["grants"] == ["files"]


async def test_a_key_for_nobody_is_refused(client: TestClient):
    assert (await client.post("/admin/keys", json={"user_id": "nobody"})).status in (400, 404, 409)


async def test_a_revoked_key_lets_nobody_in_and_everybody_is_told(client: TestClient, ada: str, records: Records, told: Told):
    made = await (await client.post("/admin/keys", json={"user_id": ada})).json()
    revoked = await (await client.post(f"/admin/keys/{made['id']}/revoke")).json()
    assert revoked["revoked_at"] is not None
    assert await records.keys.find(made["id"]) is None
    assert told == [("key", made["id"])]


async def test_an_overlap_is_a_number(client: TestClient, ada: str):
    key = await (await client.post("/admin/keys", json={"user_id": ada})).json()
    refused = await client.post(f"/admin/keys/{key['id']}/rotate", json={"overlap_seconds": True})
    assert (refused.status, (await refused.json())["error"]["param"]) == (400, "overlap_seconds")


async def test_a_rotated_key_and_its_successor_overlap(client: TestClient, ada: str, records: Records):
    old = await (await client.post("/admin/keys", json={"user_id": ada, "limits": {"models": ["a"]}})).json()
    answer = await client.post(f"/admin/keys/{old['id']}/rotate", json={"overlap_seconds": 60})
    new = await answer.json()
    assert (answer.status, new["limits"]["models"]) == (201, ["a"])
    assert all([await records.keys.find(key["id"]) is not None for key in (old, new)])
    again = await client.post(f"/admin/keys/{old['id']}/rotate", json={})
    assert again.status == 409


async def test_only_what_is_named_of_a_key_is_changed(client: TestClient, ada: str):
    made = await (await client.post("/admin/keys", json={"user_id": ada, "name": "one", "limits": {"models": ["a"]}})).json()
    changed = await (await client.patch(f"/admin/keys/{made['id']}", json={"name": "two"})).json()
    assert (changed["name"], changed["limits"]["models"]) == ("two", ["a"])
    refused = await client.patch(f"/admin/keys/{made['id']}", json={"user_id": "somebody"})
    assert (refused.status, (await refused.json())["error"]["param"]) == (400, "user_id")


async def test_two_who_change_a_key_in_the_same_moment_both_change_it(client: TestClient, ada: str):
    path = f"/admin/keys/{(await (await client.post('/admin/keys', json={'user_id': ada})).json())['id']}"
    changes: list[dict[str, Any]] = [{"models": ["a"]}, {"addresses": ["10.0.0.0/8"]}, {"grants": ["files"]}]
    await asyncio.gather(*(client.patch(path, json={"limits": change}) for change in changes))
    limits = (await (await client.get(path)).json())["limits"]
    assert (limits["models"], limits["addresses"], limits["grants"]) == (["a"], ["10.0.0.0/8"], ["files"])


async def test_only_the_limits_that_are_named_are_changed_and_null_removes_one(client: TestClient, ada: str):
    limits: dict[str, Any] = {"models": ["a", "b"], "addresses": ["10.0.0.0/8"], "grants": ["files"]}
    path = f"/admin/keys/{(await (await client.post('/admin/keys', json={'user_id': ada, 'limits': limits})).json())['id']}"
    for change in ({"models": ["a"]}, {"addresses": None}):
        changed = await (await client.patch(path, json={"limits": change})).json()
        limits |= change
        assert {name: changed["limits"][name] for name in limits} == limits


OLD_END, NEW_END = "2090-01-01T00:00:00Z", "2091-01-01T00:00:00Z"


@pytest.mark.parametrize(("asked", "end"), [({}, OLD_END), ({"expires_at": None}, None), ({"expires_at": NEW_END}, NEW_END)])
async def test_a_successor_ends_when_the_old_key_would_unless_another_end_is_asked_for(client: TestClient, ada: str, asked: Any, end: Any):
    old = await (await client.post("/admin/keys", json={"user_id": ada, "expires_at": OLD_END})).json()
    new = await (await client.post(f"/admin/keys/{old['id']}/rotate", json=asked)).json()
    assert new["expires_at"] == end


@pytest.mark.parametrize("end", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "0001-01-01T00:00:00", "2001-01-01T00:00:00Z"])
async def test_an_end_that_makes_no_sense_is_refused(client: TestClient, ada: str, end: str):
    refused = await client.post("/admin/keys", json={"user_id": ada, "expires_at": end})
    assert (refused.status, (await refused.json())["error"]["param"]) == (400, "expires_at")


@pytest.mark.parametrize("end", ["2090-01-01T00:00:00", "2090-01-01 00:00", "2090-01-01", True])
async def test_an_end_without_its_offset_from_utc_is_refused_with_one_that_is_good(client: TestClient, ada: str, end: Any):
    key = await (await client.post("/admin/keys", json={"user_id": ada})).json()
    for refused in (
        await client.post("/admin/keys", json={"user_id": ada, "expires_at": end}),
        await client.patch(f"/admin/keys/{key['id']}", json={"expires_at": end}),
        await client.post(f"/admin/keys/{key['id']}/rotate", json={"expires_at": end}),
    ):
        error = (await refused.json())["error"]
        assert (refused.status, error["param"]) == (400, "expires_at")
        assert "2027-01-31T00:00:00Z" in error["message"]


@pytest.mark.parametrize(("end", "kept"), [("2090-01-01T00:00:00+09:00", "2089-12-31T15:00:00Z"), (3786912000, "2090-01-01T00:00:00Z")])
async def test_an_end_is_an_instant_wherever_the_gateway_runs(client: TestClient, ada: str, end: Any, kept: str):
    made = await (await client.post("/admin/keys", json={"user_id": ada, "expires_at": end})).json()
    assert made["expires_at"] == kept


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"operations": ["chat", "chatt"]}, "limits.operations: there is no 'chatt' here; did you mean 'chat'?"),
        ({"operations": ["files"]}, "limits.operations: there is no 'files' here; `grants` has it"),
        ({"grants": ["fils"]}, "limits.grants: there is no 'fils' here; did you mean 'files'?"),
        ({"grants": ["chat"]}, "limits.grants: there is no 'chat' here; `operations` has it"),
        ({"may_set": ["modle"]}, "limits.may_set: there is no 'modle' here; did you mean 'model'?"),
        ({"modles": ["a"]}, "limits.modles: unknown member; did you mean 'models'?"),
    ],
)
async def test_a_limit_that_no_request_meets_is_refused_with_the_nearest(client: TestClient, ada: str, limits: dict[str, Any], said: str):
    path = f"/admin/keys/{(await (await client.post('/admin/keys', json={'user_id': ada})).json())['id']}"
    for refused in (
        await client.post("/admin/keys", json={"user_id": ada, "limits": limits}),
        await client.patch(path, json={"limits": limits}),
    ):
        assert (refused.status, (await refused.json())["error"]["message"][: len(said)]) == (400, said)


async def test_a_misspelt_preference_is_refused_with_the_nearest(client: TestClient, ada: str):
    refused = await client.put(f"/admin/users/{ada}/llm-config", json={"task_type_configs": {"REPORT": {"modle": "m"}}})
    assert (await refused.json())["error"]["message"].startswith("task_type_configs.REPORT.modle: unknown member; did you mean 'model'?")


async def test_preferences_are_put_shown_and_deleted(client: TestClient, ada: str, told: Told):
    wanted = {"preferred_model": "m", "timeout_seconds": 120, "task_type_configs": {"REPORT": {"max_retries": 0}}}
    path = f"/admin/users/{ada}/llm-config"
    put = await (await client.put(path, json=wanted)).json()
    assert (put["preferred_model"], put["fallback_model"], put["task_type_configs"]["REPORT"]["max_retries"]) == ("m", None, 0)
    assert await (await client.get(path)).json() == put
    assert (await client.delete(path)).status == 204
    assert (await (await client.get(path)).json())["preferred_model"] is None
    assert told == [("user", "ada"), ("user", "ada")]


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": 301}, "timeout_seconds"),
        ({"max_retries": 11}, "max_retries"),
        ({"preferred_model": "x" * 101}, "preferred_model"),
        ({"task_type_configs": {"A": {"max_retries": -1}}}, "task_type_configs.A.max_retries"),
        ({"timeout_seconds": True}, "timeout_seconds"),
        ({"max_retries": False}, "max_retries"),
        ({"task_type_configs": {"A": {"max_retries": True}}}, "task_type_configs.A.max_retries"),
        ({"task_type_configs": {"A": {"timeout_seconds": True}}}, "task_type_configs.A.timeout_seconds"),
    ],
)
async def test_preferences_out_of_bounds_are_named(client: TestClient, ada: str, wanted: dict[str, object], param: str):
    answer = await client.put(f"/admin/users/{ada}/llm-config", json=wanted)
    assert (answer.status, (await answer.json())["error"]["param"]) == (400, param)


async def test_every_change_stands_in_the_audit_log_without_the_key(client: TestClient, ada: str):
    made = await (await client.post("/admin/keys", json={"user_id": ada})).json()
    text = await (await client.get("/admin/audit")).text()
    assert made["key"] not in text
    assert made["key"][-20:] not in text
    rows = (await (await client.get("/admin/audit")).json())["data"]
    assert [(row["actor"], row["action"]) for row in rows] == [("admin", "key.create"), ("admin", "user.create")]
    assert await (await client.get("/admin/audit/verify")).json() == {"whole": True, "first_broken": None}


async def test_nothing_is_served_without_the_administrators_key(client: TestClient, records: Records):
    stranger = {"Authorization": "Bearer sk-cmp-something"}
    for endpoint in Administration(records).endpoints():  # type: ignore[arg-type]  # only its table is read
        path = endpoint.path.replace("{id}", "x")
        answer = await client.request(endpoint.method, path, headers=stranger)
        assert answer.status == 401, (endpoint.method, path)
