"""Rows 22 and 27 to 31 of the fault matrix: streams and codings that are odd and must be read all the same."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.faults import COMMITTED, FAILURES, PLAIN, Cut, check_fault, fault
from tests.support.gateway import Gateway
from tests.support.raw_client import RawClient, chat, chat_body
from tests.support.script import (
    DONE,
    LAST_CHUNK,
    Fin,
    Send,
    Wait,
    chat_chunks,
    chunk,
    delta,
    event,
    head,
    response,
    script,
    sliced,
    sse,
    stream_head,
    usage,
    usage_chunk,
)
from tests.support.upstream import Upstream


# ---------------------------------------------------------------------------------------------------------------- row 22: [DONE] is missing
@pytest.mark.row(22)
@pytest.mark.parametrize("used", [(7, 3), None], ids=["usage-reported", "usage-unknown"])
@pytest.mark.parametrize("framing", ["chunked", "until-close"])
def test_a_missing_done_is_appended(gateway: Gateway, upstream: Upstream, cut: Cut, framing: str, used: tuple[int, int] | None) -> None:
    events = chat_chunks(used=used)
    if framing == "chunked":
        upstream.play(cut(script(sse(events, done=False))))
    else:
        upstream.play(cut(script(head(200, [("Content-Type", "text/event-stream"), ("Connection", "close")]) + b"".join(events), Fin())))
    before = gateway.metric(FAILURES, provider="up")
    answer = chat(gateway.url, stream=True)
    assert answer.status == 200 and answer.ended
    assert answer.body == b"".join(chat_chunks(used=None)) + DONE
    record = gateway.record_of(answer)
    assert (record["status"], record["outcome"]) == (200, "ok"), record
    if used:
        assert (record["usage"], record["prompt_tokens"], record["completion_tokens"]) == ("reported", *used), record
    else:
        assert record["usage"] == "estimated" and record["prompt_tokens"] > 0 and record["completion_tokens"] > 0, record
    gateway.wait_metric(before + 1, FAILURES, provider="up")


# ------------------------------------------------------------------------------------------------------- row 23: [DONE] without any reason
@pytest.mark.row(23)
def test_done_alone_is_believed_of_a_model_that_never_gives_a_reason(gateway: Gateway, upstream: Upstream, cut: Cut) -> None:
    for number in range(2):
        upstream.play(cut(script(sse(chat_chunks(finish=None, used=None)))))
        answer = chat(gateway.url, model="up/never-a-reason", stream=True)
        assert answer.body == b"".join(chat_chunks(finish=None, used=None)) + DONE, number
        assert gateway.record_of(answer)["outcome"] == "ok"


@pytest.mark.row(23)
def test_done_alone_is_no_end_of_a_model_that_has_given_a_reason(gateway: Gateway, upstream: Upstream, cut: Cut) -> None:
    upstream.play(cut(script(sse(chat_chunks()))))
    assert chat(gateway.url, model="up/has-reasons", stream=True).body.endswith(DONE)
    upstream.play(cut(script(sse(chat_chunks(finish=None)))))
    answer = chat(gateway.url, model="up/has-reasons", stream=True)
    assert b'"stream_truncated"' in answer.body and DONE not in answer.body
    record = gateway.record_of(answer)
    assert (record["error"], record["usage"]) == ("stream_truncated", "reported"), record


# -------------------------------------------------------------------------------------------------------------------- row 27: empty choices
@pytest.mark.row(27, cut="both")
def test_a_stream_without_a_choice_is_no_answer(gateway: Gateway, upstream: Upstream) -> None:
    empty = fault("27 only usage", sse([event(usage_chunk(7, 0))]), codes=["invalid_response"], usage=("reported",))
    check_fault(gateway, upstream, empty, streams=(True,))


@pytest.mark.row(27)
def test_empty_choices_beside_content_are_legal(gateway: Gateway, upstream: Upstream, cut: Cut) -> None:
    filters = event({**delta(), "choices": [], "prompt_filter_results": [{"prompt_index": 0}]})
    upstream.play(cut(script(sse([filters, *chat_chunks()]))))
    answer = chat(gateway.url, stream=True)
    assert answer.body == filters + b"".join(chat_chunks(used=None)) + DONE
    assert gateway.record_of(answer)["outcome"] == "ok"


# ---------------------------------------------------------------------------------------------------------------------- row 28: compression
def deflated(data: bytes) -> bytes:
    return zlib.compress(data)


@pytest.mark.row(28)
@pytest.mark.parametrize(("coding", "squeeze"), [("gzip", gzip.compress), ("deflate", deflated)])
@pytest.mark.parametrize("stream", [False, True])
def test_what_comes_compressed_is_decoded(
    gateway: Gateway, upstream: Upstream, cut: Cut, coding: str, squeeze: Callable[[bytes], bytes], stream: bool
) -> None:
    plain = b"".join(chat_chunks(used=None)) + DONE if stream else PLAIN
    kind = "text/event-stream" if stream else "application/json"
    upstream.play(cut(script(response(200, squeeze(plain), kind, [("Content-Encoding", coding)]))))
    answer = chat(gateway.url, stream=stream, headers={"Accept-Encoding": "gzip, br"})
    assert answer.status == 200, answer.body
    assert answer.body == plain
    assert answer.header("content-encoding") is None
    assert upstream.requests[0].header("accept-encoding") == "identity"
    assert gateway.record_of(answer)["outcome"] == "ok"


@pytest.mark.row(28, cut="both")
@pytest.mark.parametrize("coding", ["br", "zstd"])
def test_bytes_that_are_not_of_their_coding_are_an_error(gateway: Gateway, upstream: Upstream, coding: str) -> None:
    """Whether or not there is a library for the coding: the answer is the same."""
    unreadable = response(200, b"\x0b\x02\x80{}\x03", headers=[("Content-Encoding", coding)])
    check_fault(gateway, upstream, fault(f"28 {coding}", unreadable, codes=["bad_upstream", "invalid_response"], attempts=1))


# ------------------------------------------------------------------------------------------------------------- rows 29 to 31: event streams
@pytest.mark.row(29, cut="both")
def test_an_event_stream_is_the_same_at_any_split(gateway: Gateway, upstream: Upstream) -> None:
    """Splits fall inside UTF-8 sequences, events, line ends and the chunk framing itself."""
    events = [event(delta("Grüße — 🎉")), event(delta(finish="stop"))]
    expected = b"".join(events) + DONE
    wire = sse(events, done=True)
    start = wire.index(b"\r\n\r\n") + 4
    with RawClient(gateway.url) as client:
        for place in range(start, len(wire)):
            upstream.play(script(wire[:place], Wait(0.002), wire[place:]))
            answer = client.ask("POST", "/v1/chat/completions", chat_body(stream=True))
            assert answer.body == expected, f"split at {place}"


@pytest.mark.row(29, cut="both")
@pytest.mark.parametrize("asked", [False, True], ids=["usage-not-asked-for", "usage-asked-for"])
@pytest.mark.parametrize("size", [1, 5, 64])
def test_what_is_taken_out_leaves_the_rest_as_it_was(gateway: Gateway, upstream: Upstream, asked: bool, size: int) -> None:
    """`usage: null` stands in every chunk because the gateway asked for usage. What stands around it is not the gateway's to change."""
    odd = b'"logprobs":{"content":[{"token":"\\u00e9","logprob":-0.00001,"x":12345678901234567890123}]}'
    texts = [b"Gr\xc3\xbc\xc3\x9fe", b"\\u00e9\\/", b' \\"usage\\":null', b"!"]
    frames = [b'data: {"id": "x","choices":[{"index":0,"delta":{"content":"%b"},%b}],"usage":null}\n\n' % (text, odd) for text in texts]
    frames += [b'data: {"id": "x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n']
    wire = sse([*frames, event(usage_chunk(7, 3))])
    upstream.play(script(wire), script(Send(wire, size)), script(Send(wire, size + 1)))
    body = chat_body(stream=True, stream_options={"include_usage": asked})
    with RawClient(gateway.url) as client:
        whole, parts, again = (client.ask("POST", "/v1/chat/completions", body) for _ in range(3))
    assert parts.body == whole.body == again.body
    if asked:
        assert whole.body == b"".join([*frames, event(usage_chunk(7, 3)), DONE])
    else:
        assert whole.body == b"".join([*(frame.replace(b',"usage":null}\n', b"}\n") for frame in frames), DONE])


