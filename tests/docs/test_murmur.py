"""The example of docs/add_a_provider.md: alone, and in a gateway that the official SDK asks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest

import providers
from comporta import Call, ClientError, Credential, LLMProvider, Target, UpstreamError, UpstreamRequest
from tests.docs.conftest import EXAMPLES
from tests.support.gateway import ROOT, Gateway

WORDS = ("Hello", " to", " yöu")
ENDED = {"ended": "full", "read": 3, "wrote": 3}
KEY = "murmur-secret"


# ----------------------------------------------------------------------------------------------------------------------------- alone
@dataclass
class Head:
    """An answer's head, which is all that a provider looks at."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    async def receive(self) -> bytes:
        return b""

    def fail(self, error: UpstreamError) -> None:
        """Nothing is pending."""

    def close(self, *, reuse: bool = False) -> None:
        """Nothing is open."""


async def _no_body(_call: Call) -> None:
    """The tests bring the body."""


def call_with(operation: str = "chat", **body: Any) -> Call:
    body = {"model": "public", "messages": [{"role": "user", "content": "Hi"}], **body}
    return Call(
        "req_1", operation, "POST", "/chat/completions", "", {}, 0.0, _no_body, body=body, model="public", stream=bool(body.get("stream"))
    )


@pytest.fixture
def murmur(plug_ins: Path) -> LLMProvider:
    kind = providers.kinds()["murmur"]
    provider: LLMProvider = kind(kind.Settings(base_url="http://127.0.0.1:1/v1"))
    return provider


def encoded(provider: LLMProvider, call: Call) -> UpstreamRequest:
    return provider.encode(call, Target("here", "theirs", "public", Credential("env:KEY", KEY)))


