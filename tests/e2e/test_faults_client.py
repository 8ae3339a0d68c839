"""Rows 38 to 40 of the fault matrix: bodies that cannot be served. Each request is sent whole and one byte at a time."""

from __future__ import annotations

import gzip
import select
import time

import pytest

from tests.support.gateway import Gateway, error_of
from tests.support.raw_client import Answer, RawClient, chat_body
from tests.support.script import CHAT
from tests.support.upstream import Upstream

REJECTED = "llm_rejected_total"
PATH = "/v1/chat/completions"
LINGER = 4.0  # seconds: a refused request's connection is read on for a moment, or its reset would take the answer with it


@pytest.fixture(params=[0, 1], ids=["whole", "sliced"])
def size(request: pytest.FixtureRequest) -> int:
    """How the client sends: 0 is all at once, else in slices of so many bytes."""
    return int(request.param)


def check_rejected(gateway: Gateway, upstream: Upstream, answer: Answer, status: int, code: str) -> None:
    assert answer.status == status, answer.body
    error = error_of(answer)
    assert (error["type"], error["code"]) == ("invalid_request_error", code), error
    record = gateway.record_of(answer)
    assert (record["status"], record["outcome"], record["error"], record["usage"]) == (status, "client_error", code, "none"), record
    assert upstream.requests == [], "it reached the upstream"


def check_serves(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT)
    with RawClient(gateway.url) as client:
        assert client.ask("POST", PATH, chat_body()).status == 200


# ------------------------------------------------------------------------------------------------------------------- row 38: body too large
@pytest.mark.row(38)
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_over_the_limit(tight: Gateway, upstream: Upstream, size: int, framing: str) -> None:
    body = chat_body(padding="x" * 9000)
    chunks = [body[:4000], body[4000:]] if framing == "chunks" else None
    before = tight.metric(REJECTED, code="request_too_large")
    with RawClient(tight.url) as client:
        answer = client.ask("POST", PATH, body, size=size, chunks=chunks)
        assert answer.header("connection") == "close"
        assert client.is_closed(), "what is left of the body could be taken for a request"
    check_rejected(tight, upstream, answer, 413, "request_too_large")
    tight.wait_metric(before + 1, REJECTED, code="request_too_large")
    check_serves(tight, upstream)


@pytest.mark.row(38)
def test_a_length_over_the_limit_is_refused_before_the_body(tight: Gateway, upstream: Upstream) -> None:
    with RawClient(tight.url, timeout=2) as client:
        answer = client.ask("POST", PATH, headers={"Content-Length": "99999999", "Content-Type": "application/json"})
        assert client.is_closed(LINGER)
    check_rejected(tight, upstream, answer, 413, "request_too_large")


@pytest.mark.row(38)
def test_chunks_over_the_limit_are_refused_before_their_end(tight: Gateway, upstream: Upstream) -> None:
    with RawClient(tight.url, timeout=2) as client:
        request = client.request_bytes("POST", PATH, chunks=[chat_body(padding="x" * 9000)])
        client.send(request.removesuffix(b"0\r\n\r\n"))
        answer = client.read()
        assert client.is_closed(LINGER)
    check_rejected(tight, upstream, answer, 413, "request_too_large")


@pytest.mark.row(38)
def test_a_body_just_under_the_limit_is_served(tight: Gateway, upstream: Upstream, size: int) -> None:
    body = chat_body(padding="")
    body = chat_body(padding="x" * (8192 - len(body)))
    assert len(body) == 8192
    upstream.play(CHAT)
    with RawClient(tight.url) as client:
        assert client.ask("POST", PATH, body, size=size).status == 200
    assert upstream.requests[0].body == body


def test_a_body_that_stops_coming(tight: Gateway, upstream: Upstream) -> None:
    """`server.body_timeout` after the last byte the request is over, and nothing of it has reached the upstream."""
    body = chat_body()
    mark = tight.mark()
    with RawClient(tight.url, timeout=4) as client:
        client.send(client.request_bytes("POST", PATH, body)[:-20])
        answer = client.read()
        assert client.is_closed(LINGER)
    assert answer.status == 408, answer.body
    error_of(answer)
    record = tight.record_since(mark)
    assert (record["status"], record["outcome"]) == (408, "client_error"), record
    assert upstream.requests == []