@pytest.mark.row(29, cut="both")
def test_an_estimate_is_the_same_at_any_split(gateway: Gateway, upstream: Upstream) -> None:
    answer = script(sse(chat_chunks("one two three four", used=None)))
    upstream.play(answer, sliced(answer), sliced(answer, 40))
    records = [gateway.record_of(chat(gateway.url, stream=True)) for _ in range(3)]
    assert [record["usage"] for record in records] == ["estimated"] * 3
    assert len({(record["prompt_tokens"], record["completion_tokens"]) for record in records}) == 1, records


@pytest.mark.row(29, cut="both")
@pytest.mark.parametrize(
    "garbage", [b"data: no json\n\n", b"data: [1]\n\n", b'data: {"choices":[\n\n'], ids=["words", "a-list", "cut-json"]
)
def test_garbage_after_content_ends_the_same_at_any_split(gateway: Gateway, upstream: Upstream, garbage: bytes) -> None:
    rest = chunk(event(delta(finish="stop"))) + chunk(DONE) + LAST_CHUNK
    upstream.play(*(script(*COMMITTED, Send(chunk(garbage), size), Wait(0.05), rest) for size in (0, 1, 9)))
    answers = [chat(gateway.url, stream=True) for _ in range(3)]
    assert len({answer.body for answer in answers}) == 1, [answer.body[-200:] for answer in answers]
    assert len({gateway.record_of(answer)["outcome"] for answer in answers}) == 1


