"""What a client says of its own time-outs: a silence is bounded by it, and what is passed on piece by piece is not."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.gateway import Gateway, error_of, provider, stream_error_of
from tests.support.raw_client import Answer, RawClient, chat, chat_body
from tests.support.script import (
    CHAT,
    CHAT_STREAM,
    LAST_CHUNK,
    Send,
    Stall,
    Step,
    Wait,
    chunk,
    delta,
    error_response,
    event,
    json_response,
    response,
    script,
    stream_head,
)
from tests.support.upstream import Upstream

#: Of the client, in seconds; the gateway waits a quarter longer.
PATIENCE = 0.4
HEARD = {"x-stainless-read-timeout": str(PATIENCE)}
FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"y" * 60_000 + b"\r\n--x--\r\n"
FORM_TYPE = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.fixture(scope="module")
def plain(raw_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose provider `up` has no timeouts of its own; those of `firm` are set."""
    unset = provider(raw_upstream.url)
    del unset["timeouts"]
    config: dict[str, Any] = {
        "providers": {"up": unset, "firm": provider(raw_upstream.url, timeouts={"first_token": "9s", "idle": "8s"})},
        "default_provider": "up",
        "llm": {"task_types": {"STEADY": {"timeouts": {"idle": "7s"}}}},
        "policies": {"retry": False},
    }
    with Gateway(config, tmp_path_factory.mktemp("plain")) as running:
        yield running


def asked(gateway: Gateway, path: str, body: bytes, headers: dict[str, str]) -> tuple[Answer, float]:
    """The answer, and the seconds that it took."""
    started = time.monotonic()
    with RawClient(gateway.url) as client:
        return client.ask("POST", path, body, headers={"Content-Type": "application/json", **headers}), time.monotonic() - started


def timeouts_of(gateway: Gateway, answer: Answer) -> dict[str, Any]:
    gateway.record_of(answer)
    with urllib.request.urlopen(f"{gateway.admin}/admin/requests/{answer.header('x-request-id')}/explain", timeout=5) as shown:
        found: dict[str, Any] = json.load(shown)["timeouts"]
    return found


@pytest.mark.parametrize(
    ("model", "headers", "first_token", "idle"),
    [
        ("up/m", {}, 600, 600),
        ("firm/m", {}, 9, 8),
        ("up/m", {"x-stainless-read-timeout": "600"}, 600.25, 600.25),
        ("up/m", {"x-stainless-read-timeout": "20"}, 20.25, 20.25),
        ("up/m", {"x-stainless-timeout": "120"}, 600, 600),
        ("up/m", {"x-stainless-read-timeout": "600", "x-comporta-task-type": "STEADY"}, 600.25, 7),
        ("firm/m", {"x-stainless-read-timeout": "600"}, 9, 8),
        ("firm/m", {"x-stainless-read-timeout": "5"}, 5.25, 5.25),
    ],
)
def test_a_stream_may_be_silent_for_as_long_as_its_client_waits_unless_somebody_has_set_it(
    plain: Gateway, upstream: Upstream, model: str, headers: dict[str, str], first_token: float, idle: float
) -> None:
    upstream.play(CHAT_STREAM)
    answer, _ = asked(plain, "/v1/chat/completions", chat_body(model, stream=True), headers)
    assert answer.events[-1] == "[DONE]"
    found = timeouts_of(plain, answer)
    assert (found["first_token"], found["idle"], found["total"]) == (first_token, idle, 600)


def paced(*pieces: bytes, gap: float) -> list[Step]:
    return [step for piece in pieces for step in (Wait(gap), Send(chunk(piece)))]


def test_a_body_that_goes_on_for_longer_than_the_client_waits_for_a_byte_is_whole(plain: Gateway, upstream: Upstream) -> None:
    upstream.play(script(stream_head(content_type="audio/mpeg"), *paced(*[b"sound"] * 5, gap=0.25), LAST_CHUNK))
    answer, took = asked(plain, "/v1/audio/speech", b'{"model": "m"}', HEARD)
    assert (answer.status, answer.body, answer.ended) == (200, b"sound" * 5, True)
    assert took > 1.2


def test_a_body_that_falls_silent_for_longer_is_cut(plain: Gateway, upstream: Upstream) -> None:
    upstream.play(script(stream_head(content_type="audio/mpeg"), chunk(b"sound"), Stall()))
    answer, took = asked(plain, "/v1/audio/speech", b'{"model": "m"}', HEARD)
    assert (answer.status, answer.body, answer.ended) == (200, b"sound", False)
    assert PATIENCE < took < 1.5
    assert plain.record_of(answer)["error"] == "deadline_exceeded"


