"""Rows of docs/faults.md after which another target is asked, over sockets: three providers, of which the first ones fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Door, closed_port
from tests.e2e.faults import BEGUN, HTML
from tests.support.gateway import Gateway, error_of, provider, stream_error_of
from tests.support.raw_client import Answer, RawClient, chat
from tests.support.script import (
    CHAT,
    CHAT_STREAM,
    Reset,
    Script,
    Stall,
    Wait,
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

Cut = Callable[[Script], Script]
HASTY = {"connect": "1s", "first_token": "300ms", "idle": "1s", "total": "3s"}
LOGGED = "Primary model failed, trying fallback"


class Trio:
    """The scripted upstreams `a`, `b` and `c`, and the gateway before them. No retries, so that each row's fallback is seen alone."""

    def __init__(self, folder: Any) -> None:
        self.a, self.b, self.c = Upstream(), Upstream(), Upstream()
        self._door = Door(b"\x15\x03\x09not TLS at all\r\n", at_once=False)
        broken = {
            "refusing": f"http://127.0.0.1:{closed_port()}",
            "nowhere": "http://no-such-host.invalid",
            "babbling": f"https://127.0.0.1:{self._door.port}",
        }
        urls = {"a": self.a.url, "b": self.b.url, "c": self.c.url, **broken}
        models: dict[str, Any] = {
            "pair": {"targets": [{"provider": "a", "model": "m-a"}, {"provider": "b", "model": "m-b", "weight": 0}]},
            "smart": {"provider": "a", "model": "m-a", "fallback": [{"on": "context_window", "to": "long"}, "pair", "last"]},
            "safe": {"provider": "a", "model": "m-a", "fallback": [{"on": "content_policy", "to": "last"}]},
            "long": {"provider": "b", "model": "m-long"},
            "last": {"provider": "c", "model": "m-c"},
        }
        models |= {name: {"provider": name, "model": "m", "fallback": ["last"]} for name in broken}
        config = {
            "providers": {name: provider(url, timeouts=HASTY) for name, url in urls.items()},
            "models": models,
            "policies": {"retry": {"max_retries": 0}, "circuit_breaker": False},
        }
        self.gateway = Gateway(config, folder)

    def stop(self) -> None:
        self.gateway.stop()
        self._door.stop()
        for upstream in (self.a, self.b, self.c):
            upstream.stop()

    def ask(self, model: str, stream: bool = False) -> Answer:
        for upstream in (self.a, self.b, self.c):
            upstream.forget()
        return chat(self.gateway.url, model, stream=stream)

    def served(self, stream: bool) -> Script:
        return script(CHAT_STREAM if stream else CHAT)


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    running = Trio(tmp_path_factory.mktemp("trio"))
    yield running
    running.stop()


def check_served(answer: Answer, stream: bool, provider: str, model: str) -> None:
    assert answer.status == 200, answer.body
    assert (answer.header("x-comporta-provider"), answer.header("x-comporta-model")) == (provider, model)
    if stream:
        assert answer.body == b"".join(_chunks(CHAT_STREAM))
    else:
        assert answer.json() == completion()


def _chunks(whole: bytes) -> Iterator[bytes]:
    """The data of a chunked answer, without its framing, and without the usage that the client has not asked for."""
    rest = whole.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        data, rest = rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        if b'"choices":[]' not in data:
            yield data


