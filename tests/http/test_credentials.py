"""Providers' keys over HTTP, upon a real SQLite file: stored, replaced, tried, removed; no answer shows one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from proxy.core.clock import SystemClock
from proxy.core.metrics import Registry
from proxy.http.admin import admin_app
from proxy.http.api import Desk
from proxy.http.credentials import Credentials
from proxy.storage.audit import Audit
from proxy.storage.credential_store import CredentialStore
from proxy.storage.credentials import Credentials as Table
from proxy.storage.database import Database
from proxy.trial import Verdict
from proxy.vault import KeyEncryptionKey, VaultError

CANARY = "canary-7c1d-not-a-real-key"
OTHER = "canary-8d2e-not-a-real-key"
SPARE = "/admin/credentials/spare"


class Accounts:
    """The provider `up` uses `spare`; `sim` has no address."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def using(self) -> Mapping[str, Sequence[str]]:
        return {"spare": ["up"]}

    def can_be_tried(self, provider: str) -> bool:
        return provider in ("up", "other")

    async def tried(self, provider: str, secret: str) -> Verdict:
        self.asked.append((provider, secret))
        return Verdict("ok", "it works: one model: zephyr", ("zephyr",)) if secret == CANARY else Verdict("wrong_key", "copy it again")


class Vault:
    """The key-encryption key, which may be away."""

    is_there = True

    def __call__(self) -> KeyEncryptionKey:
        if not self.is_there:
            raise VaultError("credentials.key is not set")
        return KeyEncryptionKey(bytes(range(32)))


@pytest.fixture
def accounts() -> Accounts:
    return Accounts()


@pytest.fixture
def vault() -> Vault:
    return Vault()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(f"sqlite:///{tmp_path}/comporta.db", SystemClock())
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def client(database: Database, accounts: Accounts, vault: Vault) -> AsyncIterator[TestClient]:
    async def numbers() -> Registry:
        return Registry()

    async def tell(_subject: str, _name: str) -> bool:
        return True

    async def opened() -> CredentialStore:
        return CredentialStore(Table(database), vault, b"p" * 32, tell)

    app = admin_app(numbers, lambda: {"status": "ready"}, desk=lambda: Desk(Credentials(opened, accounts).endpoints()))
    async with TestClient(TestServer(app)) as found:
        yield found


async def test_a_key_is_stored_replaced_and_shown_without_itself(client: TestClient):
    first = await client.put(SPARE, json={"secret": CANARY})
    second = await client.put(SPARE, json={"secret": OTHER})
    listed = await client.get("/admin/credentials")
    one = await client.get(SPARE)
    for answer in (first, second, listed, one):
        text = await answer.text()
        assert (answer.status, CANARY in text, OTHER in text) == (200, False, False)
    made, replaced = await first.json(), await second.json()
    assert (made["version"], made["last4"], made["rotated_at"], made["used_by"]) == (1, "-key", None, ["up"])
    assert (replaced["version"], replaced["created_at"]) == (2, made["created_at"])
    assert replaced["fingerprint"] != made["fingerprint"]
    assert (await listed.json())["data"] == [await one.json()] == [replaced]


async def test_of_a_short_key_nothing_is_shown(client: TestClient):
    assert (await (await client.put(SPARE, json={"secret": "short-key"})).json())["last4"] is None


async def test_who_has_read_an_old_version_changes_nothing(client: TestClient):
    old = (await client.put(SPARE, json={"secret": CANARY})).headers["ETag"]
    new = (await client.put(SPARE, json={"secret": OTHER}, headers={"If-Match": old})).headers["ETag"]
    assert (await client.get(SPARE)).headers["ETag"] == new
    assert (await client.put(SPARE, json={"secret": CANARY}, headers={"If-Match": old})).status == 412
    assert (await client.delete(f"{SPARE}?force=true", headers={"If-Match": old})).status == 412
    assert (await client.put("/admin/credentials/new", json={"secret": CANARY}, headers={"If-Match": old})).status == 412


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (SPARE, {"secret": ""}, "secret"),
        (SPARE, {"secret": f"{CANARY}\nmore"}, "secret"),
        (SPARE, {"secret": f"{CANARY}é"}, "secret"),
        (SPARE, {"secret": CANARY * 4000}, "secret"),
        (SPARE, {"secret": [CANARY]}, "secret"),
        (SPARE, {"secret": CANARY, CANARY[:10]: 1}, None),
        (SPARE, {"key": CANARY}, None),
        ("/admin/credentials/Spare", {"secret": CANARY}, "name"),
        ("/admin/credentials/a%20b", {"secret": CANARY}, "name"),
    ],
)
async def test_what_can_be_no_key_is_refused_without_being_repeated(client: TestClient, path: str, body: object, param: str | None):
    answer = await client.put(path, json=body)
    assert (answer.status, CANARY in await answer.text()) == (400, False)
    if param is not None:
        assert (await answer.json())["error"]["param"] == param
    assert (await (await client.get("/admin/credentials")).json())["data"] == []


