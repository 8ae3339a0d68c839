"""Streams of named events: the same for the client wherever their bytes were cut, whole ones, failed ones and broken ones."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.openai.typed_events import TypedEventDecoder
from proxy.core.call import Usage
from tests.core.doubles import every_cut
from tests.providers.openai.fixtures import DONE, USAGE
from tests.providers.openai.test_stream import kind_of, read

LIMIT = 4600

CREATED = b'event: response.created\ndata: {"type":"response.created","response":{"usage":null}}\n\n'
WORD = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi"}\n\n'
COMPLETED = (
    b'event: response.completed\ndata: {"type":"response.completed","response":{"usage":{"input_tokens":9,"output_tokens":3,'
    b'"input_tokens_details":{"cached_tokens":4},"output_tokens_details":{"reasoning_tokens":2}}}}\n\n'
)
QUEUED = b'event: response.queued\ndata: {"type":"response.queued","response":{}}\n\n'
RUNNING = b'event: response.in_progress\ndata: {"type":"response.in_progress","response":{}}\n\n'
FAILED = (
    b'event: response.failed\ndata: {"type":"response.failed","sequence_number":7,"response":{"error":{"code":"overloaded","message":"m"},'
    b'"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":'
    b'{"reasoning_tokens":2}}}}\n\n'
)
ERROR = b'event: error\ndata: {"type":"error","code":"rate_limit_exceeded","message":"m","param":null,"sequence_number":7}\n\n'
INCOMPLETE = b'event: response.incomplete\ndata: {"type":"response.incomplete","response":{}}\n\n'

#: What comes, what the client gets of it, the usage, and the kind of error that ends it.
TYPED = {
    "completed": (CREATED + WORD + COMPLETED, CREATED + WORD + COMPLETED, USAGE, None),
    "incomplete": (CREATED + WORD + INCOMPLETE, CREATED + WORD + INCOMPLETE, None, None),
    "cancelled": ((ended := CREATED + WORD + COMPLETED.replace(b"completed", b"cancelled")), ended, USAGE, None),
    "done": ((ended := CREATED + WORD + COMPLETED.replace(b"completed", b"done")), ended, USAGE, None),
    "nothing between": (CREATED + QUEUED + RUNNING + COMPLETED, CREATED + QUEUED + RUNNING + COMPLETED, USAGE, None),
    "failed": (CREATED + WORD + FAILED + ERROR, CREATED + WORD, USAGE, "overloaded"),
    "an error later": (CREATED + WORD + ERROR + FAILED, CREATED + WORD, None, "rate_limit_exceeded"),
    "an error without a name": (CREATED + WORD + b'data: {"error":{"message":"m"}}\n\n', CREATED + WORD, None, "server_error"),
    "cut": (CREATED + WORD, CREATED + WORD, None, "stream_truncated"),
    "cut behind an end that is none": (CREATED + WORD + DONE, CREATED + WORD, None, "stream_truncated"),
    "an end before the end": (CREATED + WORD + DONE + COMPLETED, CREATED + WORD + COMPLETED, USAGE, None),
    "without names": (CREATED[24:] + WORD[34:] + COMPLETED[26:], CREATED[24:] + WORD[34:] + COMPLETED[26:], USAGE, None),
    "several lines": (CREATED + b"event: x\ndata: 1\ndata: 2\n\n" + COMPLETED,) * 2 + (USAGE, None),
    "events without data": (
        b"data:\n\n" + CREATED + b"data: \n\n" + WORD + b"event: ping\ndata:\n\n" + COMPLETED,
        CREATED + WORD + COMPLETED,
        USAGE,
        None,
    ),
    "a type that is no text": (b'data: {"type":[]}\n\n' + COMPLETED, b'data: {"type":[]}\n\n' + COMPLETED, USAGE, None),
    "nonsense": (CREATED + WORD + b"event: response.x\ndata: {\n\n", CREATED + WORD, None, "invalid_response"),
    "what follows the end is nobody's": (CREATED + COMPLETED + DONE + ERROR, CREATED + COMPLETED, USAGE, None),
    "what follows the end is cut": (CREATED + COMPLETED + b"data: [DONE]\n", CREATED + COMPLETED, USAGE, None),
    "what follows the end is too large": (CREATED + COMPLETED + b"data: " + b"x" * 5000, CREATED + COMPLETED, USAGE, None),
    "half a character": (CREATED + WORD.replace(b"hi", b"\\ud83d") + COMPLETED.replace(b'"input', b'"x":"\\udE00","input', 1),) * 2
    + (USAGE, None),
}


EARLY = CREATED.replace(b"null", b'{"input_tokens":9,"output_tokens":1}')
TYPED["cut behind an early usage"] = (EARLY + WORD * 3, EARLY + WORD * 3, Usage(9, 3), "stream_truncated")
TYPED["an early usage, and the last one"] = (EARLY + WORD * 4 + COMPLETED,) * 2 + (USAGE, None)


@pytest.mark.parametrize(("upstream", "shown", "usage", "failure"), TYPED.values(), ids=TYPED.keys())
def test_typed_events_go_through_as_they_came(upstream: bytes, shown: bytes, usage: Usage | None, failure: str | None):
    for parts in every_cut(upstream):
        decoder = TypedEventDecoder(LIMIT, terminal=True)
        assert read(decoder, parts) == shown
        assert decoder.usage == usage
        assert kind_of(decoder.failure) == failure
        assert decoder.started
        assert decoder.done is (failure is None), "nothing is waited for that can bring nothing"


def test_a_response_begins_with_what_is_more_than_its_opening():
    decoder = TypedEventDecoder(LIMIT, terminal=True)
    for event in (CREATED, QUEUED, b": ping\n\n", RUNNING):
        decoder.feed(event)
        assert not decoder.started
    decoder.feed(b'event: response.output_item.added\ndata: {"type":"response.output_item.added"}\n\n')
    assert decoder.started


def test_a_response_has_the_id_that_it_was_made_with_and_events_without_one_have_none():
    decoder = TypedEventDecoder(LIMIT, terminal=True)
    assert decoder.made is None
    for id in ("resp_1", "resp_2"):
        decoder.feed(b'event: response.created\ndata: {"type":"response.created","response":{"id":"%b"}}\n\n' % id.encode())
        assert decoder.made == "resp_1"
    other = TypedEventDecoder(LIMIT, terminal=False)
    other.feed(b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1"}}\n\n')
    assert other.made is None


def test_a_provider_that_says_again_that_it_works_is_taken_to_have_begun():
    """It takes long, and says so: the client may know."""
    decoder = TypedEventDecoder(LIMIT, terminal=True)
    decoder.feed(CREATED + RUNNING)
    assert not decoder.started
    decoder.feed(RUNNING)
    assert decoder.started


def test_a_response_that_runs_without_its_client_begins_at_once():
    decoder = TypedEventDecoder(LIMIT, terminal=True, at_once=True)
    assert decoder.feed(CREATED) == CREATED
    assert decoder.started
    assert not decoder.done


@pytest.mark.parametrize(("event", "code"), [(FAILED, "overloaded"), (ERROR, "rate_limit_exceeded")])
def test_a_failure_behind_content_has_the_providers_own_event(event: bytes, code: str):
    decoder = TypedEventDecoder(LIMIT, terminal=True)
    read(decoder, (CREATED + WORD, event))
    assert decoder.failure is not None
    assert (decoder.failure.event, decoder.failure.code, decoder.failure.message) == (event, code, "m")


@pytest.mark.parametrize(
    "event",
    [
        ERROR.replace(b"rate_limit_exceeded", b"invalid_api_key"),
        FAILED.replace(b'"overloaded"', b'"invalid_api_key"'),
        b'data: {"error":{"message":"m"}}\n\n',
    ],
)
def test_what_may_hold_part_of_a_key_or_is_in_no_known_shape_is_not_shown(event: bytes):
    decoder = TypedEventDecoder(LIMIT, terminal=True)
    read(decoder, (CREATED + WORD, event))
    assert decoder.failure is not None
    assert decoder.failure.event == b""


@pytest.mark.parametrize(
    "delta",
    [
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"error usage [DONE]"}\n\n',
        b'event: response.output_text.delta\ndata: {"type":"response.completed","usage":{"input_tokens":9}}\n\n',
        b'event: response.output_text.delta\ndata: {"delta":"\\ud83d"}\n\n',
        b'event: response.output_text.delta\ndata: {"delta":"\xff"}\n\n',
        b'event: response.output_text.delta\ndata: {"a":1,\ndata: "b":2}\n\n',
    ],
)
def test_a_piece_of_text_is_not_looked_into_however_it_comes(delta: bytes):
    """Its name says that it ends nothing; a whole one is handed on as it is."""
    for parts in every_cut(CREATED + delta + COMPLETED):
        decoder = TypedEventDecoder(LIMIT, terminal=True)
        assert read(decoder, parts) == CREATED + delta + COMPLETED
        assert (decoder.tokens, decoder.usage, decoder.failure) == (1, USAGE, None)
    decoder = TypedEventDecoder(LIMIT, terminal=True)
    assert b"".join(map(decoder.feed, (CREATED, delta, COMPLETED))) == CREATED + delta + COMPLETED
    assert (decoder.tokens, decoder.usage, decoder.failure) == (1, USAGE, None)


@pytest.mark.parametrize("name", [b"response.output_text.delta", b"speech.audio.delta"])
@pytest.mark.parametrize("data", [b"{nonsense}", b'{"delta":"a}', b'["delta"]', b'{"a":1}{}', b'"a"', b"{" + b'"a":{' * 40 + b"}"])
def test_a_piece_of_text_that_is_no_object_ends_the_stream_however_it_comes(name: bytes, data: bytes):
    good, bad = (b"event: %b\ndata: %b\n\n" % (name, each) for each in (b"{}", data))
    for parts in ((CREATED, good, good, bad), *every_cut(CREATED + good + bad + COMPLETED)):
        decoder = TypedEventDecoder(LIMIT, terminal=True)
        assert read(decoder, parts) == b"".join(parts).partition(bad)[0]
        assert kind_of(decoder.failure) == "invalid_response"


def test_typed_events_count_their_deltas():
    decoder = TypedEventDecoder(LIMIT, terminal=True)
    read(decoder, (CREATED + WORD * 3 + WORD[34:] + COMPLETED,))
    assert decoder.tokens == 4


@pytest.mark.parametrize(
    ("upstream", "kind", "status"),
    [
        (b'event: error\ndata: {"type":"error","code":"rate_limit_exceeded","message":"m"}\n\n', "rate_limit_exceeded", 429),
        (b'data: {"error":{"message":"m","type":"overloaded_error"}}\n\n', "overloaded", 503),
        (b'event: error\ndata: {"error":{"message":"m"}}\n\n', "server_error", 502),
        (b"data: hello\n\n", "invalid_response", 502),
        (CREATED + ERROR, "rate_limit_exceeded", 429),
        (CREATED + QUEUED + RUNNING + FAILED, "overloaded", 503),
        (CREATED + FAILED.replace(b'{"code":"overloaded","message":"m"}', b"null"), "server_error", 502),
        (CREATED + FAILED.replace(b"overloaded", b"invalid_prompt"), "rejected", 400),
        (CREATED + FAILED.replace(b"overloaded", b"invalid_image_url"), "rejected", 400),
        (CREATED + FAILED.replace(b"overloaded", b"bio_policy"), "rejected", 400),
        (CREATED + FAILED.replace(b"overloaded", b"not_known"), "response_failed", 502),
        (CREATED + ERROR.replace(b"rate_limit_exceeded", b"not_known"), "server_error", 502),
        (CREATED + RUNNING, "stream_truncated", 502),
        (CREATED + DONE, "stream_truncated", 502),
        (CREATED + b"event: response.x\ndata: {\n\n", "invalid_response", 502),
        (b"", "stream_truncated", 502),
        (b"event: x\ndata: " + b"x" * LIMIT + b"\n\n", "response_too_large", 502),
    ],
)
def test_typed_streams_that_fail_at_once_never_start(upstream: bytes, kind: str, status: int):
    for parts in ((upstream,), tuple(bytes([byte]) for byte in upstream)):
        decoder = TypedEventDecoder(LIMIT, terminal=True)
        read(decoder, parts)
        assert decoder.failure is not None
        assert decoder.failure.event == b""
        assert (decoder.failure.kind, decoder.failure.status) == (kind, status)
        assert not decoder.started


def test_a_typed_event_that_is_too_large_ends_the_stream_after_those_before_it():
    for parts in ((CREATED + WORD + b"data: " + b"x" * 5000,), (CREATED + WORD, b"data: " + b"x" * 5000)):
        decoder = TypedEventDecoder(LIMIT, terminal=True)
        assert read(decoder, parts) == CREATED + WORD
        assert kind_of(decoder.failure) == "response_too_large"


def test_streams_without_a_known_end_may_end_anywhere_but_inside_an_event():
    whole = b'event: speech.audio.delta\ndata: {"type":"speech.audio.delta"}\n\n'
    for upstream, failure in [(whole, None), (whole + DONE, None), (b"", None), (whole[:-1], "stream_truncated")]:
        decoder = TypedEventDecoder(LIMIT, terminal=False)
        read(decoder, (upstream,))
        assert kind_of(decoder.failure) == failure
        assert decoder.started is (b"\n\n" in upstream)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    "kind",
    [
        "transcript.text.done",
        "speech.audio.done",
        "image_generation.completed",
        "image_edit.completed",
        "thread.run.completed",
        "response.failed",
    ],
)
def test_the_last_event_of_every_kind_of_stream_tells_its_usage(kind: str, named: bool):
    usage = b'{"type":"tokens","input_tokens":9,"output_tokens":3,"input_token_details":{"audio_tokens":9},"total_tokens":12}'
    data = b'data: {"type":"%b","usage":%b}\n\n' % (kind.encode(), usage)
    if kind == "response.failed":  # of a stored response: it is what was asked for
        data = b'data: {"type":"%b","response":{"usage":%b}}\n\n' % (kind.encode(), usage)
    name = b"event: %b\n" % kind.encode() if named else b""
    upstream = b'data: {"type":"x.delta"}\n\n' + name + data
    for parts in every_cut(upstream):
        decoder = TypedEventDecoder(LIMIT, terminal=False)
        assert read(decoder, parts) == upstream
        assert (decoder.usage, decoder.failure) == (Usage(9, 3, reported=True), None)


def test_sound_that_is_charged_by_its_length_has_no_tokens():
    decoder = TypedEventDecoder(LIMIT, terminal=False)
    read(decoder, (b'data: {"type":"transcript.text.delta","delta":"x"}\n\n',))
    read(decoder, (b'data: {"type":"transcript.text.done","usage":{"type":"duration","seconds":9}}\n\n',))
    assert (decoder.tokens, decoder.usage) == (1, Usage(reported=True))


def test_a_done_that_lost_its_blank_line_is_whole():
    decoder = TypedEventDecoder(LIMIT, terminal=False)
    assert read(decoder, (b"event: x\ndata: 1\n\n" + DONE[:-1],)) == b"event: x\ndata: 1\n\n" + DONE
    assert decoder.failure is None
    assert decoder.mended


def test_an_error_later_ends_every_typed_stream():
    for event, shown in (
        (b'event: error\ndata: {"message":"m"}\n\n', None),
        (ERROR, ERROR),
        (b'event: error\ndata: {"error":"m"}\n\n',) * 2,
    ):
        decoder = TypedEventDecoder(LIMIT, terminal=False)
        read(decoder, (b"event: x\ndata: 1\n\n" + event,))
        assert (decoder.failure and decoder.failure.event) == shown


_PARTS = [b"data: ", b"\n\n", b'{"type":[]}', b'{"usage":[1]}', b'{"type":"response.failed","response":7}', b"\r", DONE, CREATED, COMPLETED]


@given(st.booleans(), st.lists(st.binary(max_size=40) | st.sampled_from(_PARTS), max_size=12))
def test_bytes_of_any_kind_never_raise(terminal: bool, parts: list[bytes]):
    read(TypedEventDecoder(200, terminal=terminal), tuple(parts))


@pytest.mark.parametrize(
    ("events", "following"),
    [
        ((), 0),
        ((b'{"type":"response.created","sequence_number":0}',), 1),
        (
            (
                b'{"type":"response.created","sequence_number":0}',
                b'{"type":"response.output_text.delta","sequence_number": 41,"delta":"a"}',
            ),
            42,
        ),
        ((b'{"type":"response.created"}',), 0),
    ],
)
def test_what_ends_a_numbered_stream_is_numbered_on(events: tuple[bytes, ...], following: int):
    decoder = TypedEventDecoder(4096, terminal=True)
    for data in events:
        name = orjson.loads(data)["type"].encode()
        decoder.feed(b"event: %b\ndata: %b\n\n" % (name, data))
    assert decoder.following == following


def test_a_subscription_begins_with_its_head_and_an_error_is_an_event_of_it():
    failed = b'event: error\ndata: {"type":"error","event_id":"e1","error":{"type":"server_error","message":"m"}}\n\n'
    idle = b'event: agent.session.idle\ndata: {"type":"agent.session.idle","event_id":"e2"}\n\n'
    for upstream in (failed + idle, failed.partition(b"\n")[2] + idle):
        for parts in every_cut(upstream):
            decoder = TypedEventDecoder(LIMIT, terminal=False, subscribed=True)
            assert decoder.started
            assert read(decoder, parts) == upstream
            assert (decoder.failure, decoder.done) == (None, False)
