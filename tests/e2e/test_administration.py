"""The admin plane of a running gateway: keys that open it, configurations that change it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway

ADMIN_KEY = "the administrator of this test"


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gateway]:
    config = {
        "server": {"admin_key": "env:ADMIN_KEY", "workers": request.param},
        "storage": {"url": f"sqlite:///{tmp_path}/comporta.db"},
        "policies": {"authenticate": {"open": False, "staleness": "1s"}},
    }
    found = Gateway(config, tmp_path, {"ADMIN_KEY": ADMIN_KEY})
    yield found
    found.stop()


def administer(gateway: Gateway, method: str, path: str, body: Any = None, key: str = ADMIN_KEY) -> tuple[int, Any]:
    request = urllib.request.Request(gateway.ready["admin"] + path, method=method, headers={"Authorization": f"Bearer {key}"})
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    return _asked(request)


def chat(gateway: Gateway, key: str) -> int:
    body = json.dumps({"model": "sim", "messages": [{"role": "user", "content": "hello"}]}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    return _asked(urllib.request.Request(gateway.ready["listen"] + "/v1/chat/completions", body, headers))[0]


def _asked(request: urllib.request.Request) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            data = answer.read()
            return answer.status, json.loads(data) if data else None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def test_a_key_made_by_the_administrator_opens_the_gateway_until_it_is_revoked(gateway: Gateway):
    assert chat(gateway, "sk-anything") == 401
    assert administer(gateway, "POST", "/admin/users", {"id": "ada"})[0] == 201
    status, made = administer(gateway, "POST", "/admin/keys", {"user_id": "ada"})
    assert status == 201
    assert chat(gateway, made["key"]) == 200
    assert administer(gateway, "POST", f"/admin/keys/{made['id']}/revoke")[0] == 200
    # Within `staleness`, in every worker.
    until(lambda: [chat(gateway, made["key"]) for _ in range(4)] == [401] * 4)


def own(gateway: Gateway, key: str, method: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    path = gateway.ready["listen"] + "/v1/users/llm-config"
    request = urllib.request.Request(path, method=method, headers={"Authorization": f"Bearer {key}", **headers})
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    return _asked(request)


def test_a_user_sets_its_own_preferences(gateway: Gateway):
    administer(gateway, "POST", "/admin/users", {"id": "ada"})
    key = administer(gateway, "POST", "/admin/keys", {"user_id": "ada"})[1]["key"]
    assert own(gateway, "sk-stranger", "GET")[0] == 401
    status, before = own(gateway, key, "GET")
    assert (status, before["preferred_model"]) == (200, None)
    wanted = {"preferred_model": "sim", "timeout_seconds": 20, "task_type_configs": {"REPORT": {"max_retries": 0}}}
    assert own(gateway, key, "PUT", wanted)[0] == 200
    assert own(gateway, key, "GET")[1]["task_type_configs"]["REPORT"]["max_retries"] == 0
    assert administer(gateway, "GET", "/admin/users/ada/llm-config")[1]["preferred_model"] == "sim"
    status, refused = own(gateway, key, "PUT", {"timeout_seconds": 301})
    assert (status, refused["error"]["param"]) == (400, "timeout_seconds")
    assert own(gateway, key, "PUT", {}, **{"If-Match": '"old"'})[0] == 412
    assert own(gateway, key, "DELETE")[0] == 204
    rows = administer(gateway, "GET", "/admin/audit")[1]["data"]
    assert [row["actor"] for row in rows][:2] == ["user:ada", "user:ada"]


def test_an_application_gets_the_models_of_the_users_that_it_names(tmp_path: Path):
    levels = {"default_model": "sim/a", "user_preferences": {"premium_model": "sim/best", "standard_model": "sim/plain"}}
    config = {
        "server": {"admin_key": "env:ADMIN_KEY"},
        "storage": {"url": f"sqlite:///{tmp_path}/comporta.db"},
        "policies": {"authenticate": {"open": False}},
        "llm": levels,
    }
    with Gateway(config, tmp_path, {"ADMIN_KEY": ADMIN_KEY}) as running:
        for user in ({"id": "application"}, {"id": "bob", "tier": "premium"}, {"id": "ann"}):
            assert administer(running, "POST", "/admin/users", user)[0] == 201
        asked = {"user_id": "application", "limits": {"names_users": True}}
        key = administer(running, "POST", "/admin/keys", asked)[1]["key"]

        def model_of(user: str | None) -> str:
            headers = {"Authorization": f"Bearer {key}"} | ({} if user is None else {"x-comporta-user": user})
            url = running.ready["listen"] + "/v1/llm/config/preview"
            return str(_asked(urllib.request.Request(url, headers=headers))[1]["values"]["model"]["value"])

        found = [model_of(user) for user in (None, "bob", "ann", "stranger")]
        assert found == ["sim/plain", "sim/best", "sim/plain", "sim/a"]
        assert administer(running, "PATCH", "/admin/users/bob", {"tier": None})[0] == 200
        assert model_of("bob") == "sim/plain"
        assert administer(running, "PATCH", "/admin/users/bob", {"active": False})[0] == 200
        assert model_of("bob") == "sim/a"


def test_a_stranger_administers_nothing(gateway: Gateway):
    for method, path in (("GET", "/admin/users"), ("POST", "/admin/keys"), ("PUT", "/admin/config"), ("GET", "/metrics")):
        status, answer = _metrics_or(gateway, method, path)
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key"), path


def _metrics_or(gateway: Gateway, method: str, path: str) -> tuple[int, Any]:
    return administer(gateway, method, path, {} if method != "GET" else None, key="sk-wrong")


def test_a_configuration_is_applied_and_rolled_back_while_it_serves(gateway: Gateway):
    _, before = administer(gateway, "GET", "/admin/config")
    changed = before["text"] + "\nmodels: {newly: sim}\n"
    status, version = administer(gateway, "PUT", "/admin/config", {"text": changed, "digest": before["digest"]})
    assert status == 200, version
    assert gateway.config.read_text() == changed
    _, history = administer(gateway, "GET", "/admin/config/versions")
    assert [one["id"] for one in history["data"]] == [version["id"], version["id"] - 1]
    status, _ = administer(gateway, "POST", f"/admin/config/versions/{version['id'] - 1}/rollback")
    assert (status, gateway.config.read_text()) == (200, before["text"])
    status, refused = administer(gateway, "PUT", "/admin/config", {"text": "servre: {}"})
    assert (status, refused["error"]["code"], "server" in refused["error"]["message"]) == (400, "invalid_configuration", True)


def test_a_file_that_somebody_broke_is_shown_with_what_is_wrong(gateway: Gateway):
    good = gateway.config.read_text()
    gateway.config.write_text(good + "\nservre: {}\n")
    try:
        status, shown = administer(gateway, "GET", "/admin/config")
    finally:
        gateway.config.write_text(good)
    assert (status, [problem["path"] for problem in shown["problems"]]) == (200, ["servre"])
    assert "server.workers" in {value["path"] for value in shown["values"]}


def test_the_description_is_there_for_everybody(gateway: Gateway):
    status, described = administer(gateway, "GET", "/openapi.json", key="none")
    assert status == 200
    assert "/admin/keys/{id}/rotate" in described["paths"]
