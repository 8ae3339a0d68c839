"""Gateways and clients for the tests with official client libraries. One upstream double serves them all; it is reset before each test."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tests.e2e.sdk.openai_answers import answer_for
from tests.support.gateway import ROOT, Gateway, Record
from tests.support.provider_double import ProviderDouble

CLIENT_KEY = "sk-the-clients-own-key"
#: Whose pages may read answers.
PAGE = "https://app.example.com"
UPSTREAM_KEYS = {"DOUBLE_KEY": "sk-the-gateways-key", "OTHER_KEY": "sk-the-other-key"}


class Unconfigured:
    """`comporta serve` with no file and no key in its environment. `url` as in `Gateway`."""

    def __init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "COMPORTA_"))}
        command = [sys.executable, "-m", "comporta", "serve", "--json", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        self._process = subprocess.Popen(command, cwd=ROOT, env=kept, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise AssertionError("the gateway did not start without a configuration")
        self.ready = json.loads(line)
        self.url: str = self.ready["listen"]

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()


def recorded(gateway: Gateway, request_id: str | None) -> Record:
    """The record of the request whose answer carried this id."""
    assert request_id
    return gateway.wait_record(lambda record: record["id"] == request_id)


class Sdk:
    """The official Python client, sync or async, driven by the same test."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._runner = asyncio.Runner() if kind == "async" else None
        self._clients: list[Any] = []

    def client(self, gateway: Gateway | Unconfigured, path: str = "/v1", **options: Any) -> Any:
        url = gateway.url + path
        options = {"api_key": CLIENT_KEY, "max_retries": 0, "timeout": 10.0, "_strict_response_validation": True, **options}
        made = openai.AsyncOpenAI(base_url=url, **options) if self._runner else openai.OpenAI(base_url=url, **options)
        self._clients.append(made)
        return made

    def do(self, value: Any) -> Any:
        """What a call gives, awaited where it must be."""
        if self._runner is None or not inspect.isawaitable(value):
            return value

        async def outcome() -> Any:
            return await value

        return self._runner.run(outcome())

    def next(self, stream: Any) -> Any:
        return next(stream) if self._runner is None else self.do(stream.__anext__())

    def each(self, stream: Any) -> list[Any]:
        if self._runner is None:
            return list(stream)

        async def gather() -> list[Any]:
            return [item async for item in stream]

        return list(self.do(gather()))

    def within(self, manager: Any, body: Callable[[Any], Any]) -> Any:
        """`body` of what the context manager gives, inside it."""
        if self._runner is None:
            with manager as value:
                return body(value)
        value = self.do(manager.__aenter__())
        try:
            return body(value)
        finally:
            self.do(manager.__aexit__(None, None, None))

    def close(self) -> None:
        for client in self._clients:
            self.do(client.close())
        if self._runner is not None:
            self._runner.close()


@pytest.fixture(params=["sync", "async"])
def sdk(request: pytest.FixtureRequest) -> Iterator[Sdk]:
    made = Sdk(request.param)
    yield made
    made.close()


@pytest.fixture(scope="session")
def running_double() -> Iterator[ProviderDouble]:
    with ProviderDouble(answer_for) as running:
        yield running


@pytest.fixture
def double(running_double: ProviderDouble) -> ProviderDouble:
    running_double.reset()
    return running_double


def closed_port() -> int:
    """A port of loopback that refuses connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def providers(double: ProviderDouble) -> dict[str, Any]:
    upstream = {"kind": "openai", "base_url": double.url}
    account = {"organization": "org-gateway", "project": "proj-gateway", "headers": {"x-team": "search"}}
    return {
        "server": {"ping": "500ms", "cors": {"origins": [PAGE]}},
        "default_provider": "double",
        "providers": {
            "double": {**upstream, "api_key": "env:DOUBLE_KEY", **account},
            "other": {**upstream, "api_key": "env:OTHER_KEY"},
            "hasty": {**upstream, "timeouts": {"first_token": "300ms", "idle": "300ms"}},
            "gone": {"kind": "openai", "base_url": f"http://127.0.0.1:{closed_port()}/v1"},
        },
    }


MODELS = {
    "gpt-4.1": "double",
    "fast": {"provider": "double", "model": "gpt-4.1-mini"},
    "text-embedding-3-small": "double",
    "whisper-2": {"provider": "other", "model": "whisper-1"},
}


@pytest.fixture(scope="session")
def gateway(running_double: ProviderDouble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """No `models` section: any model's name goes to the double. Each request is one attempt: the clients have retries of their own."""
    with Gateway({**providers(running_double), "policies": {"retry": False}}, tmp_path_factory.mktemp("gateway"), UPSTREAM_KEYS) as running:
        yield running


@pytest.fixture(scope="session")
def routed(running_double: ProviderDouble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Only the names of `MODELS` are known."""
    config = {**providers(running_double), "models": MODELS, "policies": {"retry": False}}
    with Gateway(config, tmp_path_factory.mktemp("routed"), UPSTREAM_KEYS) as running:
        yield running


@pytest.fixture(scope="session")
def unconfigured() -> Iterator[Unconfigured]:
    """No file, no key: only `sim` answers."""
    running = Unconfigured()
    yield running
    running.stop()
