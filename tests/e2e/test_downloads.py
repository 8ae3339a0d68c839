"""Files through the gateway: any type, whose they are and from when, and where else they lie."""

from __future__ import annotations

import pytest

from tests.support.gateway import Gateway, error_of
from tests.support.raw_client import RawClient, ask
from tests.support.script import LAST_CHUNK, chunk, error_response, response, script, stream_head
from tests.support.upstream import Upstream

PAGE = b"<html><body>A report.</body></html>"
KEPT = [
    ("etag", '"v1"'),
    ("last-modified", "Sat, 01 Aug 2026 00:00:00 GMT"),
    ("cache-control", "private, max-age=60"),
    ("expires", "Sat, 01 Aug 2026 00:01:00 GMT"),
    ("accept-ranges", "bytes"),
    ("content-disposition", 'attachment; filename="report.html"'),
]
FILES = ["/v1/files/file-1/content", "/v1/containers/c-1/files/file-1/content"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", FILES)
def test_a_file_that_is_a_page_comes_as_it_is_and_is_asked_for_once(gateway: Gateway, upstream: Upstream, path: str, method: str) -> None:
    upstream.play(response(200, PAGE, "text/html; charset=utf-8", [*KEPT, ("Set-Cookie", "a=b")]))
    with RawClient(gateway.url) as client:
        answer = client.ask(method, path)
    assert (answer.status, answer.body) == (200, PAGE if method == "GET" else b"")
    assert answer.header("content-type") == "text/html; charset=utf-8"
    assert {name: answer.header(name) for name, _ in KEPT} == dict(KEPT)
    assert answer.header("content-security-policy") == "sandbox"
    assert answer.header("set-cookie") is None
    assert len(upstream.requests) == 1


def test_a_file_of_which_not_a_byte_can_be_read_is_an_error(gateway: Gateway, upstream: Upstream) -> None:
    broken = response(200, b"no gzip", "application/octet-stream", [("Content-Encoding", "gzip")])
    upstream.play(broken, broken)
    with RawClient(gateway.url) as client:
        answer = client.ask("GET", FILES[0])
    assert (answer.status, error_of(answer)["type"]) == (502, "server_error")
    record = gateway.record_of(answer)
    assert (record["status"], record["outcome"], record["error"]) == (502, "upstream_error", error_of(answer)["code"])


def test_a_part_of_a_file_says_which(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(response(206, PAGE[:6], "text/html", [("content-range", "bytes 0-5/35"), *KEPT]))
    with RawClient(gateway.url) as client:
        answer = client.ask("GET", FILES[0], headers={"Range": "bytes=0-5", "If-Range": '"v1"'})
    assert (answer.status, answer.body, answer.header("content-range")) == (206, PAGE[:6], "bytes 0-5/35")
    assert (upstream.requests[0].header("range"), upstream.requests[0].header("if-range")) == ("bytes=0-5", '"v1"')


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_where_a_file_lies_elsewhere_its_client_is_sent_there(gateway: Gateway, upstream: Upstream, status: int, method: str) -> None:
    where = f"http://127.0.0.1:{upstream.port}/elsewhere?signature=abc"
    upstream.play(response(status, b"" if method == "HEAD" else PAGE, "text/html", [("Location", where), ("Set-Cookie", "a=b")]))
    with RawClient(gateway.url) as client:
        answer = client.ask(method, FILES[0])
        assert (answer.status, answer.header("location"), answer.body) == (status, where, b"")
        assert (answer.header("content-type"), answer.header("set-cookie")) == (None, None)
        record = gateway.record_of(answer)
        assert (record["status"], record["outcome"]) == (status, "ok"), record
    assert len(upstream.requests) == 1, "nobody follows it but the client"


@pytest.mark.parametrize("where", ["/v1/files/file-2/content", "ftp://files.example/f", "https://user:word@files.example/f"])
def test_a_file_is_nowhere_that_a_client_should_not_go(single: Gateway, upstream: Upstream, where: str) -> None:
    upstream.play(response(302, b"", "text/plain", [("Location", where)]))
    answer = ask(single.url, "GET", FILES[0])
    assert (answer.status, answer.json()["error"]["code"], answer.header("location")) == (502, "bad_upstream", None)


@pytest.mark.parametrize("path", ["/v1/files/file-1", "/v1/batches"])
def test_what_is_no_file_is_neither_a_page_nor_elsewhere(single: Gateway, upstream: Upstream, path: str) -> None:
    upstream.play(response(200, PAGE, "text/html"))
    upstream.play(response(302, b"", "text/plain", [("Location", "https://files.example/f")]))
    for _ in range(2):
        answer = ask(single.url, "GET", path)
        assert (answer.status, answer.header("location")) == (502, None)
        assert PAGE not in answer.body


@pytest.mark.parametrize(("upstreams", "shown"), [(429, 429), (400, 400), (500, 500), (401, 502)])
def test_a_providers_error_says_its_name_of_the_request_and_what_is_left_of_its_rate_limits(
    single: Gateway, upstream: Upstream, upstreams: int, shown: int
) -> None:
    said = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}
    more = [("x-ratelimit-other", "1"), ("openai-version", "2019"), ("x-request-id", "upstream-own-id")]
    upstream.play(error_response(upstreams, headers=[*said.items(), *more]))
    answer = ask(single.url, "GET", "/v1/files/file-1")
    assert answer.status == shown
    assert {name: answer.header(name) for name in said} == said
    assert (answer.header("x-ratelimit-other"), answer.header("openai-version")) == (None, "2020-10-01")
    assert answer.header("x-comporta-provider-request-id") == "upstream-own-id"
    assert single.record_of(answer)["provider_request_id"] == "upstream-own-id"


def test_an_event_that_holds_a_large_image_goes_through(gateway: Gateway, upstream: Upstream) -> None:
    image = b'event: image_generation.completed\ndata: {"type":"image_generation.completed","b64_json":"%b"}\n\n' % (b"A" * 9 * 2**20)
    upstream.play(script(stream_head(), chunk(image), LAST_CHUNK))
    answer = ask(gateway.url, "POST", "/v1/images/generations", b'{"model":"test-model","prompt":"a","stream":true}')
    assert (answer.status, answer.body) == (200, image)
