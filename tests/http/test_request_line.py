"""What of an address goes on to the provider."""

from __future__ import annotations

import pytest
from aiohttp.http import HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from proxy.core import keys
from proxy.http.request_line import RequestLine, read

OURS = keys.generate()[1]


def line(method: str, path: str) -> RequestLine:
    headers: CIMultiDict[str] = CIMultiDict()
    url = URL(path, encoded=True)
    return read(RawRequestMessage(method, path, HttpVersion11, CIMultiDictProxy(headers), (), False, None, False, False, url))


def query(text: str) -> str:
    """What is left of a query."""
    return line("GET", f"/v1/files?{text}").query


@pytest.mark.parametrize(
    "text", ["key=metadata.team&token=abc", "Key=1", "after=file_1&token=", "token", "limit=2&metadata%5Bkey%5D=x&a=%zz", "a=b;c", "x=sk-x"]
)
def test_a_parameter_goes_on_whatever_its_name(text: str) -> None:
    assert query(text) == text


@pytest.mark.parametrize("name", ["key", "token", "api_key", "auth", "x", "%6bey", "Authorization"])
@pytest.mark.parametrize(
    "value",
    [OURS, f"Bearer%20{OURS}", f"Bearer+{OURS}", OURS.replace("k", "%6b", 1), OURS.replace("-", "%2D"), OURS[:40]],
    ids=["plain", "bearer", "bearer and plus", "letter coded", "dash coded", "beginning"],
)
def test_a_key_of_ours_stays_here_whatever_it_is_called(name: str, value: str) -> None:
    assert query(f"a=1&{name}={value}&b=2") == "a=1&b=2"
    assert query(f"{name}={value}") == ""


@pytest.mark.parametrize("text", [f"{OURS}", f"{OURS}=1", f"a=1;key={OURS}"], ids=["name", "name of a value", "behind a semicolon"])
def test_nor_does_it_go_on_where_it_is_no_value(text: str) -> None:
    assert query(text) == ""


@pytest.mark.parametrize("name", ["api_key", "api-key", "apikey", "API_KEY", "access_token", "api%5Fkey"])
def test_what_can_only_be_a_key_stays_here_whosever_it_is(name: str) -> None:
    assert query(f"after=x&{name}=sk-somebodys&limit=1") == "after=x&limit=1"


@pytest.mark.parametrize(
    ("path", "operation", "onward", "model"),
    [
        ("/openai/deployments/gpt-4o/chat/completions", "chat", "/chat/completions", "gpt-4o"),
        ("/openai/deployments/gpt-4o/completions", "completion", "/completions", "gpt-4o"),
        ("/openai/deployments/meta/llama%203/embeddings/", "embedding", "/embeddings", "meta/llama 3"),
        ("/openai/deployments/w/audio/transcriptions", "audio", "/audio/transcriptions", "w"),
        ("/openai/deployments/d/images/generations", "images", "/images/generations", "d"),
        ("/openai/v1/chat/completions", "chat", "/chat/completions", None),
        ("//openai/deployments/m/chat/completions", "chat", "/chat/completions", "m"),
        ("//openai//deployments/m/embeddings", "embedding", "/embeddings", "m"),
        ("/openai/deployments/m/batches", "batches", "/batches", None),
        ("/openai/deployments/m/responses", "responses", "/responses", None),
        ("/openai/responses", "responses", "/responses", None),
    ],
)
def test_azures_paths_are_openais_below_a_prefix(path: str, operation: str, onward: str, model: str | None) -> None:
    found = line("POST", path + "?api-version=2024-10-21&a=1&api-key=x")
    assert found == RequestLine(operation, "POST", onward, "a=1", None, model)


def test_azures_paths_take_what_openais_take() -> None:
    assert line("GET", "/openai/deployments/m/embeddings").allowed == ("POST",)
    assert line("GET", "/openai/models/meta/llama").path == "/models/meta/llama"


@pytest.mark.parametrize(
    "path",
    [
        "/openai", "/openai/", "/openai/deployments", "/openai/deployments/m", "/openai/deployments/m/nothing",
        "/openai/deployments//embeddings", "/openai/openai/embeddings",
        "/openai/admin", "/openaiembeddings", "/openai/deployments/a/b/files",
        "/v1/openai/embeddings",
        "/openai/files/../x",
    ],
)  # fmt: skip
def test_and_nothing_else_is_there(path: str) -> None:
    for method in ("GET", "POST"):
        assert line(method, path).operation == "unknown"


def test_a_version_of_azures_is_a_parameter_like_others_elsewhere() -> None:
    assert query("api-version=1") == "api-version=1"
