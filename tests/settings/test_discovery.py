"""Providers that nobody listed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from proxy.settings import load
from proxy.settings.discovery import accepts_connection, discover
from tests.settings.conftest import Load, nobody_listens, provider

KEY = {"OPENAI_API_KEY": "not-a-real-key"}


def _found(environ: dict[str, str], *, answers: bool = False):
    return {name: section.plain() for name, section in discover(environ, lambda _host, _port: answers).items()}


def test_a_key_in_the_environment_is_a_provider(loaded: Load):
    found = loaded(None, KEY)
    assert list(found.settings.providers) == ["openai", "sim"]
    assert found.settings.default_provider == "openai"
    assert provider(found, "openai").base_url == "https://api.openai.com/v1"
    assert found.sources["providers.openai.api_key"] == "discovered:OPENAI_API_KEY"
    assert KEY["OPENAI_API_KEY"] not in repr(found)


def test_everything_that_openais_libraries_read_is_taken():
    environ = {**KEY, "OPENAI_BASE_URL": "https://models.example.net/v1", "OPENAI_ORG_ID": "org-1", "OPENAI_PROJECT_ID": "proj_1"}
    assert _found(environ)["openai"] == {
        "kind": "openai",
        "api_key": "env:OPENAI_API_KEY",
        "base_url": "https://models.example.net/v1",
        "organization": "org-1",
        "project": "proj_1",
    }


def test_a_base_url_needs_no_key(loaded: Load):
    section = provider(loaded(None, {"OPENAI_BASE_URL": "http://127.0.0.1:8000/v1"}), "openai")
    assert (section.base_url, section.references) == ("http://127.0.0.1:8000/v1", ())


def test_only_names_of_this_machine_get_permission_by_themselves():
    assert _found({"OPENAI_BASE_URL": "http://localhost:8000/v1"})["openai"]["allow_private"] is True
    assert "allow_private" not in _found({"OPENAI_BASE_URL": "https://models.example.net/v1"})["openai"]
    assert "allow_private" not in _found({"OPENAI_BASE_URL": "http://[::1/v1"})["openai"]


def test_empty_variables_are_no_provider():
    assert _found({"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}) == {}


@pytest.mark.parametrize("listen", ["127.0.0.1:8080", "0.0.0.0:8080"])
@pytest.mark.parametrize("base_url", ["http://127.0.0.1:8080/v1", "http://localhost:8080/v1"])
def test_the_gateways_own_address_is_no_provider(loaded: Load, listen: str, base_url: str):
    found = loaded(None, {"OPENAI_BASE_URL": base_url, "COMPORTA_SERVER__LISTEN": listen})
    assert list(found.settings.providers) == ["sim"]
    assert "is this gateway's own address" in str(found.warnings[0])


def test_a_key_beside_the_gateways_own_address_is_openais(loaded: Load):
    found = provider(loaded(None, {**KEY, "OPENAI_BASE_URL": "http://localhost:8080/v1"}), "openai")
    assert (found.base_url, found.allow_private) == ("https://api.openai.com/v1", False)


def test_an_ollama_that_answers_is_a_provider():
    assert _found({}, answers=True)["ollama"] == {"kind": "openai", "base_url": "http://127.0.0.1:11434/v1"}
    assert _found({}, answers=False) == {}


@pytest.mark.parametrize(
    ("written", "host", "port", "base_url"),
    [
        ("0.0.0.0", "127.0.0.1", 11434, "http://127.0.0.1:11434/v1"),  # noqa: S104 - what people write there
        ("127.0.0.1:9999", "127.0.0.1", 9999, "http://127.0.0.1:9999/v1"),
        (":9999", "127.0.0.1", 9999, "http://127.0.0.1:9999/v1"),
        ("localhost", "127.0.0.1", 11434, "http://127.0.0.1:11434/v1"),
        ("[::]:9999", "::1", 9999, "http://[::1]:9999/v1"),
        ("http://box.lan:9999/", "box.lan", 9999, "http://box.lan:9999/v1"),
        ("https://box.lan/ollama", "box.lan", 443, "https://box.lan:443/ollama/v1"),
    ],
)
def test_ollamas_own_variable_says_where_it_is(written: str, host: str, port: int, base_url: str):
    asked: list[tuple[str, int]] = []

    def probe(host: str, port: int) -> bool:
        asked.append((host, port))
        return True

    found = discover({"OLLAMA_HOST": written}, probe)["ollama"].plain()
    assert asked == [(host, port)]
    assert found["base_url"] == base_url
    assert found.get("allow_private", False) == (host == "box.lan")


@pytest.mark.parametrize("written", ["http://[::1", "127.0.0.1:port", "ftp://box.lan"])
def test_an_ollama_address_that_is_none_is_left_alone(written: str):
    assert _found({"OLLAMA_HOST": written}, answers=True) == {}


def test_a_file_without_providers_still_gets_them(loaded: Load):
    assert "openai" in loaded('server: {grace: "1s"}', KEY).settings.providers


@pytest.mark.parametrize("text", ["providers: {}", "providers: {mine: {kind: sim}}"])
def test_listed_providers_are_all_there_are(loaded: Load, text: str):
    assert "openai" not in loaded(text, KEY).settings.providers


def test_nobody_is_looked_for_where_providers_are_listed(tmp_path: Path):
    def probe(_host: str, _port: int) -> bool:
        raise AssertionError("asked")

    path = tmp_path / "gateway.yaml"
    path.write_text("providers: {mine: {kind: sim}}")
    assert list(load(path, {}, {}, probe=probe).settings.providers) == ["mine", "sim"]
    assert list(load(None, {}, {}, probe=nobody_listens).settings.providers) == ["sim"]


def test_the_probe_sees_who_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        assert accepts_connection(host, port)
    assert not accepts_connection(host, port)