def lines(*names: str) -> str:
    return "\n".join(names) + "\n"


FIRST, SECOND = json.dumps(delta("Grüße", finish=None), ensure_ascii=False), json.dumps(delta(" 🎉", finish="stop"), ensure_ascii=False)
BROKEN_AT_COMMA = FIRST.replace(', "', ',\ndata: "', 1)
FORMS = {
    "plain": lines(f"data: {FIRST}", "", f"data: {SECOND}", "", "data: [DONE]", ""),
    "no-blank-after-colon": lines(f"data:{FIRST}", "", f"data:{SECOND}", "", "data:[DONE]", ""),
    "comments": lines(": hello", "", f"data: {FIRST}", ": in between", "", ":", "", f"data: {SECOND}", "", "data: [DONE]", "", ": bye", ""),
    "fields": lines(
        "id: 1", "event: message", f"data: {FIRST}", "", "retry: 300", "odd", f"data: {SECOND}", "", "id: 9", "data: [DONE]", ""
    ),
    "more-blank-lines": lines("", "", f"data: {FIRST}", "", "", "", f"data: {SECOND}", "", "", "data: [DONE]", ""),
    "many-lines-of-data": lines(f"data: {BROKEN_AT_COMMA}", "", f"data: {SECOND}", "", "data: [DONE]", ""),
    "byte-order-mark": "\ufeff" + lines(f"data: {FIRST}", "", f"data: {SECOND}", "", "data: [DONE]", ""),
}


@pytest.mark.row(30, cut="both")
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_event_stream_is_read(gateway: Gateway, upstream: Upstream, form: str, end: str) -> None:
    body = form.replace("\n", end).encode()
    answers = []
    for size in (0, 1, 7):
        upstream.play(script(stream_head() + (chunk(body) if not size else b""), *([Send(chunk(body), size)] if size else []), LAST_CHUNK))
        answers.append(chat(gateway.url, stream=True))
    whole = answers[0]
    assert whole.status == 200, whole.body
    assert [json.loads(data) for data in whole.events[:-1]] == [json.loads(FIRST), json.loads(SECOND)]
    assert whole.events[-1] == "[DONE]" and whole.events.count("[DONE]") == 1
    assert [answer.body for answer in answers[1:]] == [whole.body, whole.body], "the same bytes at any split"
    assert all(gateway.record_of(answer)["outcome"] == "ok" for answer in answers)


@pytest.mark.row(31)
@pytest.mark.parametrize(
    "events",
    [
        [delta("a", usage=usage(7, 1)), delta("b", usage=usage(7, 2)), delta(finish="stop", usage=usage(7, 3))],
        [delta("a", usage=usage(7, 1)), delta("b", usage=usage(7, 2)), delta(finish="stop"), usage_chunk(7, 3)],
        [usage_chunk(7, 0), delta("a"), delta(finish="stop"), usage_chunk(7, 3)],
        [delta("a"), delta(finish="stop"), usage_chunk(7, 2), usage_chunk(7, 3)],
        [delta("a", usage=None), delta(finish="stop", usage=usage(7, 3)), delta(usage=None)],
    ],
    ids=["in-every-chunk", "in-every-chunk-and-last", "first-and-last", "twice-at-the-end", "null-after-it"],
)
def test_the_last_usage_counts(gateway: Gateway, upstream: Upstream, cut: Cut, events: list[dict[str, Any]]) -> None:
    before = gateway.metric("llm_tokens_total", operation="chat")
    upstream.play(cut(script(sse(map(event, events)))))
    answer = chat(gateway.url, stream=True)
    assert answer.events[-1] == "[DONE]"
    record = gateway.record_of(answer)
    assert (record["usage"], record["prompt_tokens"], record["completion_tokens"]) == ("reported", 7, 3), record
    gateway.wait_metric(before + 10, "llm_tokens_total", operation="chat")
