"""What a hostile client or provider tries: to split answers, to hold connections, to have secrets shown, to break what reads keys."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.gateway import Gateway, error_of, provider
from tests.support.raw_client import Answer, Closed, RawClient, ask, chat, chat_body
from tests.support.script import (
    CHAT,
    CHAT_STREAM,
    LAST_CHUNK,
    Fin,
    Reset,
    Script,
    chat_chunks,
    chunk,
    completion,
    error_response,
    event,
    head,
    json_response,
    response,
    script,
    stream_head,
)
from tests.support.upstream import Upstream

PATH = "/v1/chat/completions"
LINE = "x\r\nX-Injected: 1"


# ------------------------------------------------------------------------------------------------------------------ splitting of answers
@pytest.fixture
def anything(upstream: Upstream) -> Iterator[Upstream]:
    """An upstream that answers whatever comes, however often."""
    kept, upstream.otherwise = upstream.otherwise, script(CHAT)
    yield upstream
    upstream.otherwise = kept


def check_not_split(answer: Answer, gateway: Gateway) -> None:
    assert answer.header("x-injected") is None, answer.headers
    assert all(name.isascii() and not set(value) & set("\r\n\0") for name, value in answer.headers), answer.headers
    assert len(answer.all("x-request-id")) == 1
    gateway.record_of(answer)


NAMES = [LINE, "a\nb", "a\rb", "a\0b", "a\x0bb", "a\x7fb", "\u0085a", "a\u2028b", "\u560a\u560d", "č" * 20, "a" * 300, "{{7*7}}", "../../x"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_models_name_splits_nothing(gateway: Gateway, anything: Upstream, name: str) -> None:
    for model in (name, f"up/{name}"):
        with RawClient(gateway.url) as client:
            answer = client.ask("POST", PATH, chat_body(model))
            check_not_split(answer, gateway)
            assert answer.status in (200, 400, 404)
            assert (answer.status == 400) == bool(set(model) & set("\r\n\0\x0b\x7f") or len(model) > 256), answer.body
            assert client.ask("GET", "/healthz").status == 200


def test_a_models_name_in_a_form_splits_nothing(gateway: Gateway, anything: Upstream) -> None:
    for name in ("up/a\0b", "up/a\x7fb", "up/a\u0085b", "up/č"):
        form = f'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n{name}\r\n--b--\r\n'.encode()
        answer = ask(gateway.url, "POST", "/v1/audio/speech", form, headers={"Content-Type": "multipart/form-data; boundary=b"})
        check_not_split(answer, gateway)
        assert (answer.status == 400) == bool(set(name) & set("\0\x7f"))


ESCAPED = ["a%0d%0aX-Injected:%201", "a%0ab", "a%00b", "%7f"]


@pytest.mark.parametrize("part", ESCAPED)
def test_an_id_holds_no_line_ends(gateway: Gateway, upstream: Upstream, part: str) -> None:
    for path in (f"/v1/files/{part}", f"/v1/responses/{part}", f"/v1/models/{part}", f"/v1/batches/{part}"):
        answer = ask(gateway.url, "GET", path)
        check_not_split(answer, gateway)
        assert answer.status == 404
    assert upstream.requests == []


def test_a_query_stays_one_line(gateway: Gateway, anything: Upstream) -> None:
    answer = ask(gateway.url, "GET", "/v1/files?after=a%0d%0aX-Injected:%201&limit=%00")
    check_not_split(answer, gateway)
    assert b"\nX-Injected" not in anything.requests[0].raw_head


@pytest.mark.parametrize("value", ["b\xff\xfe", "\x85", "a\tb", '"', "a, b; c=\\", "\xe5\x98\x8a\xe5\x98\x8dX-Injected: 1"], ids=ascii)
def test_a_clients_header_stays_one_header(gateway: Gateway, anything: Upstream, value: str) -> None:
    """As it came, or not at all."""
    names = ("X-Client-Request-Id", "OpenAI-Beta", "Idempotency-Key", "Accept", "Traceparent", "X-Stainless-Read-Timeout")
    answer = ask(gateway.url, "POST", PATH, chat_body(), headers=dict.fromkeys(names, value))
    check_not_split(answer, gateway)
    assert answer.status == 200
    received = anything.requests[0]
    assert received.header("x-injected") is None
    assert received.header("x-client-request-id") in (value, None)


FORGED = [b"a\rX-Injected: 1", b"a\nX-Injected: 1", b"a\0b", b"a\r\n X-Injected: 1", b"\x85X-Injected: 1", b"a\x0bb", b"\xff\xfe", b""]


@pytest.mark.parametrize("name", [b"Content-Type", b"OpenAI-Model", b"Retry-After", b"X-Ratelimit-Reset-Requests", b"X-Request-Id"])
@pytest.mark.parametrize("value", FORGED, ids=ascii)
def test_a_providers_header_splits_nothing(single: Gateway, upstream: Upstream, name: bytes, value: bytes) -> None:
    forged = CHAT.replace(b"\r\n", b"\r\n" + name + b": " + value + b"\r\n", 1)
    upstream.play(forged, forged)
    with RawClient(single.url) as client:
        for size in (False, True):
            answer = client.ask("POST", PATH, chat_body(stream=size))
            check_not_split(answer, single)
            assert answer.status in (200, 502), answer.body


# ------------------------------------------------------------------------------------------------------------ connections that are held
@pytest.mark.parametrize(
    "sent", [b"", b"P", b"\r\n", b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX-"], ids=["nothing", "1", "CRLF", "half"]
)
def test_a_head_that_does_not_come_ends_the_connection(tight: Gateway, sent: bytes) -> None:
    """`server.header_timeout` after it was opened, whatever trickles in."""
    started = time.monotonic()
    with RawClient(tight.url) as client:
        client.send(sent)
        while not client.is_closed(0.2):
            client.send(b"a" if sent.endswith(b"-") else b"")
            assert time.monotonic() - started < 3, "it is waited for"
    assert 0.8 < time.monotonic() - started < 2.5


def test_a_later_head_has_no_more_time(tight: Gateway, upstream: Upstream) -> None:
    upstream.play(CHAT)
    with RawClient(tight.url) as client:
        assert client.ask("POST", PATH, chat_body()).status == 200
        client.send(b"GET /v1/mod")
        started = time.monotonic()
        assert client.is_closed(3)
        assert 0.8 < time.monotonic() - started < 2.5


def test_connections_from_one_address_are_bounded(raw_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> None:
    config = {"server": {"max_connections_per_address": 5}, "providers": {"up": provider(raw_upstream.url)}}
    with Gateway(config, tmp_path_factory.mktemp("few")) as few:
        clients = [RawClient(few.url) for _ in range(5)]
        assert [client.ask("GET", "/healthz").status for client in clients] == [200] * 5
        for _ in range(20):
            with RawClient(few.url) as refused:
                refused.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                try:
                    assert refused.read().status == 503
                except Closed:
                    pass
        assert [client.ask("GET", "/healthz").status for client in clients] == [200] * 5
        clients.pop().close()
        time.sleep(0.1)
        with RawClient(few.url) as client:
            assert client.ask("GET", "/healthz").status == 200
        for client in clients:
            client.close()


# ---------------------------------------------------------------------------------------------------------------------------------- keys
KEYS = [
    b"",
    b"Bearer",
    b"Bearer ",
    b"Bearer ' OR '1'='1",
    b"Bearer '; DROP TABLE keys; --",
    b'Bearer "\\"`$(id)',
    b"Bearer \xff\xfe\xf0\x9f\x8e\x89",
    b"Bearer ${jndi:ldap://x}",
    b"Bearer " + b"a" * 8000,
    b"Bearer " + b"%00" * 900,
    b"Basic dXNlcjpwYXNz",
    b"Negotiate ",
    b"Bearer a, Bearer b",
    b"\t Bearer\t x \t",
]
BROKEN_KEYS = [b"Bearer a\0b", b"Bearer a\x01b", b"Bearer a\rb", b"Bearer a\n b", b"Bearer " + b"a" * 1_000_000]


@pytest.mark.parametrize("name", [b"Authorization", b"api-key", b"x-api-key"])
@pytest.mark.parametrize("key", [*KEYS, *BROKEN_KEYS], ids=lambda key: ascii(key[:24]))
def test_no_key_breaks_what_reads_it(gateway: Gateway, anything: Upstream, name: bytes, key: bytes) -> None:
    body = chat_body()
    lines = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n%b: %b\r\nContent-Length: %d\r\n\r\n" % (name, key, len(body))
    with RawClient(gateway.url) as client:
        client.send(lines + body)
        answer = client.read()
    assert answer.status in ((400, 431) if key in BROKEN_KEYS else (200, 401)), answer.body
    assert answer.header("x-request-id")
    if answer.status != 200:
        error_of(answer)
    assert all(key[7:40] not in request.raw_head for request in anything.requests if len(key) > 12)


# ---------------------------------------------------------------------------------------------------------------------------- the canary
CANARY = "cnry-5e1f0c77b2"


def leaks(gateway: Gateway) -> list[str]:
    """Where the canary is to be read by somebody whom it is none of."""
    lines = [json.dumps(line) for line in gateway.lines if CANARY in json.dumps(line)]
    return lines + [str(key) for key in gateway.metrics() if CANARY in str(key)] + [line for line in gateway.noise if CANARY in line]


CLIENTS = {
    "key": {"headers": {"Authorization": f"Bearer {CANARY}"}},
    "header": {"headers": {"X-Secret": CANARY, "Cookie": CANARY, "User-Agent": CANARY, "X-Client-Request-Id": CANARY, "Referer": CANARY}},
    "body": {"body": chat_body(user=CANARY, metadata={CANARY: CANARY})},
    "broken-body": {"body": f'{{"model":"test-model","messages":[{CANARY}'.encode()},
    "wrong-body": {"body": json.dumps({"model": "test-model", "messages": CANARY, "stream": CANARY}).encode()},
    "method": {"method": CANARY.replace("-", "").upper()},
    "path": {"path": f"/v1/{CANARY}"},
    "query": {"path": f"{PATH}?x={CANARY}&api_key={CANARY}"},
    "no-http": {"path": f"/v1/{CANARY}\0"},
    "content-type": {"headers": {"Content-Type": f"multipart/form-data; boundary={CANARY}"}},
}


@pytest.mark.parametrize("how", CLIENTS.values(), ids=CLIENTS.keys())
def test_what_a_client_sends_is_in_no_log_and_no_metric(gateway: Gateway, anything: Upstream, how: dict) -> None:
    options = {"method": "POST", "path": PATH, "body": chat_body(), **how}
    answer = ask(gateway.url, options.pop("method"), options.pop("path"), options.pop("body"), **options)
    if answer.status != 400 or answer.header("connection") != "close":
        gateway.record_of(answer)
    other = chat(gateway.url)
    gateway.record_of(other)
    assert not leaks(gateway)
    assert CANARY not in str(other)


FIRST = stream_head() + b"".join(map(chunk, chat_chunks()[:2]))
MESSAGE = f"key {CANARY} is wrong"
PROVIDERS: dict[str, Script] = {
    "error": script(error_response(400, MESSAGE, type=MESSAGE, param=MESSAGE, code=MESSAGE)),
    "auth": script(error_response(401, MESSAGE)),
    "rate": script(error_response(429, MESSAGE, [("Retry-After", CANARY), ("X-Secret", CANARY)], type=MESSAGE)),
    "failure": script(error_response(500, MESSAGE, more=CANARY)),
    "page": script(response(500, f"<html>{CANARY}".encode(), "text/html")),
    "inside-200": script(json_response(200, {"error": {"message": MESSAGE, "code": MESSAGE}})),
    "no-json": script(response(200, f'{{"choices": {CANARY}'.encode())),
    "content-type": script(response(200, b"{}", f"text/{CANARY}")),
    "coding": script(response(200, b"{}", headers=[("Content-Encoding", CANARY)])),
    "headers": script(json_response(200, completion(), [("X-Secret", CANARY), ("Set-Cookie", CANARY), ("Server", CANARY)])),
    "status-line": script(f"HTTP/1.1 {CANARY}\r\n\r\n".encode(), Fin()),
    "half-a-head": script(head(200, [("X-Secret", CANARY)])[:-2], Reset()),
    "stream-error": script(FIRST + chunk(event({"error": {"message": MESSAGE}})) + LAST_CHUNK),
    "stream-garbage": script(FIRST + chunk(f"data: {CANARY}\n\n".encode()) + LAST_CHUNK),
    "chunk-size": script(FIRST + CANARY.encode(), Fin()),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("answer", PROVIDERS.values(), ids=PROVIDERS.keys())
def test_what_a_provider_sends_is_in_no_log_and_no_metric(gateway: Gateway, upstream: Upstream, answer: Script, stream: bool) -> None:
    upstream.hang_up()
    upstream.play(answer)
    got = chat(gateway.url, stream=stream)
    assert all(CANARY not in value for _, value in got.headers), "a header that nobody may see"
    gateway.record_of(got)
    upstream.play(CHAT_STREAM if stream else CHAT)
    other = chat(gateway.url, stream=stream)
    gateway.record_of(other)
    assert CANARY not in str(other), "another client's answer shows it"
    assert not leaks(gateway)


def test_what_cannot_be_foreseen_is_told_without_its_text(gateway: Gateway) -> None:
    """Whatever a socket says, the log names the place, not the words."""
    with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2]))) as client:
        client.sendall(f"{CANARY} {CANARY}\r\n{CANARY}: {CANARY}\r\n\r\n".encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert not leaks(gateway)