@pytest.mark.parametrize("body", [b'{"model": "m"}', FORM], ids=["JSON", "form"])
def test_a_body_that_does_not_begin_is_not_waited_for_any_longer(plain: Gateway, upstream: Upstream, body: bytes) -> None:
    upstream.play(script(Stall()))
    answer, took = asked(plain, "/v1/images/edits", body, HEARD if body != FORM else {**HEARD, **FORM_TYPE})
    assert (answer.status, error_of(answer)["code"]) == (504, "deadline_exceeded")
    assert PATIENCE < took < 1.5


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("chunked", [True, False])
def test_an_upload_that_takes_longer_than_that_is_answered(plain: Gateway, upstream: Upstream, chunked: bool, status: int) -> None:
    """The client waits for a byte once it has sent its own; so the answer has its time from then on."""
    found = json_response(status, {"error": {"message": "no"}} if status == 400 else {"id": "file-1"})
    end = found.index(b"\r\n\r\n") + 4
    upstream.play(script(Wait(0.3), found[:end], Wait(0.2), found[end:]))
    with RawClient(plain.url) as client:
        pieces = [FORM[at : at + 10_000] for at in range(0, len(FORM), 10_000)]
        whole = client.request_bytes("POST", "/v1/files", FORM, headers={**HEARD, **FORM_TYPE}, chunks=pieces if chunked else None)
        for at in range(0, len(whole), 10_000):
            time.sleep(0.15)
            client.send(whole[at : at + 10_000])
        answer = client.read("POST")
    assert answer.status == status, answer.body
    assert upstream.requests[0].body == FORM


TYPED = {
    "responses": ("/v1/responses", ["response.created", "response.in_progress", "response.output_item.added", "response.completed"]),
    "images": ("/v1/images/generations", [*["image_generation.partial_image"] * 3, "image_generation.completed"]),
    "audio": ("/v1/audio/speech", [*["speech.audio.progress"] * 3, "speech.audio.done"]),
}


@pytest.mark.parametrize("one_by_one", [True, False], ids=["each event on its own", "in halves"])
@pytest.mark.parametrize(("path", "names"), TYPED.values(), ids=TYPED.keys())
def test_each_event_of_a_stream_of_named_ones_breaks_the_silence(
    plain: Gateway, upstream: Upstream, path: str, names: list[str], one_by_one: bool
) -> None:
    events = [b'event: %b\ndata: {"type":"%b","response":{}}\n\n' % (name.encode(), name.encode()) for name in names]
    sent = events if one_by_one else [half for each in events for half in (each[:20], each[20:])]
    upstream.play(script(stream_head(), *paced(*sent, gap=0.4 if one_by_one else 0.2), LAST_CHUNK))
    answer, took = asked(plain, path, b'{"model": "m", "stream": true}', HEARD)
    assert answer.body == b"".join(events), answer.body
    assert took > 1.4


CONTENT = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'


@pytest.mark.parametrize("empty", [CONTENT % b"", b": PROCESSING\n\n"], ids=["empty", "comment"])
def test_what_brings_no_content_breaks_no_silence_of_a_chat_that_somebody_has_bounded(
    plain: Gateway, upstream: Upstream, empty: bytes
) -> None:
    upstream.play(script(stream_head(), chunk(CONTENT % b"Hello"), *paced(*[empty] * 4, gap=0.3), Stall()))
    answer, took = asked(plain, "/v1/chat/completions", chat_body("firm/m", stream=True), HEARD)
    assert "deadline_exceeded" in answer.events[-1]
    assert took < 1.2


@pytest.mark.parametrize("empty", [CONTENT % b"", b": PROCESSING\n\n"], ids=["empty", "comment"])
@pytest.mark.parametrize("begun", [True, False])
def test_it_keeps_the_client_waiting_as_it_would_without_us_where_nobody_has(
    plain: Gateway, upstream: Upstream, empty: bytes, begun: bool
) -> None:
    before = [chunk(CONTENT % b"Hello")] if begun else []
    upstream.play(script(stream_head(), *before, *paced(*[empty] * 5, gap=0.3), chunk(CONTENT % b"world"), Stall()))
    answer, took = asked(plain, "/v1/chat/completions", chat_body("up/m", stream=True), HEARD)
    assert "world" in answer.events[-2]
    assert "deadline_exceeded" in answer.events[-1]
    assert 1.5 + PATIENCE < took < 3.5


def test_a_whole_answer_must_be_there_by_then(plain: Gateway, upstream: Upstream) -> None:
    end = CHAT.index(b"\r\n\r\n") + 4
    rest = [step for at in range(end, len(CHAT), 20) for step in (Wait(0.1), Send(CHAT[at : at + 20]))]
    upstream.play(script(CHAT[:end], *rest))
    answer, took = asked(plain, "/v1/chat/completions", chat_body("up/m"), HEARD)
    assert (answer.status, error_of(answer)["code"]) == (504, "deadline_exceeded")
    assert PATIENCE < took < 1.5