def test_a_body_that_drips(tight: Gateway, upstream: Upstream) -> None:
    """A byte now and then does not hold a request for ever: four times `server.body_timeout`, and a little more for what came."""
    mark, began = tight.mark(), time.monotonic()
    with RawClient(tight.url, timeout=10) as client:
        client.send(client.request_bytes("POST", PATH, chat_body(padding="x" * 100))[:-100])
        while not select.select([client.socket], [], [], 0.5)[0]:
            assert time.monotonic() - began < 8, "it is still read"
            client.send(b"x")
        answer = client.read()
        assert client.is_closed(LINGER)
    assert time.monotonic() - began > 3
    assert answer.status == 408, answer.body
    assert error_of(answer)["code"] == "request_timeout"
    assert tight.record_since(mark)["status"] == 408
    assert upstream.requests == []


# --------------------------------------------------------------------------------------------------------------- bodies that are compressed
@pytest.mark.parametrize("coding", ["gzip", "br", "ZSTD", "gzip, identity"])
@pytest.mark.parametrize("path", [PATH, "/v1/embeddings", "/v1/responses"])
def test_a_compressed_body_is_refused(gateway: Gateway, upstream: Upstream, path: str, coding: str) -> None:
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    with RawClient(gateway.url) as client:
        answer = client.ask("POST", path, gzip.compress(chat_body()), headers=headers)
        check_rejected(gateway, upstream, answer, 415, "unsupported_media_type")
        assert coding in error_of(answer)["message"]
        upstream.play(CHAT)
        assert client.ask("POST", PATH, chat_body()).status == 200, "the connection does not survive a body that was there"


@pytest.mark.parametrize("kind", ["application/octet-stream", "multipart/form-data; boundary=b"])
def test_a_compressed_file_is_refused(gateway: Gateway, upstream: Upstream, kind: str) -> None:
    """What it is compressed with is not passed on: the provider would keep what nobody can read."""
    with RawClient(gateway.url) as client:
        answer = client.ask("POST", "/v1/files", gzip.compress(b"a file"), headers={"Content-Encoding": "gzip", "Content-Type": kind})
    check_rejected(gateway, upstream, answer, 415, "unsupported_media_type")


