"""`comporta models`: the table, or what the providers list."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from comporta.cli.model_states import annotate, lines
from tests.cli.conftest import Command

LIST = {"object": "list", "data": [{"id": "zephyr", "object": "model"}, {"id": "alpaca", "object": "model"}]}


class _Provider(BaseHTTPRequestHandler):
    """Answers by the first part of the path, and keeps the credentials that it was sent."""

    seen: list[str | None]

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("authorization"))
        kind = self.path.split("/")[1]
        status = {"refuses": 401, "moves": 302}.get(kind, 200)
        body = {"nonsense": b"<html>", "empty": b"[]"}.get(kind, json.dumps(LIST).encode())
        self.send_response(status)
        if status == 302:
            self.send_header("location", "/good/v1/models")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[tuple[str, list[str | None]]]:
    """A provider's address, and the credentials that it was sent."""
    seen: list[str | None] = []
    handler = type("Handler", (_Provider,), {"seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def _listed(result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [model["id"] for model in json.loads(result.stdout)["models"]]


def test_a_table_is_listed_and_nobody_is_asked(command: Command, file, provider):
    text = f'providers: {{a: {{kind: openai, base_url: "{provider[0]}/good/v1"}}}}\nmodels: {{fast: {{provider: a, model: x}}, sim: sim}}'
    result = command("models", "--config", file(text))
    assert result.stdout == "fast  a  as x\nsim   sim  (simulated)\n"
    assert provider[1] == []


def test_without_a_table_the_providers_are_asked(command: Command, file, provider):
    address, seen = provider
    text = f"""\
providers:
  first: {{kind: openai, base_url: "{address}/good/v1", api_key: "env:KEY"}}
  second: {{kind: openai, base_url: "{address}/good/v1"}}
"""
    found = _listed(command("models", "--json", "--config", file(text), KEY="not-a-real-key"))
    assert found == ["alpaca", "zephyr", "second/alpaca", "second/zephyr", "sim"]
    assert sorted(map(str, seen)) == ["Bearer not-a-real-key", "None"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("refuses", "it answered with status 401"),
        ("moves", "it answered with status 302"),
        ("nonsense", "its answer is no list of models"),
        ("empty", "its answer is no list of models"),
    ],
)
def test_a_provider_that_has_no_list_is_named_and_the_others_are_shown(command: Command, file, provider, kind: str, reason: str):
    result = command("models", "--config", file(f'providers: {{a: {{kind: openai, base_url: "{provider[0]}/{kind}/v1"}}}}'))
    assert (result.exit_code, result.stdout) == (0, "sim  sim  (simulated)\n")
    assert f"no list from a: {reason}" in result.stderr


def test_a_provider_that_is_not_there_is_named(command: Command, file):
    answer = json.loads(
        command("models", "--json", "--config", file('providers: {a: {kind: openai, base_url: "http://127.0.0.1:1/v1"}}')).stdout
    )
    (missing,) = answer["unanswered"]
    assert missing["provider"] == "a"
    assert "could not be reached" in missing["reason"]


def test_a_key_that_is_not_there_is_named(command: Command, file):
    result = command("models", "--config", file('providers: {a: {kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: "env:GONE"}}'))
    assert "no list from a: the environment variable GONE is not set" in result.stderr


# -- where a gateway runs --

HEALTH = {"state": "up", "since": "2026-01-01T00:00:00Z", "failure": None, "unlisted_models": ["x"]}
CLOSED = {"state": "closed", "until": None, "failures": 0, "ejections": 0, "in_flight": 1, "first_token_seconds": 0.25}
TOLD = {
    "data": [
        {"name": "a", "health": HEALTH, "targets": [{"model": "x", **CLOSED}, {"model": "y", **CLOSED}]},
        {
            "name": "b",
            "health": {**HEALTH, "state": "down", "failure": "connect"},
            "targets": [{"model": "y", **CLOSED, "state": "open", "until": "2026-01-01T00:03:25Z"}],
        },
    ]
}
NOW = datetime(2026, 1, 1, 0, 3, tzinfo=UTC).timestamp()
TABLE = """\
server: {{admin_listen: "127.0.0.1:{port}", admin_key: "env:ADMIN_KEY"}}
providers:
  a: {{kind: openai, base_url: "http://127.0.0.1:1/v1"}}
  b: {{kind: openai, base_url: "http://127.0.0.1:1/v1"}}
models: {{fast: {{provider: a, model: x}}, y: {{targets: [a, b]}}, other: b}}
"""


class _Admin(BaseHTTPRequestHandler):
    """Tells of providers whoever shows the key."""

    def do_GET(self) -> None:
        is_known = (self.path, self.headers.get("authorization")) == ("/admin/providers", "Bearer an administrator's key")
        body = json.dumps(TOLD if is_known else {}).encode()
        self.send_response(200 if is_known else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def admin() -> Iterator[int]:
    """The port of a gateway's admin plane."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Admin) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_targets_are_shown_with_what_a_running_gateway_says_of_them(command: Command, file, admin: int):
    result = command("models", "--json", "--config", file(TABLE.format(port=admin)), ADMIN_KEY="an administrator's key")
    answer = json.loads(result.stdout)
    found = {
        model["id"]: [(each["provider"], each["health"]["state"], each["circuit"]) for each in model["targets"]]
        for model in answer["models"]
    }
    assert answer["gateway"] is None
    assert found["fast"] == [("a", "up", CLOSED)]
    assert [(name, health, circuit["state"]) for name, health, circuit in found["y"]] == [("a", "up", "closed"), ("b", "down", "open")]
    assert found["other"] == [("b", "down", None)]


def test_a_line_for_each_target_says_how_it_is():
    models = [
        {"id": "fast", "targets": [{"provider": "a", "model": "x", "simulated": False}]},
        {"id": "y", "targets": [{"provider": name, "model": "y", "simulated": False} for name in ("a", "b", "c")]},
    ]
    assert list(lines(models, NOW)) == ["fast  a  as x", "y     a", "      b", "      c"]
    annotate(models, TOLD)
    assert list(lines(models, NOW)) == [
        "fast  a  as x  up, model not listed; closed",
        "y     a        up; closed",
        "      b        down (connect) for 3 min; open for 25 s",
        "      c        not known to the gateway",
    ]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--admin-key", "env:WRONG"], "answered with status 401"),
        (["--admin-key", "env:GONE"], "the administrator's key: the environment variable GONE is not set"),
        (["--admin-url", "http://127.0.0.1:1"], "nothing answers at http://127.0.0.1:1"),
        (["--admin-url", "file:///etc/passwd"], "is no address"),
    ],
)
def test_without_states_the_table_is_listed_and_why_is_told_to_who_asked(
    command: Command, file, admin: int, options: list[str], reason: str
):
    result = command("models", "--config", file(TABLE.format(port=admin)), *options, ADMIN_KEY="an administrator's key", WRONG="wrong")
    assert (result.exit_code, result.stdout) == (0, "fast   a  as x\ny      a\n       b\nother  b\n")
    assert reason in result.stderr


def test_the_key_in_the_configuration_is_not_shown_to_another_address(command: Command, file, admin: int):
    where = ["--admin-url", f"http://127.0.0.1:{admin}"]
    result = command("models", "--config", file(TABLE.format(port=1)), *where, ADMIN_KEY="an administrator's key")
    assert "answered with status 401" in result.stderr
