"""Rows 36 and 37 of the fault matrix: heads that are too large, and requests that two servers could take for two different ones.

Behind each stands a second request. Were it answered, whoever is in front of the gateway would have had it smuggled past. Each is sent
whole, one byte at a time, and head and body apart.
"""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.support.gateway import Gateway, error_of
from tests.support.raw_client import Answer, Closed, RawClient, chat_body
from tests.support.script import CHAT, script
from tests.support.upstream import Upstream

BODY = chat_body()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
NEXT = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n"
REJECTED = "llm_rejected_total"


def with_length(*lines: bytes) -> bytes:
    return HEAD + b"".join(lines) + LENGTH + b"\r\n" + BODY


def in_chunks(*lines: bytes) -> bytes:
    return HEAD + b"".join(lines) + b"\r\n" + CHUNKS


def chunks(form: bytes) -> bytes:
    """A chunked body: `N` stands for the size of the one chunk, `B` for its bytes."""
    return HEAD + CHUNKED + b"\r\n" + form.replace(b"N", b"%x" % len(BODY), 1).replace(b"B", BODY, 1)


HEADS = {
    # Where does the body end?
    "the same length twice": with_length(LENGTH),
    "two lengths": with_length(b"Content-Length: 3\r\n"),
    "a list of lengths": HEAD + b"Content-Length: %d, %d\r\n\r\n" % (len(BODY), len(BODY)) + BODY,
    "length and chunks": in_chunks(LENGTH, CHUNKED),
    "chunks and length": in_chunks(CHUNKED, LENGTH),
    "a signed length": HEAD + b"Content-Length: +%d\r\n\r\n" % len(BODY) + BODY,
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n" + BODY,
    "a hexadecimal length": HEAD + b"Content-Length: 0x%x\r\n\r\n" % len(BODY) + BODY,
    "a length in two words": HEAD + b"Content-Length: 1 2\r\n\r\n" + BODY,
    "a length with an underscore": HEAD + b"Content-Length: 1_0\r\n\r\n" + BODY,
    "an empty length": HEAD + b"Content-Length: \r\n\r\n" + BODY,
    "a length beyond 64 bits": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
    "a length of 5000 digits": HEAD + b"Content-Length: " + b"0" * 5000 + b"%d\r\n\r\n" % len(BODY) + BODY,
    "chunked twice": in_chunks(CHUNKED, CHUNKED),
    "chunked twice in one line": in_chunks(b"Transfer-Encoding: chunked, chunked\r\n"),
    "compressed and chunked": in_chunks(b"Transfer-Encoding: gzip, chunked\r\n"),
    "chunked, then compressed": in_chunks(b"Transfer-Encoding: chunked, gzip\r\n"),
    "a coding nobody knows": in_chunks(b"Transfer-Encoding: xchunked\r\n"),
    "the identity coding": in_chunks(b"Transfer-Encoding: identity\r\n"),
    "a coding in quotes": in_chunks(b'Transfer-Encoding: "chunked"\r\n'),
    "a vertical tab before the coding": in_chunks(b"Transfer-Encoding: \x0bchunked\r\n"),
    "an empty coding and a length": with_length(b"Transfer-Encoding: \r\n"),
    "chunks in HTTP/1.0": in_chunks(CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    # Where does a line end?
    "bare LF throughout": with_length(b"").replace(b"\r\n", b"\n"),
    "a bare LF after the request line": with_length().replace(b"\r\n", b"\n", 1),
    "a bare LF after a header": with_length(b"X-A: b\n"),
    "a bare LF after the head": HEAD + LENGTH + b"\n" + BODY,
    "a bare CR in a value": with_length(b"X-A: b\rc\r\n"),
    "a header behind a bare CR": with_length(b"X-A: b\rTransfer-Encoding: chunked\r\n"),
    "CR CR LF": with_length(b"X-A: b\r\r\n"),
    "a folded value": with_length(b"X-A: b\r\n c\r\n"),
    "a value folded with a tab": with_length(b"X-A: b\r\n\tc\r\n"),
    "a folded coding": in_chunks(b"Transfer-Encoding:\r\n chunked\r\n"),
    "a blank before the first header": with_length().replace(b"Host", b" Host", 1),
    # What is a name, what a value?
    "a blank before the colon of a coding": in_chunks(b"Transfer-Encoding : chunked\r\n"),
    "a blank before the colon of a length": HEAD + b"Content-Length : %d\r\n\r\n" % len(BODY) + BODY,
    "NUL in a value": with_length(b"X-A: b\x00c\r\n"),
    "NUL in a name": with_length(b"X-\x00A: b\r\n"),
    "NUL in the path": with_length().replace(b"chat", b"ch\x00at", 1),
    "a control character in a value": with_length(b"X-A: b\x01c\r\n"),
    "a line without a colon": with_length(b"nothing\r\n"),
    "a header without a name": with_length(b": x\r\n"),
    "a name that is no token": with_length(b"X(a): x\r\n"),
    "no host": with_length().replace(b"Host: gateway\r\n", b"", 1),
    "two hosts": with_length(b"Host: other\r\n"),
    "a host in two words": with_length().replace(b"Host: gateway", b"Host: gate way", 1),
    # What is it at all?
    "HTTP/2.0": with_length().replace(b"HTTP/1.1", b"HTTP/2.0", 1),
    "HTTP/1.2": with_length().replace(b"HTTP/1.1", b"HTTP/1.2", 1),
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method in small letters": with_length().replace(b"POST", b"post", 1),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 60,
    "a target that is no path": with_length().replace(b"/v1/", b"?/v1/", 1),
    "a target with a broken host": with_length().replace(b"/v1/", b"http://[::1/v1/", 1),
    "a path that is not ASCII": with_length().replace(b"chat", b"ch\xff\xfeat", 1),
}

BODIES = {
    "a size of letters": chunks(b"xyz\r\nB\r\n0\r\n\r\n"),
    "a size with 0x": chunks(b"0xN\r\nB\r\n0\r\n\r\n"),
    "a signed size": chunks(b"+N\r\nB\r\n0\r\n\r\n"),
    "a negative size": chunks(b"-N\r\nB\r\n0\r\n\r\n"),
    "a blank before the size": chunks(b" N\r\nB\r\n0\r\n\r\n"),
    "a blank after the size": chunks(b"N \r\nB\r\n0\r\n\r\n"),
    "a size with an underscore": chunks(b"N_0\r\nB\r\n0\r\n\r\n"),
    "no size": chunks(b"\r\nB\r\n0\r\n\r\n"),
    "a size beyond 64 bits": chunks(b"1000000000000N\r\nB\r\n0\r\n\r\n").replace(b"1000000000000", b"1" + b"0" * 20),
    "a bare LF after the size": chunks(b"N\nB\r\n0\r\n\r\n"),
    "a bare LF after the chunk": chunks(b"N\r\nB\n0\r\n\r\n"),
    "a bare LF in an extension": chunks(b"N;a\n\r\nB\r\n0\r\n\r\n"),
    "a bare CR in an extension": chunks(b"N;a\rb\r\nB\r\n0\r\n\r\n"),
    "a chunk longer than its size": chunks(b"N\r\nBX\r\n0\r\n\r\n"),
    "no line end after the chunk": chunks(b"N\r\nB0\r\n\r\n"),
    "bare LF at the end": chunks(b"N\r\nB\r\n0\n\n"),
    "a last line of a bare LF": chunks(b"N\r\nB\r\n0\r\n\n"),
    "a length among the trailers": chunks(b"N\r\nB\r\n0\r\nContent-Length: 5\r\n\r\n"),
    "a trailer without a colon": chunks(b"N\r\nB\r\n0\r\nnothing\r\n\r\n"),
}


def provoke(gateway: Gateway, data: bytes, size: int | None) -> Answer:
    """The one answer to `data`, sent in slices of `size` (0: whole; None: head and body apart), after which the connection is closed."""
    started = time.monotonic()
    with RawClient(gateway.url, timeout=5) as client:
        if size is None:
            head, mark, body = data.partition(b"\r\n\r\n")
            client.send(head + mark)
            time.sleep(0.01)
            client.send(body)
        else:
            client.send(data, size)
        answer = client.read()
        assert client.is_closed(), "what follows could be anybody's, and is read"
    assert time.monotonic() - started < 3, "it was waited for"
    assert answer.header("connection") == "close"
    return answer


def check_refused(gateway: Gateway, upstream: Upstream, data: bytes, statuses: tuple[int, ...], codes: tuple[str, ...]) -> None:
    before = gateway.metric(REJECTED)
    for size in (0, 1, None):
        answer = provoke(gateway, data + NEXT, size)
        assert answer.status in statuses, (size, answer.body)
        assert error_of(answer)["code"] in codes, (size, answer.body)
        check_recorded(gateway, answer)
        assert upstream.requests == [], "it reached the upstream"
    gateway.wait_metric(before + 3, REJECTED)


def check_recorded(gateway: Gateway, answer: Answer) -> None:
    """Its id finds a line, which tells nothing of the bytes."""
    record = gateway.record_of(answer)
    assert (record["status"], record["error"], record["outcome"]) == (answer.status, error_of(answer)["code"], "client_error")
    assert len(json.dumps(record)) < 600


@pytest.mark.row(37, cut="both")
@pytest.mark.parametrize("data", HEADS.values(), ids=HEADS.keys())
def test_a_head_that_can_be_read_in_two_ways(gateway: Gateway, upstream: Upstream, data: bytes) -> None:
    check_refused(gateway, upstream, data, (400,), ("bad_request",))


@pytest.mark.row(37, cut="both")
@pytest.mark.parametrize("data", BODIES.values(), ids=BODIES.keys())
def test_chunks_that_can_be_read_in_two_ways(gateway: Gateway, upstream: Upstream, data: bytes) -> None:
    check_refused(gateway, upstream, data, (400,), ("bad_request",))


UNUSUAL = {
    "a length with zeros before it": HEAD + b"Content-Length: 000%d\r\n\r\n" % len(BODY) + BODY,
    "a coding in capitals": in_chunks(b"TRANSFER-ENCODING: CHUNKED\r\n"),
    "an extension": chunks(b"N;a=b\r\nB\r\n0\r\n\r\n"),
    "a trailer": chunks(b"N\r\nB\r\n0\r\nX-Sum: 1\r\n\r\n"),
    "empty lines before it": b"\r\n\r\n" + with_length(),
    "an empty line that ends in a bare LF before it": b"\n" + with_length(),
    "an empty host": with_length().replace(b"Host: gateway", b"Host:", 1),
    "bytes that are not ASCII in a value": with_length(b"X-A: b\xff\xfe\r\n"),
}


@pytest.mark.row(37, cut="both")
@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_what_is_only_unusual_is_served(gateway: Gateway, upstream: Upstream, data: bytes) -> None:
    for size in (0, 1):
        upstream.play(CHAT)
        with RawClient(gateway.url) as client:
            client.send(data + NEXT, size)
            assert [client.read().status for _ in range(2)] == [200, 200]
    assert [request.body for request in upstream.requests] == [BODY, BODY]


@pytest.mark.row(37)
def test_one_that_is_refused_leaves_those_before_it_alone(gateway: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT)
    with RawClient(gateway.url) as client:
        client.send(with_length())
        assert client.read().status == 200
        client.send(HEADS["two lengths"] + NEXT)
        assert client.read().status == 400
        assert client.is_closed()
    assert len(upstream.requests) == 1


@pytest.mark.row(37)
def test_nothing_of_one_request_becomes_another_upstream(gateway: Gateway, upstream: Upstream) -> None:
    """A request inside a body stays there: what goes out is framed anew."""
    hidden = chat_body(user="POST /v1/files HTTP/1.1\r\nHost: x\r\n\r\n")
    upstream.otherwise, before = script(CHAT), upstream.otherwise
    with RawClient(gateway.url) as client:
        sizes = [1, 3, len(hidden) - 4]
        assert client.ask("POST", "/v1/chat/completions", chunks=[hidden[: sizes[0]], hidden[sizes[0] : 9], hidden[9:]]).status == 200
    upstream.otherwise = before
    assert [(request.target, request.body) for request in upstream.requests] == [("/v1/chat/completions", hidden)]
    assert re.findall(rb"(?i)transfer-encoding|content-length", upstream.requests[0].raw_head) == [b"content-length"]


# ---------------------------------------------------------------------------------------------------------------------- row 36: too large
LARGE = {
    "a URL of 10 kB": with_length().replace(b"completions ", b"completions?" + b"a" * 10_000 + b" ", 1),
    "a URL of 2 MB": with_length().replace(b"completions ", b"completions?" + b"a" * 2_000_000 + b" ", 1),
    "a header of 10 kB": with_length(b"X-Long: " + b"a" * 10_000 + b"\r\n"),
    "a header of 2 MB": with_length(b"X-Long: " + b"a" * 2_000_000 + b"\r\n"),
    "a name of 2 MB": with_length(b"X" * 2_000_000 + b": a\r\n"),
    "a key of 1 MB": with_length(b"Authorization: Bearer " + b"a" * 1_000_000 + b"\r\n"),
    "500 headers": with_length(b"".join(b"X-%d: a\r\n" % number for number in range(500))),
    "20000 headers": with_length(b"".join(b"X-%d: a\r\n" % number for number in range(20_000))),
    "headers without an end": HEAD + b"X-Many: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 40_000,
}


@pytest.mark.row(36, cut="both")
@pytest.mark.parametrize("data", LARGE.values(), ids=LARGE.keys())
def test_a_head_that_is_too_large(gateway: Gateway, upstream: Upstream, data: bytes) -> None:
    before = gateway.metric(REJECTED)
    for size in (0, 1 if len(data) < 50_000 else 4096):
        answer = provoke(gateway, data, size)
        assert answer.status in (400, 414, 431), answer.body
        assert error_of(answer)["code"] in ("bad_request", "uri_too_long", "headers_too_large")
        check_recorded(gateway, answer)
    gateway.wait_metric(before + 2, REJECTED)
    assert upstream.requests == []


@pytest.mark.row(36)
def test_a_refused_client_that_goes_on_sending_is_cut_off(gateway: Gateway) -> None:
    """It is read from for a moment, so that it can read its answer; not for ever."""
    started = time.monotonic()
    with RawClient(gateway.url) as client:
        client.send(b"not HTTP\r\n\r\n")
        assert client.read().status == 400
        while client.send(b"x" * 65536):
            assert time.monotonic() - started < 6, "it may send for ever"
            time.sleep(0.01)


@pytest.mark.row(36, cut="both")
def test_a_head_just_under_the_limit_is_served(gateway: Gateway, upstream: Upstream) -> None:
    for size in (0, 1):
        upstream.play(CHAT)
        with RawClient(gateway.url) as client:
            client.send(with_length(b"X-Long: " + b"a" * 8000 + b"\r\n"), size)
            try:
                assert client.read().status == 200
            except Closed:
                pytest.fail("it was closed without an answer")