def test_a_compressed_body_that_is_not_there_yet_ends_its_connection(gateway: Gateway, upstream: Upstream) -> None:
    """What still comes of it must not be taken for a request."""
    body = chat_body()
    with RawClient(gateway.url) as client:
        client.send(client.request_bytes("POST", PATH, body, headers={"Content-Encoding": "gzip"})[: -len(body)])
        answer = client.read()
        assert answer.header("connection") == "close"
        client.send(body)
        assert client.is_closed(LINGER)
    check_rejected(gateway, upstream, answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
def test_a_body_that_says_that_it_is_not_compressed_is_served(gateway: Gateway, upstream: Upstream, coding: str) -> None:
    upstream.play(CHAT)
    with RawClient(gateway.url) as client:
        assert client.ask("POST", PATH, chat_body(), headers={"Content-Encoding": coding}).status == 200


# -------------------------------------------------------------------------------------------------- rows 39 and 40: bodies that are no JSON
def with_content(content: bytes) -> bytes:
    return b'{"model":"test-model","messages":[{"role":"user","content":' + content + b"}]}"


def nested(depth: int) -> bytes:
    """A body in which arrays and objects stand `depth` deep."""
    return b'{"model":"test-model","messages":[{"role":"user","content":"hi"}],"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


INVALID = {
    "nothing": b"",
    "blanks": b"  \n ",
    "no-json": b"hello",
    "cut": chat_body()[:-3],
    "two-values": chat_body() + b"{}",
    "trailing-comma": b'{"model":"test-model","messages":[],}',
    "bad-utf8": with_content(b'"\xff\xfe"'),
    "cut-utf8": with_content(b'"\xf0\x9f\x8e"'),
    "overlong-utf8": with_content(b'"\xc0\xaf"'),
    "nan": b'{"model":"test-model","messages":[],"temperature":NaN}',
    "infinity": b'{"model":"test-model","messages":[],"temperature":Infinity}',
    "minus-infinity": b'{"model":"test-model","messages":[],"temperature":-Infinity}',
    "65-deep": nested(65),
    "3000-deep": nested(3000),
    "65-objects-deep": b'{"model":"test-model","messages":[],"x":' + b'{"a":' * 64 + b"1" + b"}" * 64 + b"}",
    "5000-digits": b'{"model":"test-model","messages":[],"seed":' + b"9" * 5000 + b"}",
    "5000-digits-unused": b'{"model":"test-model","messages":[{"role":"user","content":"hi"}],"x":{"y":[-' + b"9" * 5000 + b"]}}",
    "a-list": b"[]",
    "a-string": b'"hello"',
    "a-number": b"1",
    "null": b"null",
    "control-character": with_content(b'"a\x01b"'),
    "lone-high-surrogate": with_content(rb'"\ud83d"'),
    "lone-low-surrogate": with_content(rb'"a \uDE00 b"'),
    "swapped-surrogates": with_content(rb'"\ude00\ud83d"'),
    "surrogate-in-a-name": b'{"model":"test-model","messages":[],"\\ud800":1}',
    "surrogate-in-the-model": b'{"model":"test-\\ud800","messages":[]}',
    "surrogate-as-bytes": with_content(b'"\xed\xa0\x80"'),
}


JSON_CASES = [
    pytest.param(body, id=name, marks=pytest.mark.row(40 if "surrogate" in name else 39, cut="both")) for name, body in INVALID.items()
]


@pytest.mark.parametrize("body", JSON_CASES)
def test_a_body_that_is_no_json_object(gateway: Gateway, upstream: Upstream, body: bytes) -> None:
    before = gateway.metric(REJECTED, code="invalid_json")
    with RawClient(gateway.url) as client:
        for answer in [client.ask("POST", PATH, body, size=size) for size in (0, 1)]:
            check_rejected(gateway, upstream, answer, 400, "invalid_json")
        gateway.wait_metric(before + 2, REJECTED, code="invalid_json")
        upstream.play(CHAT)
        assert client.ask("POST", PATH, chat_body()).status == 200, "the connection does not survive a body that was read whole"


@pytest.mark.row(39, 40)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions"])
@pytest.mark.parametrize("name", ["bad-utf8", "nan", "65-deep", "5000-digits", "a-list", "lone-high-surrogate"])
def test_every_operation_reads_its_body_as_strictly(gateway: Gateway, upstream: Upstream, path: str, name: str) -> None:
    with RawClient(gateway.url) as client:
        check_rejected(gateway, upstream, client.ask("POST", path, INVALID[name]), 400, "invalid_json")


VALID = {
    "64-deep": nested(64),
    "brackets-in-text": with_content(b'"' + b"[{" * 200 + b'"'),
    "escaped-quotes-and-brackets": with_content(rb'"\\\"[[[' + b"[" * 100 + b'"'),
    "100-digits": b'{"model":"test-model","messages":[{"role":"user","content":"hi"}],"x":' + b"9" * 100 + b"}",
    "5000-digits-of-text": with_content(b'"' + b"9" * 5000 + b'"'),
    "a-pair-of-surrogates": with_content(rb'"\ud83d\ude00"'),
    "an-escaped-backslash-before-ud800": with_content(rb'"\\ud800"'),
    "nul": with_content(rb'"a\u0000b"'),
    "words-nan-in-text": with_content(b'"NaN Infinity -Infinity"'),
    "blanks-around": b" \r\n\t" + chat_body() + b"\n",
}


@pytest.mark.row(39)
@pytest.mark.parametrize("body", VALID.values(), ids=VALID.keys())
def test_what_only_looks_wrong_is_passed_on_untouched(gateway: Gateway, upstream: Upstream, size: int, body: bytes) -> None:
    upstream.play(CHAT)
    with RawClient(gateway.url) as client:
        answer = client.ask("POST", PATH, body, size=size)
    assert answer.status == 200, answer.body
    assert upstream.requests[0].body == body


FIELDS = [
    (b'{"messages":[{"role":"user","content":"hi"}]}', "model"),
    (b'{"model":null,"messages":[{"role":"user","content":"hi"}]}', "model"),
    (b'{"model":7,"messages":[{"role":"user","content":"hi"}]}', "model"),
    (b'{"model":"","messages":[{"role":"user","content":"hi"}]}', "model"),
    (b'{"model":"test-model"}', "messages"),
    (b'{"model":"test-model","messages":"hi"}', "messages"),
    (b'{"model":"test-model","messages":[],"stream":"yes"}', "stream"),
]


@pytest.mark.parametrize(("body", "field"), FIELDS, ids=[body.decode() for body, _ in FIELDS])
def test_the_message_names_the_field(gateway: Gateway, upstream: Upstream, body: bytes, field: str) -> None:
    with RawClient(gateway.url) as client:
        answer = client.ask("POST", PATH, body)
    assert answer.status == 400, answer.body
    error = error_of(answer)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == field, error
    assert field in error["message"], error
    assert upstream.requests == []
    assert gateway.record_of(answer)["outcome"] == "client_error"


@pytest.mark.parametrize("name", ["test-model\r\nX-Injected: 1", "test\x00model", "test\nmodel"])
def test_a_model_name_cannot_carry_line_ends(gateway: Gateway, upstream: Upstream, name: str) -> None:
    with RawClient(gateway.url) as client:
        answer = client.ask("POST", PATH, chat_body(name))
    assert answer.status in (400, 404), answer.body
    error_of(answer)
    assert all("\r" not in value and "\n" not in value for _, value in answer.headers)
    assert answer.header("x-injected") is None
    assert upstream.requests == []
