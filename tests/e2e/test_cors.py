"""Pages in browsers: which may read answers, as the headers say that browsers go by. Source: https://fetch.spec.whatwg.org/#http-cors-protocol."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.gateway import Gateway, provider
from tests.support.raw_client import Answer, RawClient, ask, chat, chat_body
from tests.support.script import CHAT, CHAT_STREAM, Wait, error_response, json_response, script
from tests.support.upstream import Upstream

PAGE, STRANGE = "https://app.example.com", "https://elsewhere.example"
ASKED = "authorization,content-type,openai-organization,x-stainless-arch,x-stainless-retry-count"
PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": ASKED}
#: What the official SDK reads of an answer, and what the gateway says of it.
READ = {
    "x-request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-comporta-provider",
    "x-comporta-overhead-ms",
    "openai-processing-ms",
}


def _started(upstream: Upstream, folder: Path, server: dict[str, Any], **more: Any) -> Gateway:
    up = provider(upstream.url)
    return Gateway(
        {"server": server, "providers": {"up": up}, "models": {"test-model": "up"}, "policies": {"retry": False}, **more}, folder
    )


@pytest.fixture(scope="module")
def gateway(raw_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    server = {"max_body": "8KiB", "body_timeout": "300ms", "ping": "300ms", "cors": {"origins": ["HTTPS://App.Example.com:443", "null"]}}
    with _started(raw_upstream, tmp_path_factory.mktemp("gateway"), server) as running:
        yield running


@pytest.fixture(scope="module")
def public(raw_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """For every page, and for none without a key."""
    server = {"cors": {"origins": ["*"], "max_age": "1h"}}
    with _started(raw_upstream, tmp_path_factory.mktemp("public"), server, policies={"authenticate": {"open": False}}) as running:
        yield running


def _is_readable(answer: Answer, origin: str = PAGE) -> None:
    """A page of `origin` may read it, once and without credentials, and no cache gives it to another one."""
    assert answer.all("access-control-allow-origin") == [origin], answer.headers
    assert {name.strip() for name in (answer.header("access-control-expose-headers") or "").split(",")} >= READ
    assert answer.header("access-control-allow-credentials") is None
    assert ("Origin" in answer.all("vary")) is (origin != "*")


def _is_closed(answer: Answer) -> None:
    assert not [name for name, _ in answer.headers if name.lower().startswith("access-control-")], answer.headers
    assert answer.all("vary") == ["Origin"]


# -- preflights --


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/models",
        "/v1/files/file-1",
        "/v1/models/provider/some%2Fname",
        "/openai/deployments/m/chat/completions?api-version=1",
        "/v1/no/such/route",
        "/healthz",
    ],
)
def test_a_preflight_is_answered_on_every_path(gateway: Gateway, path: str):
    before = len(gateway.records)
    answer = ask(gateway.url, "OPTIONS", path, headers=PREFLIGHT)
    assert (answer.status, answer.body, answer.header("content-length")) == (204, b"", None)
    _is_readable(answer)
    assert answer.header("access-control-allow-headers") == ASKED.replace(",", ", ")
    assert {"GET", "POST", "DELETE"} <= set((answer.header("access-control-allow-methods") or "").split(", "))
    assert answer.header("access-control-max-age") == "600"
    assert answer.header("access-control-allow-private-network") is None
    assert len(gateway.records) == before


def test_a_preflight_shows_no_key_and_needs_none(public: Gateway):
    with RawClient(public.url) as client:
        for _ in range(2):
            lines = "".join(f"{name}: {value}\r\n" for name, value in PREFLIGHT.items())
            client.send(f"OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())
            answer = client.read()
            assert (answer.status, answer.header("access-control-max-age")) == (204, "3600")
            _is_readable(answer, "*")
        refused = client.ask("POST", "/v1/chat/completions", chat_body(), headers={"Origin": STRANGE, "Authorization": "Bearer sk-cmp-no"})
    assert refused.status == 401
    _is_readable(refused, "*")


def test_a_page_that_is_not_listed_is_allowed_nothing(gateway: Gateway, upstream: Upstream):
    for origin in (STRANGE, "http://app.example.com", f"{PAGE}:8443", f"{PAGE}.evil.example", "https://app.example.co", "", "*"):
        answer = ask(gateway.url, "OPTIONS", "/v1/chat/completions", headers={**PREFLIGHT, "Origin": origin})
        assert answer.status == 405
        _is_closed(answer)
    upstream.play(CHAT)
    served = chat(gateway.url, headers={"Origin": STRANGE})
    assert served.status == 200
    _is_closed(served)
    _is_closed(ask(gateway.url, "GET", "/v1/models"))


def test_what_only_looks_like_a_preflight_is_refused_as_ever(gateway: Gateway):
    for headers in ({"Origin": PAGE}, {"Access-Control-Request-Method": "POST"}, {}):
        assert ask(gateway.url, "OPTIONS", "/v1/chat/completions", headers=headers).status == 405


def test_a_page_in_a_public_network_may_ask_a_gateway_in_a_private_one(gateway: Gateway):
    for origin, allowed in ((PAGE, "true"), ("null", "true"), (STRANGE, None)):
        headers = {**PREFLIGHT, "Origin": origin, "Access-Control-Request-Private-Network": "true"}
        assert ask(gateway.url, "OPTIONS", "/v1/models", headers=headers).header("access-control-allow-private-network") == allowed


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ("X-One , x-two", "X-One, x-two"),
        ("a b, x-one, x:two, \xe9", "x-one"),
        ("", None),
        (",".join(f"x-{number}" for number in range(65)), None),
        ("x" * 4097, None),
    ],
)
def test_only_names_of_headers_are_allowed_and_not_without_end(gateway: Gateway, asked: str, allowed: str | None):
    answer = ask(gateway.url, "OPTIONS", "/v1/models", headers={**PREFLIGHT, "Access-Control-Request-Headers": asked})
    assert (answer.status, answer.header("access-control-allow-headers")) == (204, allowed)


# -- answers --


def test_an_answer_is_readable_whole_and_as_a_stream(gateway: Gateway, upstream: Upstream):
    with RawClient(gateway.url) as client:
        for origin in (PAGE, "null", PAGE, PAGE):  # the same head again and again is known
            upstream.play(json_response(200, {"choices": [{}]}, [("Access-Control-Allow-Origin", "*"), ("Vary", "Accept")]), CHAT_STREAM)
            _is_readable(client.ask("POST", "/v1/chat/completions", chat_body(), headers={"Origin": origin}), origin)
            stream = client.ask("POST", "/v1/chat/completions", chat_body(stream=True), headers={"Origin": origin})
            assert stream.events[-1] == "[DONE]"
            _is_readable(stream, origin)


def test_a_stream_that_a_ping_begins_is_readable(gateway: Gateway, upstream: Upstream):
    upstream.play(script(Wait(0.5), CHAT_STREAM))
    answer = chat(gateway.url, stream=True, headers={"Origin": PAGE})
    assert answer.body.startswith(b": ping")
    _is_readable(answer)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", chat_body("unknown"), 404),
        ("GET", "/v1/nothing", b"", 404),
        ("PUT", "/v1/chat/completions", b"", 405),
        ("POST", "/v1/chat/completions", b" " * 9000, 413),
        ("GET", "/healthz", b"", 200),
        ("HEAD", "/readyz", b"", 200),
    ],
)
def test_what_the_gateway_says_itself_is_readable(gateway: Gateway, method: str, path: str, body: bytes, status: int):
    answer = ask(gateway.url, method, path, body, headers={"Origin": PAGE})
    assert answer.status == status
    _is_readable(answer)


@pytest.mark.parametrize(("status", "told"), [(429, 429), (500, 500), (401, 502)])
def test_a_providers_failure_is_readable(gateway: Gateway, upstream: Upstream, status: int, told: int):
    upstream.play(error_response(status, headers=[("retry-after", "7")]))
    answer = chat(gateway.url, headers={"Origin": PAGE})
    assert answer.status == told
    _is_readable(answer)


def test_a_body_that_does_not_come_is_refused_readably(gateway: Gateway):
    with RawClient(gateway.url) as client:
        client.send(client.request_bytes("POST", "/v1/chat/completions", headers={"Origin": PAGE, "Content-Length": "9"}))
        answer = client.read()
    assert answer.status == 408
    _is_readable(answer)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Host: a, b\r\nOrigin: %b\r\n", 400),
        (b"Host: a\r\nORIGIN:%b \r\nContent-Length: many\r\n", 400),
        (b"Host: a\r\nOrigin: %b\r\nX-Long: " + b"x" * 20_000 + b"\r\n", 431),
    ],
)
def test_a_refusal_of_what_is_no_request_is_readable(gateway: Gateway, head: bytes, status: int):
    for origin, check in ((PAGE, _is_readable), (STRANGE, _is_closed)):
        with RawClient(gateway.url) as client:
            client.send(b"POST /v1/chat/completions HTTP/1.1\r\n" + head.replace(b"%b", origin.encode()) + b"\r\n")
            answer = client.read()
        assert answer.status == status
        check(answer)


def test_too_many_connections_is_readable_where_every_page_may_read(raw_upstream: Upstream, tmp_path: Path):
    server = {"max_connections": 1, "cors": {"origins": ["*"]}}
    with _started(raw_upstream, tmp_path, server) as gateway, RawClient(gateway.url) as first, RawClient(gateway.url) as second:
        assert first.ask("GET", "/healthz").status == 200
        answer = second.read()
        assert answer.status == 503
        _is_readable(answer, "*")


# -- the rest --


def test_the_admin_plane_is_not_for_pages(gateway: Gateway):
    for method in ("GET", "OPTIONS"):
        answer = ask(gateway.admin, method, "/readyz", headers=PREFLIGHT)
        assert not [name for name, _ in answer.headers if name.lower().startswith(("access-control-", "vary"))]


def test_a_reload_brings_other_pages_and_takes_them_away(raw_upstream: Upstream, tmp_path: Path):
    with _started(raw_upstream, tmp_path, {}) as gateway, RawClient(gateway.url) as client:

        def allowed() -> list[str | None]:
            answers = [client.ask("GET", "/v1/models", headers={"Origin": origin}) for origin in (PAGE, STRANGE)]
            return [answer.header("access-control-allow-origin") for answer in answers]

        assert allowed() == [None, None]
        assert client.ask("OPTIONS", "/v1/models", headers=PREFLIGHT).status == 405
        assert client.ask("GET", "/v1/models").header("vary") is None
        config = yaml.safe_load(gateway.config.read_text())
        for applied, (origins, found) in enumerate([([PAGE], [PAGE, None]), ([STRANGE], [None, STRANGE]), (None, [None, None])], 1):
            config["server"]["cors"] = origins and {"origins": origins}
            gateway.config.write_text(yaml.safe_dump(config))
            gateway.process.send_signal(signal.SIGHUP)
            gateway.wait_metric(applied, "comporta_config_reloads_total", outcome="applied")
            assert allowed() == found
