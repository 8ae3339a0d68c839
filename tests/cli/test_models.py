"""`comporta models`: the table, or what the providers list."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

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