def test_a_file_is_read_for_longer_than_its_client_waits_for_a_byte(plain: Gateway, upstream: Upstream) -> None:
    found = response(200, b"z" * 50, "application/octet-stream")
    end = len(found) - 50
    upstream.play(script(found[:end], *(step for _ in range(5) for step in (Wait(0.25), Send(b"z" * 10)))))
    with RawClient(plain.url) as client:
        answer = client.ask("GET", "/v1/files/file-1/content", headers=HEARD)
    assert (answer.status, answer.body, answer.ended) == (200, b"z" * 50, True)


class Pair:
    """Two targets, of which the second one stands by, and the gateway before them."""

    def __init__(self, folder: Any) -> None:
        self.slow, self.other = Upstream(), Upstream()
        self.other.otherwise = script(CHAT)
        own = {"connect": "1s", "first_token": "1s", "idle": "1s", "total": "5s"}
        targets = [{"provider": name, "model": "m", "priority": tier} for tier, name in enumerate(("slow", "other"))]
        config: dict[str, Any] = {
            "providers": {name: provider(getattr(self, name).url, timeouts=own) for name in ("slow", "other")},
            "models": {"pair": {"targets": targets, "strategy": "priority"}},
            "llm": {"task_types": {"HASTY": {"timeout": "300ms"}}},
        }
        self.gateway = Gateway(config, folder)

    def impatient(self, headers: dict[str, str], **members: Any) -> Answer:
        body = {"model": "pair", "messages": [], **members}
        return asked(self.gateway, "/v1/chat/completions", json.dumps(body).encode(), headers)[0]

    def server(self) -> str | None:
        return chat(self.gateway.url, "pair").header("x-comporta-provider")

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self.gateway, self.slow, self.other):
            each.stop()


HASTE: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "deadline": ({"x-comporta-timeout": "0.05"}, {}),
    "read time-out": ({"x-stainless-read-timeout": "0.05"}, {}),
    "silence": ({}, {"stream": True, "comporta": {"timeouts": {"idle": 0.05}}}),
    "pace": ({}, {"stream": True, "comporta": {"timeouts": {"min_tokens_per_second": 9000, "window": 0.05}}}),
}


def test_clients_that_do_not_wait_take_out_nobody(tmp_path: Any) -> None:
    begun = event(delta("Hello"))
    with Pair(tmp_path) as pair:
        for headers, members in HASTE.values():
            pair.slow.otherwise = script(stream_head(), chunk(begun), Stall()) if members else script(Stall())
            for _ in range(5):
                answer = pair.impatient(headers, **members)
                error = stream_error_of(answer) if members else error_of(answer)
                assert (error["code"], answer.status) == ("deadline_exceeded", 200 if members else 504)
                assert pair.gateway.record_of(answer)["outcome"] == "client_error"
        assert pair.gateway.metric("llm_upstream_failures_total", provider="slow") == 0
        assert pair.gateway.metric("llm_rejected_total", code="deadline_exceeded") == 20
        pair.slow.otherwise = script(CHAT)
        assert pair.server() == "slow"


def test_clients_whose_uploads_take_long_take_out_nobody(tmp_path: Any) -> None:
    parts = [b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\npair\r\n', FORM]
    with Pair(tmp_path) as pair:
        pair.slow.otherwise = script(CHAT)
        for _ in range(5):
            with RawClient(pair.gateway.url) as client:
                head = {**FORM_TYPE, "x-comporta-task-type": "HASTY"}
                whole = client.request_bytes("POST", "/v1/audio/transcriptions", b"".join(parts), headers=head)
                client.send(whole[:-50_000])
                answer = client.read("POST")
            assert (answer.status, error_of(answer)["code"]) == (504, "deadline_exceeded")
        assert pair.gateway.metric("llm_upstream_failures_total", provider="slow") == 0
        assert pair.server() == "slow"


def test_a_deadline_that_the_administrator_sets_takes_out_who_does_not_keep_it(tmp_path: Any) -> None:
    with Pair(tmp_path) as pair:
        pair.slow.otherwise = script(Stall())
        for _ in range(5):
            answer = pair.impatient({"x-comporta-task-type": "HASTY"})
            assert (answer.status, error_of(answer)["code"]) == (504, "upstream_timeout")
        assert pair.gateway.metric("llm_upstream_failures_total", provider="slow", kind="upstream_timeout") == 5
        assert pair.server() == "other"


@pytest.mark.parametrize(("model", "server"), [("pair", "other"), ("slow/m", "slow")])
def test_a_stream_waits_for_no_hint_that_is_longer_than_its_client_waits(tmp_path: Any, model: str, server: str) -> None:
    with Pair(tmp_path) as pair:
        pair.slow.otherwise = script(error_response(429, headers=[("retry-after", "4")]))
        pair.other.otherwise = script(CHAT_STREAM)
        started = time.monotonic()
        answer = pair.impatient({"x-stainless-read-timeout": "2"}, model=model, stream=True)
        assert time.monotonic() - started < 1.5
        assert (answer.header("x-comporta-provider") or "slow", len(pair.slow.requests)) == (server, 1)
        assert answer.status == 200 if server == "other" else answer.header("retry-after") == "4"