def test_a_request_in_its_dialect(murmur: LLMProvider) -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    request = encoded(murmur, call_with(messages=[{"role": "user", "content": parts}], max_tokens=5))
    assert (request.method, request.url) == ("POST", "http://127.0.0.1:1/v1/answer")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert isinstance(request.body, bytes)
    assert json.loads(request.body) == {"model": "theirs", "turns": [{"who": "user", "says": "Hello"}], "pieces": False, "most": 5}


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{"type": "function"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.net/a.png"}}]}]},
        {"messages": [{"content": "no role"}]},
        {"messages": ["no message"]},
        {"messages": [{"role": "user", "content": None}]},
    ],
)
def test_what_it_cannot_do_is_refused(murmur: LLMProvider, body: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as caught:
        encoded(murmur, call_with(**body))
    assert caught.value.param in ("tools", "messages")


def test_other_operations_are_refused(murmur: LLMProvider) -> None:
    with pytest.raises(ClientError):
        encoded(murmur, call_with("embedding", input="x"))


def test_a_whole_answer(murmur: LLMProvider) -> None:
    call = call_with()
    reply = murmur.decode(call, Head(), json.dumps({"says": "".join(WORDS), **ENDED}).encode())
    answer = json.loads(reply.body)
    assert answer["choices"] == [{"index": 0, "message": {"role": "assistant", "content": "Hello to yöu"}, "finish_reason": "stop"}]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert call.usage is not None and call.usage.reported and call.usage.completion == 3


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b'{"says": "x", "ended": "never", "read": 1, "wrote": 1}', b"\xff"])
def test_nonsense_is_the_providers_failure(murmur: LLMProvider, body: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        murmur.decode(call_with(), Head(), body)
    assert caught.value.kind == "invalid_response"


@pytest.mark.parametrize(
    ("status", "kind", "shown"),
    [(400, "rejected", 400), (401, "provider_auth", 502), (429, "rate_limit_exceeded", 429), (500, "server_error", 502)],
)
@pytest.mark.parametrize("body", [b'{"problem": "too loud"}', b"<html>", b""])
def test_what_a_status_means(murmur: LLMProvider, status: int, kind: str, shown: int, body: bytes) -> None:
    error = murmur.decode_error(Head(status), body)
    assert (error.kind, error.status) == (kind, shown)


def events(*values: dict[str, Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(value, ensure_ascii=False).encode() for value in values)


STREAM = events(*({"says": word} for word in WORDS), ENDED)


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_stream_is_the_same_at_any_split(murmur: LLMProvider, cut: int) -> None:
    call = call_with(stream=True, stream_options={"include_usage": True})
    decoder = murmur.stream_decoder(call)
    out = decoder.feed(STREAM[:cut]) + decoder.feed(STREAM[cut:]) + decoder.eof()
    *chunks, done = out.removesuffix(b"\n\n").split(b"\n\n")
    assert done == b"data: [DONE]"
    read = [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]
    assert "".join(choice["delta"].get("content", "") for chunk in read for choice in chunk["choices"]) == "Hello to yöu"
    assert [choice["finish_reason"] for chunk in read for choice in chunk["choices"]] == [None, None, None, "stop"]
    assert read[-1]["usage"]["total_tokens"] == 6
    assert (decoder.done, decoder.failure, decoder.tokens) == (True, None, 3)


def test_a_stream_begins_with_its_first_content(murmur: LLMProvider) -> None:
    decoder = murmur.stream_decoder(call_with(stream=True))
    assert decoder.feed(b": a comment\n\n") == b"" and not decoder.started
    assert decoder.feed(events({"says": "a"})) and decoder.started


@pytest.mark.parametrize(
    ("data", "kind"),
    [(events({"says": "a"}), "stream_truncated"), (b"", "stream_truncated"), (events({"sings": "a"}), "invalid_response")],
)
def test_a_stream_that_is_not_whole_fails(murmur: LLMProvider, data: bytes, kind: str) -> None:
    decoder = murmur.stream_decoder(call_with(stream=True))
    if decoder.feed(data) or decoder.failure is None:
        decoder.eof()
    assert decoder.failure is not None and decoder.failure.kind == kind


def test_an_event_without_end_fails(plug_ins: Path) -> None:
    kind = providers.kinds()["murmur"]
    decoder = kind(kind.Settings(base_url="http://127.0.0.1:1", limits={"event": 100})).stream_decoder(call_with(stream=True))
    decoder.feed(b"data: " + b"x" * 200)
    assert decoder.failure.kind == "response_too_large"


# ------------------------------------------------------------------------------------------------------------------------- in a gateway
class Server(BaseHTTPRequestHandler):
    """Speaks Murmur. The model's name says what it does."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != f"Bearer {KEY}":
            self._answer(401, "application/json", b'{"problem": "who are you?"}')
        elif asked["model"] == "picky":
            self._answer(422, "application/json", b'{"problem": "too loud"}')
        elif asked["pieces"]:
            self._answer(200, "text/event-stream", STREAM if asked["model"] != "cut" else STREAM[:60])
        else:
            self._answer(200, "application/json", json.dumps({"says": "".join(WORDS), **ENDED}).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """The tests look at answers."""


@pytest.fixture(scope="module")
def client(plug_in_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, name="murmur", daemon=True)
    thread.start()
    provider = {"kind": "murmur", "base_url": f"http://127.0.0.1:{server.server_port}/v1", "api_key": "env:MURMUR_KEY"}
    config = {"providers": {"here": provider}, "models": dict.fromkeys(("plain", "picky", "cut"), "here")}
    environment = {"MURMUR_KEY": KEY, "PYTHONPATH": str(plug_in_folder)}
    with (
        Gateway(config, tmp_path_factory.mktemp("murmur"), environment) as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none needed", max_retries=0, timeout=10) as made,
    ):
        yield made
    server.shutdown()
    server.server_close()
    thread.join(5)


def ask(client: openai.OpenAI, model: str, **options: Any) -> Any:
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], **options)


def test_the_sdk_gets_a_whole_answer(client: openai.OpenAI) -> None:
    answer = ask(client, "plain")
    assert answer.choices[0].message.content == "Hello to yöu"
    assert answer.usage.total_tokens == 6
    assert answer.model == "plain"


def test_the_sdk_gets_a_stream(client: openai.OpenAI) -> None:
    chunks = list(ask(client, "plain", stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello to yöu"
    assert chunks[0].choices[0].delta.role == "assistant"


def test_the_sdk_gets_the_providers_refusal(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="too loud"):
        ask(client, "picky")


def test_the_sdk_is_told_of_a_cut_stream(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="before the answer was complete"):
        list(ask(client, "cut", stream=True))


# ------------------------------------------------------------------------------------------------------------------------------ its page
def test_the_page_names_the_example_and_its_parts() -> None:
    page = (ROOT / "docs" / "add_a_provider.md").read_text(encoding="utf-8")
    assert "examples/murmur/murmur.py" in page
    assert (EXAMPLES / "murmur" / "pyproject.toml").read_text(encoding="utf-8").split("[project.entry-points")[1].split("\n\n")[0] in page