async def test_a_key_in_use_is_removed_by_force_only(client: TestClient):
    for name in ("spare", "other"):
        await client.put(f"/admin/credentials/{name}", json={"secret": CANARY})
    refused = await client.delete(SPARE)
    assert (refused.status, (await refused.json())["error"]["code"]) == (409, "in_use")
    assert "up" in await refused.text()
    assert (await client.delete(f"{SPARE}?force=perhaps")).status == 400
    assert (await client.delete(f"{SPARE}?force=true")).status == 204
    assert (await client.delete("/admin/credentials/other")).status == 204
    assert [(await client.request(method, SPARE)).status for method in ("GET", "DELETE")] == [404, 404]


async def test_a_key_is_tried_on_who_uses_it_or_on_the_one_that_is_named(client: TestClient, accounts: Accounts):
    await client.put(SPARE, json={"secret": CANARY})
    found = (await (await client.post(f"{SPARE}/test", json={})).json())["data"]
    assert found == [{"provider": "up", "outcome": "ok", "said": "it works: one model: zephyr", "models": ["zephyr"]}]
    await client.put("/admin/credentials/other", json={"secret": OTHER})
    (verdict,) = (await (await client.post("/admin/credentials/other/test", json={"provider": "other"})).json())["data"]
    assert (verdict["provider"], verdict["outcome"], verdict["models"]) == ("other", "wrong_key", None)
    assert accounts.asked == [("up", CANARY), ("other", OTHER)]


@pytest.mark.parametrize(("name", "body", "status"), [("other", {}, 400), ("spare", {"provider": "sim"}, 400), ("nobody", {}, 404)])
async def test_what_cannot_be_tried_is_told(client: TestClient, accounts: Accounts, name: str, body: object, status: int):
    for each in ("spare", "other"):
        await client.put(f"/admin/credentials/{each}", json={"secret": CANARY})
    assert (await client.post(f"/admin/credentials/{name}/test", json=body)).status == status
    assert accounts.asked == []


async def test_without_the_key_that_encrypts_the_request_is_told_what_is_missing(client: TestClient, vault: Vault):
    await client.put(SPARE, json={"secret": CANARY})
    vault.is_there = False
    for answer in (await client.put(SPARE, json={"secret": OTHER}), await client.post(f"{SPARE}/test", json={})):
        assert (answer.status, (await answer.json())["error"]["code"]) == (409, "no_credentials_key")
    assert (await client.get(SPARE)).status == 200


async def test_each_change_stands_in_the_audit_log_by_its_fingerprint(client: TestClient, database: Database):
    for secret in (CANARY, CANARY, OTHER):
        await client.put(SPARE, json={"secret": secret})
    await client.delete(f"{SPARE}?force=true")
    rows = await Audit(database).list()
    assert [(row.actor, row.action) for row in rows] == [("local", f"credential.{done}") for done in ("delete", "rotate", "rotate", "add")]
    prints = [row.after["fingerprint"] for row in reversed(rows) if row.after is not None]
    assert prints[0] == prints[1] != prints[2]
    assert CANARY not in repr(rows)
    assert await Audit(database).verify() is None


async def test_the_description_says_that_a_key_is_only_written(client: TestClient):
    described = await (await client.get("/openapi.json")).json()
    assert set(described["paths"][SPARE.replace("spare", "{name}")]) == {"get", "put", "delete"}
    shapes = described["components"]["schemas"]
    assert shapes["CredentialSecret"]["properties"]["secret"]["writeOnly"] is True
    assert "secret" not in shapes["CredentialShown"]["properties"]
