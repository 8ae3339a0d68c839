"""What became of a request, asked of the admin plane afterwards: whichever worker served it, and from wherever it came."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from comporta.cli import main
from tests.e2e.conftest import closed_port
from tests.e2e.test_administration import ADMIN_KEY, administer
from tests.support.gateway import Gateway, error_of
from tests.support.raw_client import Answer, RawClient, ask, chat, chat_body

CANARY = "canary-4711"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("requests")
    down = {"kind": "openai", "base_url": f"http://127.0.0.1:{closed_port()}/v1", "api_key": "env:TEST_UPSTREAM_KEY"}
    config = {
        "server": {"admin_key": "env:ADMIN_KEY", "trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"], "max_connections_per_address": 1},
        "providers": {"down": down},
        "models": {"sim": {"provider": "sim"}, "smart": {"provider": "down", "model": "m", "fallback": ["sim"]}},
        "llm": {"alias": "auto", "default_model": "smart", "timeout": "20s"},
        "storage": {"url": f"sqlite:///{folder}/comporta.db"},
        "policies": {"authenticate": {"open": True}, "retry": {"max_retries": 1, "base": "1ms", "budget": 1}, "circuit_breaker": False},
    }
    with Gateway(config, folder, {"ADMIN_KEY": ADMIN_KEY}) as running:
        yield running


def told(gateway: Gateway, answer: Answer) -> dict[str, Any]:
    """The explanation of the request that got `answer`, which ends a moment after its last byte."""
    gateway.record_of(answer)
    status, found = administer(gateway, "GET", f"/admin/requests/{answer.header('x-request-id')}/explain")
    assert status == 200, found
    return found


def test_an_explanation_tells_what_decided_what_was_tried_and_why_another_one_served(gateway: Gateway):
    body = chat_body("auto", metadata={"canary": CANARY}, messages=[{"role": "user", "content": CANARY}])
    answer = ask(gateway.url, "POST", "/v1/chat/completions", body)
    assert answer.status == 200
    found = told(gateway, answer)
    assert (found["asked"]["model"], found["asked"]["operation"], found["served"]["public"]) == ("auto", "chat", "sim")
    values = found["configuration"]["values"]
    assert (values["model"], values["timeout"]) == ({"value": "smart", "source": "system"}, {"value": 20.0, "source": "system"})
    seen = [(each["provider"], each["why"], each["error"], each["not_repeated"]) for each in found["attempts"]]
    assert seen == [
        ("down", "first", "connect_failed", None),
        ("down", "retry", "connect_failed", "spent"),
        ("sim", "fallback", None, None),
    ]
    assert found["attempts"][0]["credential"] == "env:TEST_UPSTREAM_KEY"
    assert (found["retries"], found["fallback"], found["timeouts"]["deadline"]) == (1, "connect_failed", 20.0)
    assert found["tokens"]["completion"] > 0
    assert 0 <= found["timing"]["overhead_ms"] <= found["timing"]["total_ms"]
    listed = administer(gateway, "GET", "/admin/requests?limit=1000")[1]
    for shown in (found, listed):
        assert CANARY not in json.dumps(shown)


def test_a_stream_has_the_time_of_its_first_token(gateway: Gateway):
    answer = chat(gateway.url, model="sim", stream=True)
    found = told(gateway, answer)
    assert found["asked"]["stream"] is True
    assert 0 < found["timing"]["first_token_ms"] <= found["timing"]["total_ms"]


def test_a_refused_request_is_explained_too(gateway: Gateway):
    answer = chat(gateway.url, model="no-such-model")
    found = told(gateway, answer)
    assert (found["status"], found["error"], found["attempts"], found["tokens"]) == (404, "model_not_found", [], None)


def test_every_request_is_found_whichever_worker_served_it(tmp_path: Path):
    served = set()
    with Gateway({"server": {"workers": 2, "admin_key": "env:ADMIN_KEY"}}, tmp_path, {"ADMIN_KEY": ADMIN_KEY}) as pair:
        for _ in range(60):
            answer = ask(pair.url, "GET", "/v1/models")
            found = told(pair, answer)
            assert (found["id"], found["asked"]["operation"]) == (answer.header("x-request-id"), "models")
            listed = administer(pair, "GET", "/admin/requests?limit=1")[1]["data"]
            assert [each["id"] for each in listed] == [found["id"]]
            served.add(found["worker"])
            if len(served) == 2:
                break
        assert administer(pair, "GET", "/admin/requests/req_0/explain")[0] == 404
    assert served == {0, 1}


def command(gateway: Gateway, *arguments: str) -> Result:
    environment = {"ADMIN_KEY": ADMIN_KEY, "OLLAMA_HOST": "127.0.0.1:1"}
    return CliRunner().invoke(main, ["explain", "--admin", gateway.admin, "--admin-key", "env:ADMIN_KEY", *arguments], env=environment)


def test_the_command_lists_the_last_requests_and_puts_one_into_words(gateway: Gateway):
    answer = ask(gateway.url, "POST", "/v1/chat/completions", chat_body("auto"))
    gateway.record_of(answer)
    id = answer.header("x-request-id") or ""
    listed = json.loads(command(gateway, "--limit", "1", "--json").stdout)
    assert [each["id"] for each in listed] == [id]
    assert id in command(gateway).stdout
    said = command(gateway, id)
    assert said.exit_code == 0, said.output
    for words in (
        "200 ok",
        "model auto",
        "env:TEST_UPSTREAM_KEY",
        "connect_failed",
        "spent",
        "served by sim",
        "after connect_failed",
        "ms in all",
    ):
        assert words in said.stdout, words
    assert json.loads(command(gateway, id, "--json").stdout)["id"] == id


def test_the_command_says_what_it_does_not_find(gateway: Gateway):
    unknown = command(gateway, "req_0")
    assert (unknown.exit_code, "no request 'req_0'" in unknown.stderr) == (1, True)
    assert command(gateway, "../users").exit_code == 1
    nobody = CliRunner().invoke(main, ["explain", "--admin", f"http://127.0.0.1:{closed_port()}"])
    assert (nobody.exit_code, "no gateway answers" in nobody.stderr) == (1, True)


def test_an_id_that_nobody_knows_is_not_found(gateway: Gateway):
    assert administer(gateway, "GET", "/admin/requests/req_0/explain")[0] == 404
    assert administer(gateway, "GET", "/admin/requests", key="wrong")[0] == 401


# -------------------------------------------------------------------------------------------------------------- behind trusted proxies
@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({}, "127.0.0.1"),
        ({"X-Forwarded-For": "198.51.100.7"}, "198.51.100.7"),
        ({"X-Forwarded-For": "1.1.1.1, 198.51.100.7, 10.1.1.1"}, "198.51.100.7"),
        ({"Forwarded": 'for=1.1.1.1, for="[2001:db8::7]:4711"'}, "2001:db8::7"),
        ({"X-Forwarded-For": "garbage"}, None),
        ({"X-Forwarded-For": "198.51.100.7", "Forwarded": "for=198.51.100.8"}, None),
    ],
    ids=str,
)
def test_the_clients_address_is_what_trusted_proxies_say(gateway: Gateway, headers: dict[str, str], address: str | None):
    answer = ask(gateway.url, "GET", "/v1/models", headers=headers)
    assert told(gateway, answer)["asked"]["address"] == address


def test_a_key_is_good_from_its_clients_addresses_and_not_from_the_proxys(gateway: Gateway):
    administer(gateway, "POST", "/admin/users", {"id": "ann"})
    limits = {"addresses": ["198.51.100.0/24"]}
    key = administer(gateway, "POST", "/admin/keys", {"user_id": "ann", "limits": limits})[1]["key"]

    def asked(**headers: str) -> Answer:
        return ask(gateway.url, "GET", "/v1/models", headers={"Authorization": f"Bearer {key}", **headers})

    assert asked(**{"X-Forwarded-For": "198.51.100.7"}).status == 200
    assert asked(**{"X-Forwarded-For": "192.0.2.1, 198.51.100.7"}).status == 200
    for spoofed in ("198.51.100.7, 192.0.2.1", "198.51.100.7, garbage", "", "127.0.0.1"):
        answer = asked(**{"X-Forwarded-For": spoofed})
        assert (answer.status, error_of(answer)["code"]) == (403, "permission_denied"), spoofed
    assert asked().status == 403


def test_a_connection_of_a_proxy_carries_many_clients(gateway: Gateway):
    administer(gateway, "POST", "/admin/users", {"id": "bob"})
    key = administer(gateway, "POST", "/admin/keys", {"user_id": "bob", "limits": {"addresses": ["198.51.100.7"]}})[1]["key"]
    statuses = []
    with RawClient(gateway.url) as proxy:
        for address in ("198.51.100.7", "198.51.100.7", "198.51.100.7", "198.51.100.8", "198.51.100.7", "198.51.100.8"):
            headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": address}
            statuses.append(proxy.ask("GET", "/v1/models", headers=headers).status)
    assert statuses == [200, 200, 200, 403, 200, 403]


def test_a_trusted_proxy_may_have_any_number_of_connections(gateway: Gateway):
    clients = [RawClient(gateway.url) for _ in range(5)]
    assert [client.ask("GET", "/v1/models").status for client in clients] == [200] * 5
    for client in clients:
        client.close()