FAULTS: dict[str, tuple[Script, str]] = {
    "6 half a head": (script(head(200)[:12], Wait(0.02), Reset()), "bad_upstream"),
    "6 no HTTP": (script(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "bad_upstream"),
    "7 reset inside JSON": (script(CHAT[:-20], Wait(0.02), Reset()), "reset"),
    "9 a stall": (script(Stall()), "upstream_timeout"),
    "11 a limit with seconds": (script(error_response(429, headers=[("retry-after", "120")])), "rate_limit_exceeded"),
    "13 a limit with nonsense": (script(error_response(429, headers=[("retry-after", "NaN")])), "rate_limit_exceeded"),
    "14 no money": (script(error_response(429, code="insufficient_quota")), "insufficient_quota"),
    "15 500": (script(error_response(500)), "server_error"),
    "15 503": (script(error_response(503)), "server_error"),
    "16 529": (script(error_response(529)), "overloaded"),
    "18 401": (script(error_response(401)), "provider_auth"),
    "19 no JSON": (script(response(200, b'{"choices": [')), "invalid_response"),
    "21 a page": (script(response(200, HTML, "text/html")), "bad_upstream"),
    "26 an error with 200": (script(json_response(200, {"error": {"message": "x", "type": "overloaded_error"}})), "overloaded"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole-answer", "stream"])
@pytest.mark.parametrize(("fault", "kind"), FAULTS.values(), ids=[name.replace(" ", "-") for name in FAULTS])
def test_a_target_that_fails_before_content_is_replaced(trio: Trio, cut: Cut, fault: Script, kind: str, stream: bool):
    trio.a.otherwise, trio.b.otherwise = cut(fault), cut(trio.served(stream))
    before = trio.gateway.metric("llm_fallbacks_total")
    answer = trio.ask("pair", stream)
    check_served(answer, stream, "b", "pair")
    assert answer.header("x-comporta-fallback") == kind
    assert (len(trio.a.requests), len(trio.b.requests), len(trio.c.requests)) == (1, 1, 0)
    assert answer.header("x-comporta-attempts") == "2"
    record = trio.gateway.record_of(answer)
    assert (record["status"], record["outcome"], record["attempts"], record["provider"]) == (200, "ok", 2, "b")
    assert trio.gateway.metric("llm_fallbacks_total") == before + 1


@pytest.mark.parametrize(("model", "kind"), [("refusing", "connect_failed"), ("nowhere", "dns"), ("babbling", "tls")])
def test_a_provider_that_is_not_reached_is_replaced_by_the_chain(trio: Trio, model: str, kind: str):
    trio.c.otherwise = script(CHAT)
    answer = trio.ask(model)
    check_served(answer, False, "c", "last")
    assert answer.header("x-comporta-fallback") == kind
    line = trio.gateway.wait_line(LOGGED, id=answer.header("x-request-id"))
    assert (line["primary"], line["fallback"], line["error"]) == (model, "last", kind)
    assert trio.gateway.metric("llm_fallbacks_total", **{"from": model, "to": "last", "cause": kind}) == 1


def test_an_error_event_before_content_is_one_before_the_commit(trio: Trio, cut: Cut):
    failed = event({"error": {"message": "no", "type": "server_error", "code": None, "param": None}})
    trio.a.otherwise = cut(script(stream_head() + chunk(failed) + b"0\r\n\r\n"))
    trio.b.otherwise = cut(script(CHAT_STREAM))
    check_served(trio.ask("pair", True), True, "b", "pair")


def test_after_content_nobody_else_is_asked(trio: Trio, cut: Cut):
    trio.a.otherwise = Script((*cut(script(BEGUN)).steps, Wait(0.05), Reset()))
    trio.b.otherwise = script(CHAT_STREAM)
    answer = trio.ask("pair", True)
    assert stream_error_of(answer)["code"] == "stream_interrupted"
    assert not trio.b.requests and not trio.c.requests


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_the_client_got_wrong_is_not_asked_of_another(trio: Trio, status: int):
    trio.a.otherwise = script(error_response(status))
    answer = trio.ask("smart")
    assert answer.status == status
    error_of(answer)
    assert (len(trio.a.requests), len(trio.b.requests), len(trio.c.requests)) == (1, 0, 0)


@pytest.mark.parametrize(
    ("model", "code", "serving", "upstream_model"),
    [("smart", "context_length_exceeded", "b", "m-long"), ("safe", "content_policy_violation", "c", "m-c")],
)
def test_a_configured_cause_leads_to_its_model(trio: Trio, model: str, code: str, serving: str, upstream_model: str):
    trio.a.otherwise = script(error_response(400, code=code))
    trio.b.otherwise = trio.c.otherwise = script(CHAT)
    answer = trio.ask(model)
    assert (answer.status, answer.header("x-comporta-provider")) == (200, serving)
    assert getattr(trio, serving).requests[0].json()["model"] == upstream_model


def test_a_cause_that_nobody_configured_is_the_clients(trio: Trio):
    trio.a.otherwise = script(error_response(400, code="context_length_exceeded"))
    assert trio.ask("safe").status == 400
    assert not trio.c.requests


def test_the_last_failure_is_passed_on_when_all_have_failed(trio: Trio):
    for upstream, status in ((trio.a, 500), (trio.b, 503), (trio.c, 529)):
        upstream.otherwise = script(error_response(status))
    answer = trio.ask("smart")
    assert (answer.status, error_of(answer)["code"]) == (503, "overloaded")
    assert [len(each.requests) for each in (trio.a, trio.b, trio.c)] == [1, 1, 1], "a is in two models and is asked once"
    record = trio.gateway.record_of(answer)
    assert (record["status"], record["attempts"]) == (503, 3)


BODY = b'{ "model" : "smart",\n "seed": 12345678901234567890, "x_unknown": {"a": [1.10, null]}, "messages":[{"role":"user"}]%s }'
ASKING = b', "stream": true, "stream_options": {"include_usage": true}'


@pytest.mark.parametrize(
    ("members", "added"), [(b"", b""), (ASKING, b""), (b', "stream": true', b'"stream_options":{"include_usage":true},')]
)
def test_each_target_gets_the_clients_own_bytes_with_its_own_model(trio: Trio, members: bytes, added: bytes):
    trio.a.otherwise = trio.b.otherwise = script(error_response(500))
    trio.c.otherwise = trio.served(bool(members))
    for upstream in (trio.a, trio.b, trio.c):
        upstream.forget()
    body = BODY % members
    with RawClient(trio.gateway.url) as client:
        assert client.ask("POST", "/v1/chat/completions", body).status == 200
    for upstream, name in ((trio.a, b"m-a"), (trio.b, b"m-b"), (trio.c, b"m-c")):
        assert upstream.requests[0].body == b"{" + added + body[1:].replace(b'"smart"', b'"' + name + b'"')


def test_a_body_that_was_passed_on_as_it_came_goes_to_one_provider_only(trio: Trio):
    trio.a.otherwise = script(error_response(500))
    for upstream in (trio.a, trio.b, trio.c):
        upstream.forget()
    form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nsmart\r\n--x\r\n'
    form += b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--x--\r\n'
    with RawClient(trio.gateway.url) as client:
        answer = client.ask("POST", "/v1/audio/transcriptions", form, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status == 500
    assert (len(trio.a.requests), len(trio.b.requests)) == (1, 0)


def test_a_client_that_leaves_while_a_fallback_runs_frees_it_and_has_one_record(trio: Trio):
    trio.a.otherwise, trio.b.otherwise = script(error_response(500)), script(Stall())
    mark = trio.gateway.mark()
    for upstream in (trio.a, trio.b, trio.c):
        upstream.forget()
    client = RawClient(trio.gateway.url)
    body = json.dumps({"model": "pair", "messages": []}).encode()
    client.send(client.request_bytes("POST", "/v1/chat/completions", body))
    left = trio.b.wait_request()
    client.close()
    assert left.connection.closed.wait(1), "the second provider still works for nobody"
    assert trio.gateway.record_since(mark)["status"] == 499
    assert not trio.c.requests


def test_row_58_all_targets_out_says_when_to_come_back(tmp_path: Any):
    with Upstream() as one, Upstream() as two:
        config = {
            "providers": {"one": provider(one.url), "two": provider(two.url)},
            "models": {"pair": {"targets": ["one", "two"]}},
            "policies": {"retry": {"max_retries": 0}},
        }
        with Gateway(config, tmp_path) as gateway:
            one.otherwise = two.otherwise = script(error_response(429, headers=[("retry-after", "90")]))
            assert chat(gateway.url, "pair").status == 429
            asked = len(one.requests) + len(two.requests)
            answer = chat(gateway.url, "pair")
            error = error_of(answer)
            assert (answer.status, error["code"]) == (503, "all_targets_unavailable")
            assert 80 <= int(answer.header("retry-after") or 0) <= 90
            assert len(one.requests) + len(two.requests) == asked + 1, "one is asked, since one of them may be back"
            one.otherwise = two.otherwise = script(CHAT)
            assert chat(gateway.url, "pair").status == 200
