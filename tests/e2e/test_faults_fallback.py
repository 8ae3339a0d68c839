"""Rows of docs/faults.md after which another target is asked, over sockets: three providers, of which the first ones fail."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest

from tests.e2e.conftest import PATIENT, Door, closed_port
from tests.e2e.faults import BEGUN, HTML, settled
from tests.support.gateway import Gateway, error_of, provider, stream_error_of
from tests.support.raw_client import Answer, RawClient, chat, chat_body
from tests.support.script import (
    CHAT,
    CHAT_STREAM,
    DONE,
    LAST_CHUNK,
    Fin,
    Pour,
    Reset,
    Script,
    Stall,
    Step,
    Wait,
    chat_chunks,
    chunk,
    completion,
    delta,
    error_response,
    event,
    head,
    json_response,
    response,
    script,
    sse,
    stream_head,
    usage_chunk,
)
from tests.support.upstream import Upstream

pytestmark = pytest.mark.several_targets

Cut = Callable[[Script], Script]
HASTY = {"connect": "1s", "first_token": "300ms", "idle": "300ms", "total": "3s"}
#: For what falls silent once it has begun, which, a byte at a time, may take a while.
RESTLESS = {**PATIENT, "idle": "300ms"}
SMALL = {"body": "64KiB", "header": "4KiB", "event": "4KiB"}
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
        urls: dict[str, str] = {"a": self.a.url, "b": self.b.url, "c": self.c.url, **broken}
        models: dict[str, Any] = {
            "pair": {"targets": [{"provider": "a", "model": "m-a"}, {"provider": "b", "model": "m-b", "weight": 0}]},
            "hasty-pair": {"targets": [{"provider": "hasty", "model": "m-a"}, {"provider": "b", "model": "m-b", "weight": 0}]},
            "restless-pair": {"targets": [{"provider": "restless", "model": "m-a"}, {"provider": "b", "model": "m-b", "weight": 0}]},
            "smart": {"provider": "a", "model": "m-a", "fallback": [{"on": "context_window", "to": "long"}, "pair", "last"]},
            "safe": {"provider": "a", "model": "m-a", "fallback": [{"on": "content_policy", "to": "last"}]},
            "long": {"provider": "b", "model": "m-long"},
            "last": {"provider": "c", "model": "m-c"},
        }
        models |= {name: {"provider": name, "model": "m", "fallback": ["last"]} for name in broken}
        providers = {name: provider(url, timeouts=PATIENT, limits=SMALL) for name, url in urls.items()}
        config = {
            "providers": {**providers, "hasty": provider(self.a.url, timeouts=HASTY), "restless": provider(self.a.url, timeouts=RESTLESS)},
            "models": models,
            "policies": {"retry": {"max_retries": 0}, "circuit_breaker": False},
        }
        self.gateway = Gateway(config, folder)

    def stop(self) -> None:
        self.gateway.stop()
        self._door.stop()
        for upstream in (self.a, self.b, self.c):
            upstream.stop()

    def forget(self) -> None:
        for upstream in (self.a, self.b, self.c):
            upstream.forget()

    @property
    def asked(self) -> tuple[int, int, int]:
        """How often each was."""
        return len(self.a.requests), len(self.b.requests), len(self.c.requests)

    def ask(self, model: str, stream: bool = False) -> Answer:
        self.forget()
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


def rows(cases: dict[str, tuple[Any, ...]]) -> list[Any]:
    """Parameters by name, each marked with the rows that its name begins with."""
    return [pytest.param(*values, id=name.replace(" ", "-"), marks=pytest.mark.row(*_rows_of(name))) for name, values in cases.items()]


def _rows_of(name: str) -> list[int]:
    return [int(number) for number in name.partition(" ")[0].split(",")]


def _limited(hint: str) -> Script:
    return script(error_response(429, headers=[("retry-after", hint)]))


FAILED = event({"error": {"message": "it broke", "type": "server_error", "code": None, "param": None}})
NO_CHOICES = json_response(200, {**completion(), "choices": []})
FAULTS: dict[str, tuple[Script, str]] = {
    "6 half a head": (script(head(200)[:12], Wait(0.02), Reset()), "bad_upstream"),
    "6 no HTTP": (script(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "bad_upstream"),
    "7 reset inside JSON": (script(CHAT[:-20], Wait(0.02), Reset()), "reset"),
    "9 a stall": (script(Stall()), "upstream_timeout"),
    "11 a limit with seconds": (_limited("120"), "rate_limit_exceeded"),
    "12 a limit with a date": (_limited(formatdate(time.time() + 300, usegmt=True)), "rate_limit_exceeded"),
    "13 a limit with nonsense": (_limited("NaN"), "rate_limit_exceeded"),
    "14 no money": (script(error_response(429, code="insufficient_quota")), "insufficient_quota"),
    "15 500": (script(error_response(500)), "server_error"),
    "15 503": (script(error_response(503)), "server_error"),
    "16 529": (script(error_response(529)), "overloaded"),
    "18 401": (script(error_response(401)), "provider_auth"),
    "19 no JSON": (script(response(200, b'{"choices": [')), "invalid_response"),
    "21 a page": (script(response(200, HTML, "text/html")), "bad_upstream"),
    "26 an error with 200": (script(json_response(200, {"error": {"message": "x", "type": "overloaded_error"}})), "overloaded"),
    "27 no choices": (script(NO_CHOICES), "invalid_response"),
    "28 an unknown coding": (script(response(200, b"?", headers=[("Content-Encoding", "br")])), "bad_upstream"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole-answer", "stream"])
@pytest.mark.parametrize(("fault", "kind"), rows(FAULTS))
def test_a_target_that_fails_before_content_is_replaced(trio: Trio, cut: Cut, fault: Script, kind: str, stream: bool):
    trio.a.otherwise, trio.b.otherwise = cut(fault), cut(trio.served(stream))
    before = trio.gateway.metric("llm_fallbacks_total")
    model = "hasty-pair" if kind == "upstream_timeout" else "pair"
    answer = trio.ask(model, stream)
    check_served(answer, stream, "b", model)
    assert answer.header("x-comporta-fallback") == kind
    assert trio.asked == (1, 1, 0)
    assert answer.header("x-comporta-attempts") == "2"
    record = trio.gateway.record_of(answer)
    assert (record["status"], record["outcome"], record["attempts"], record["provider"]) == (200, "ok", 2, "b")
    assert trio.gateway.metric("llm_fallbacks_total") == before + 1


UNREACHED = {"1 refused": ("refusing", "connect_failed"), "2 no such name": ("nowhere", "dns"), "3 no TLS": ("babbling", "tls")}


@pytest.mark.parametrize(("model", "kind"), rows(UNREACHED))
def test_a_provider_that_is_not_reached_is_replaced_by_the_chain(trio: Trio, model: str, kind: str):
    trio.c.otherwise = script(CHAT)
    answer = trio.ask(model)
    check_served(answer, False, "c", "last")
    assert answer.header("x-comporta-fallback") == kind
    line = trio.gateway.wait_line(LOGGED, id=answer.header("x-request-id"))
    assert (line["primary"], line["fallback"], line["error"]) == (model, "last", kind)
    assert trio.gateway.metric("llm_fallbacks_total", **{"from": model, "to": "last", "cause": kind}) == 1


@pytest.mark.row(4)
@pytest.mark.parametrize("stream", [False, True], ids=["whole-answer", "stream"])
def test_a_connection_that_was_closed_while_idle_is_no_reason_to_switch(trio: Trio, cut: Cut, stream: bool):
    trio.forget()
    trio.a.play(CHAT, script(Reset()), cut(trio.served(stream)))
    assert chat(trio.gateway.url, "pair").status == 200
    answer = chat(trio.gateway.url, "pair", stream=stream)
    check_served(answer, stream, "a", "pair")
    assert trio.asked == (3, 0, 0)


@pytest.mark.row(5)
@pytest.mark.parametrize("stream", [False, True], ids=["whole-answer", "stream"])
def test_a_reset_on_a_fresh_connection_is_one_that_is_replaced(trio: Trio, cut: Cut, stream: bool):
    trio.a.hang_up()
    trio.a.otherwise, trio.b.otherwise = script(Reset()), cut(trio.served(stream))
    answer = trio.ask("pair", stream)
    check_served(answer, stream, "b", "pair")
    assert trio.asked == (1, 1, 0)


@pytest.mark.row(24)
def test_an_error_event_before_content_is_one_before_the_commit(trio: Trio, cut: Cut):
    trio.a.otherwise = cut(script(stream_head() + chunk(FAILED) + b"0\r\n\r\n"))
    trio.b.otherwise = cut(script(CHAT_STREAM))
    check_served(trio.ask("pair", True), True, "b", "pair")


ENDINGS: dict[str, tuple[Step | bytes, str]] = {
    "8 a reset": (Reset(), "stream_interrupted"),
    "10 silence": (Stall(), "upstream_timeout"),
    "20 an event that is too large": (chunk(event(delta("a" * 5000))), "response_too_large"),
    "23 an end without a reason": (LAST_CHUNK, "stream_truncated"),
    "25 an error event": (chunk(FAILED) + LAST_CHUNK, "server_error"),
}


@pytest.mark.parametrize(("ending", "code"), rows(ENDINGS))
def test_after_content_nobody_else_is_asked(trio: Trio, cut: Cut, ending: Step | bytes, code: str):
    trio.a.otherwise = Script((*cut(script(BEGUN)).steps, Wait(0.05), *script(ending).steps))
    trio.b.otherwise = script(CHAT_STREAM)
    assert stream_error_of(trio.ask("restless-pair" if code == "upstream_timeout" else "pair", True))["code"] == code
    assert trio.asked == (1, 0, 0)


@pytest.mark.row(20)
def test_an_answer_that_is_too_large_is_not_asked_for_again(trio: Trio, cut: Cut):
    trio.a.otherwise = script(response(200, b'"%b"' % (b"a" * 70_000)))
    answer = trio.ask("pair")
    assert (answer.status, error_of(answer)["code"]) == (502, "response_too_large")
    assert trio.asked == (1, 0, 0)


@pytest.mark.row(22)
def test_a_stream_that_only_lacks_its_done_is_whole(trio: Trio, cut: Cut):
    trio.a.otherwise = cut(script(sse(chat_chunks(), done=False)))
    check_served(trio.ask("pair", True), True, "a", "pair")
    assert trio.asked == (1, 0, 0)


@pytest.mark.row(29, 30, 31)
def test_what_another_target_says_in_its_own_way_is_read_and_only_its_usage_counts(trio: Trio, cut: Cut):
    """A target that has failed leaves nothing in the stream, or in the count, of the one that serves."""
    trio.a.otherwise = cut(script(stream_head() + chunk(event({**usage_chunk(900, 90), "choices": []})) + chunk(FAILED) + LAST_CHUNK))
    told = [b": hello\n\n", *chat_chunks(used=None), event(usage_chunk(3, 1)), event(usage_chunk(7, 3)), DONE]
    odd = b"\xef\xbb\xbf" + b"".join(told).replace(b"\n", b"\r\n")
    trio.b.otherwise = cut(script(stream_head() + chunk(odd) + LAST_CHUNK))
    answer = trio.ask("pair", True)
    assert [answer.header("x-comporta-provider"), *answer.events] == ["b", *_events_of(chat_chunks(used=None)), "[DONE]"]
    record = trio.gateway.record_of(answer)
    assert (record["usage"], record["prompt_tokens"], record["completion_tokens"]) == ("reported", 7, 3), record


def _events_of(frames: list[bytes]) -> list[str]:
    return [frame.decode().removeprefix("data: ").rstrip("\n") for frame in frames]


@pytest.mark.row(33)
def test_a_slow_reader_stops_the_target_that_replaced_another(trio: Trio):
    piece = chunk(event(delta("a" * 1000)) * 3)
    trio.a.otherwise = script(error_response(500))
    trio.b.otherwise = script(stream_head(), Pour(piece, 32 * 2**20 // len(piece)))
    trio.forget()
    mark = trio.gateway.mark()
    with RawClient(trio.gateway.url) as client:
        client.send(client.request_bytes("POST", "/v1/chat/completions", chat_body("pair", stream=True)))
        connection = trio.b.wait_request().connection
        assert settled(connection) < 24 * 2**20, "a client that does not read is read for"
        client.close()
        assert connection.closed.wait(2)
    assert trio.gateway.record_since(mark)["status"] == 499


@pytest.mark.row(17)
@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_the_client_got_wrong_is_not_asked_of_another(trio: Trio, status: int):
    trio.a.otherwise = script(error_response(status))
    answer = trio.ask("smart")
    assert answer.status == status
    error_of(answer)
    assert trio.asked == (1, 0, 0)


@pytest.mark.row(17)
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


@pytest.mark.row(17)
def test_a_cause_that_nobody_configured_is_the_clients(trio: Trio):
    trio.a.otherwise = script(error_response(400, code="context_length_exceeded"))
    assert trio.ask("safe").status == 400
    assert not trio.c.requests


@pytest.mark.row(58)
def test_the_last_failure_is_passed_on_when_all_have_failed(trio: Trio):
    for upstream, status in ((trio.a, 500), (trio.b, 503), (trio.c, 529)):
        upstream.otherwise = script(error_response(status))
    answer = trio.ask("smart")
    assert (answer.status, error_of(answer)["code"]) == (503, "overloaded")
    assert trio.asked == (1, 1, 1), "a is in two models and is asked once"
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
    trio.forget()
    body = BODY % members
    with RawClient(trio.gateway.url) as client:
        assert client.ask("POST", "/v1/chat/completions", body).status == 200
    for upstream, name in ((trio.a, b"m-a"), (trio.b, b"m-b"), (trio.c, b"m-c")):
        assert upstream.requests[0].body == b"{" + added + body[1:].replace(b'"smart"', b'"' + name + b'"')


def test_a_body_that_was_passed_on_as_it_came_goes_to_one_provider_only(trio: Trio):
    trio.a.otherwise = script(error_response(500))
    trio.forget()
    form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nsmart\r\n--x\r\n'
    form += b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--x--\r\n'
    with RawClient(trio.gateway.url) as client:
        answer = client.ask("POST", "/v1/audio/transcriptions", form, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status == 500
    assert (len(trio.a.requests), len(trio.b.requests)) == (1, 0)


@pytest.mark.parametrize(("path", "asked"), [("speech", (1, 1, 0)), ("voices", (1, 0, 0))])
def test_speech_is_asked_of_another_as_a_chat_is_and_a_voice_that_is_kept_is_not(trio: Trio, path: str, asked: tuple[int, int, int]):
    trio.a.otherwise, trio.b.otherwise = script(error_response(500)), script(response(200, b"sound", "audio/mpeg"))
    trio.forget()
    with RawClient(trio.gateway.url) as client:
        answer = client.ask("POST", f"/v1/audio/{path}", b'{"model": "pair", "input": "hi", "voice": "alloy"}')
    assert trio.asked == asked
    assert (answer.status, answer.body) == (200, b"sound") if path == "speech" else answer.status == 500


@pytest.mark.row(32)
def test_a_client_that_leaves_while_a_fallback_runs_frees_it_and_has_one_record(trio: Trio):
    trio.a.otherwise, trio.b.otherwise = script(error_response(500)), script(Stall())
    mark = trio.gateway.mark()
    trio.forget()
    client = RawClient(trio.gateway.url)
    body = json.dumps({"model": "pair", "messages": []}).encode()
    client.send(client.request_bytes("POST", "/v1/chat/completions", body))
    left = trio.b.wait_request()
    client.close()
    assert left.connection.closed.wait(1), "the second provider still works for nobody"
    assert trio.gateway.record_since(mark)["status"] == 499
    assert not trio.c.requests


@pytest.mark.row(58)
def test_all_targets_out_says_when_to_come_back(tmp_path: Any):
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


@pytest.mark.parametrize("answers", [True, False])
def test_what_a_target_may_have_charged_before_it_failed_is_its_own(trio: Trio, answers: bool):
    """And not the next one's, which refuses the request, or reports its own."""
    trio.a.otherwise, trio.b.otherwise = script(CHAT[:-20], Wait(0.02), Fin()), script(CHAT if answers else error_response(400))
    lost = trio.gateway.metric("llm_lost_tokens_total", provider="a", kind="prompt")
    record = trio.gateway.record_of(trio.ask("pair"))
    assert (record["provider"], record["usage"]) == ("b", "reported" if answers else "none")
    assert record["prompt_tokens"] == (completion()["usage"]["prompt_tokens"] if answers else None)
    assert record["lost_prompt_tokens"] > 10
    assert trio.gateway.metric("llm_lost_tokens_total", provider="a", kind="prompt") - lost == record["lost_prompt_tokens"]
