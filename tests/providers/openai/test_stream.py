"""Event streams: the same for the client wherever their bytes were cut, whole ones and broken ones."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.openai.stream import ChatDecoder, Endings, _chunk
from providers.openai.value import read_event
from proxy.core.call import Usage
from proxy.core.errors import UpstreamError
from proxy.core.protocols import StreamDecoder
from tests.core.doubles import every_cut
from tests.providers.openai.fixtures import CHAT, CHAT_REFUSED, DONE, LAST, NULL, PLAIN, USAGE, Stream, chunk, delta, finish

LIMIT = 4600


def read(decoder: StreamDecoder, parts: tuple[bytes, ...]) -> bytes:
    """What a client gets of `parts`, fed as dispatch feeds them."""
    out = b""
    for part in parts:
        out += decoder.feed(part)
        if decoder.done or decoder.failure is not None:
            return out
    return out + decoder.eof()


def kind_of(error: UpstreamError | None) -> str | None:
    return None if error is None else error.kind


def found_by(decoder: StreamDecoder) -> tuple[object, ...]:
    """All that a decoder tells of its stream."""
    failure = decoder.failure and (decoder.failure.kind, decoder.failure.code, decoder.failure.message, decoder.failure.status)
    return decoder.usage, decoder.tokens, decoder.started, decoder.done, decoder.mended, failure


def chat(stream: Stream) -> ChatDecoder:
    return ChatDecoder(LIMIT, choices=stream.choices, wants_usage=stream.wants_usage)


@pytest.mark.parametrize("stream", CHAT.values(), ids=CHAT.keys())
def test_a_client_gets_the_same_chat_wherever_the_bytes_were_cut(stream: Stream):
    for parts in every_cut(stream.upstream):
        decoder = chat(stream)
        assert read(decoder, parts) == stream.client, parts
        assert decoder.usage == stream.usage
        assert kind_of(decoder.failure) == stream.failure, parts
        assert decoder.done is stream.done
        assert decoder.started
        assert decoder.tokens > 0 or b'"content"' not in stream.upstream


@pytest.mark.parametrize(("upstream", "kind", "status"), CHAT_REFUSED.values(), ids=CHAT_REFUSED.keys())
def test_a_chat_that_fails_before_content_never_starts(upstream: bytes, kind: str, status: int):
    for parts in every_cut(upstream):
        decoder = ChatDecoder(LIMIT)
        read(decoder, parts)
        assert decoder.failure is not None
        assert (decoder.failure.kind, decoder.failure.status) == (kind, status)
        assert not decoder.started


def test_nothing_starts_a_stream_but_content():
    decoder = ChatDecoder(LIMIT)
    decoder.feed(b": hello\n\n" + PLAIN[: PLAIN.index(b"data: ", 6)])
    assert not decoder.started
    decoder.feed(chunk(delta(b"a")))
    assert decoder.started


def test_an_answer_without_words_starts_at_its_end():
    decoder = ChatDecoder(LIMIT)
    assert read(decoder, (chunk(finish()) + DONE,)) == chunk(finish()) + DONE
    assert decoder.started
    assert decoder.tokens == 0


@pytest.mark.parametrize("at", range(3))
def test_an_event_that_is_too_large_ends_the_chat_after_those_before_it(at: int):
    large = chunk(delta(b"x" * LIMIT))
    good = chunk(delta(b"a")) * (at + 1)
    for parts in ((good + large,), (good, large), (good, large[:50], large[50:]), tuple(bytes([byte]) for byte in good + large)):
        decoder = ChatDecoder(LIMIT)
        assert read(decoder, parts) == good
        assert kind_of(decoder.failure) == "response_too_large"


@pytest.mark.parametrize("over", range(-12, 6))
def test_whether_an_event_is_too_large_does_not_hang_on_where_it_was_cut(over: int):
    first, large = chunk(delta(b"x")), chunk(delta(b"y" * 63))
    limit = len(large) - 2 - over
    outcomes = set()
    for parts in ((first, large), (first, large[:30], large[30:]), (first + large,), tuple(bytes([byte]) for byte in first + large)):
        decoder = ChatDecoder(limit)
        outcomes.add((read(decoder, parts), decoder.failure is None))
    assert len(outcomes) == 1


def test_a_failure_before_the_one_that_is_too_large_counts():
    decoder = ChatDecoder(LIMIT)
    out = decoder.feed(chunk(delta(b"a")) + b"data: nonsense\n\n" + chunk(delta(b"x" * LIMIT)))
    assert out == chunk(delta(b"a"))
    assert kind_of(decoder.failure) == "invalid_response"


_TEXTS = st.text(st.sampled_from('ab"\\ :{}[],\né😀'), max_size=12) | st.sampled_from(['"error"', ',"usage":null', '"finish_reason":"x"'])
_CHOICES = st.fixed_dictionaries(
    {
        "index": st.integers(0, 1),
        "delta": st.fixed_dictionaries({}, optional={"content": _TEXTS, "role": st.just("assistant"), "reasoning": _TEXTS}),
        "finish_reason": st.sampled_from([None, None, None, "stop", ""]),
    }
)
_CHUNKS = st.fixed_dictionaries(
    {"id": _TEXTS, "choices": st.lists(_CHOICES, max_size=2)},
    optional={
        "usage": st.none() | st.just({"prompt_tokens": 3, "completion_tokens": 4}),
        "error": st.none() | st.just({"message": "m", "code": "overloaded"}),
        "x": _TEXTS,
    },
)


@given(st.lists(_CHUNKS, max_size=6), st.booleans(), st.booleans(), st.booleans())
def test_the_short_way_gives_what_the_long_way_gives(chunks: list[dict[str, object]], wants_usage: bool, spaced: bool, ends: bool):
    """Events that come whole are passed unparsed where they may be; cut, they are all read."""
    first = chunk(delta(b"a"))
    events = [b"data: %b\n\n" % _written(value, spaced) for value in chunks] + [DONE] * ends
    short, long = ChatDecoder(2**20, wants_usage=wants_usage), ChatDecoder(2**20, wants_usage=wants_usage)
    by_event = read(short, (first, *events))
    by_byte = read(long, tuple(bytes([byte]) for byte in first + b"".join(events)))
    assert by_event == by_byte
    assert found_by(short) == found_by(long)
    at_once = ChatDecoder(2**20, wants_usage=wants_usage)
    assert read(at_once, (first, b"".join(events))) == by_byte
    assert found_by(at_once) == found_by(long)


@pytest.mark.parametrize(
    ("event", "tokens"),
    [
        (chunk(delta(b"b")), 1),
        (chunk(delta(b"")), 0),
        (chunk(b""), 0),
        (chunk(b'{"index":0,"delta":{},"finish_reason":null}'), 0),
        (chunk(b'{"index":0,"delta":{"content":null},"finish_reason":null}'), 0),
        (chunk(b'{"index":0,"delta":{"role":"assistant"},"finish_reason":null}'), 0),
        (chunk(b'{"index":0,"delta":{"reasoning_content":"b","content":null},"finish_reason":null}'), 1),
        (chunk(b'{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"b"}}]},"finish_reason":null}'), 1),
        (chunk(delta(b"b") + b"," + delta(b"c", 1)), 2),
        (b'data: {"choices":[{"text":"","index":0}]}\n\n', 0),
    ],
)
def test_only_content_counts_as_content_wherever_the_bytes_were_cut(event: bytes, tokens: int):
    for parts in every_cut(event):
        decoder = ChatDecoder(LIMIT)
        decoder.feed(PLAIN[: PLAIN.index(b"data: ", 400)])
        before = decoder.tokens
        for part in parts:
            decoder.feed(part)
        assert before > 0
        assert decoder.tokens - before == tokens, parts


@pytest.mark.parametrize(
    "inner",
    [
        b'{"index":0,"delta":{"content":"b"},"usage":null,"finish_reason":null}',
        b'{"index":0,"delta":{"content":"b","usage":null},"finish_reason":null}',
        b'{"index":0,"delta":{"content":"b"},"finish_reason":null,"usage":null}',
    ],
)
def test_a_choices_own_usage_stays(inner: bytes):
    ours, last = chunk(delta(b"a")) + chunk(inner) * 2, chunk(finish()) + DONE
    shown = ours + chunk(inner) * 2 + last
    for parts in every_cut(ours + chunk(inner, NULL) * 2 + last):
        assert read(ChatDecoder(LIMIT), parts) == shown
    events = tuple(event + b"\n\n" for event in (ours + chunk(inner, NULL) * 2 + last).split(b"\n\n")[:-1])
    assert read(ChatDecoder(LIMIT), events) == shown


@pytest.mark.parametrize("nonsense", [b'data: {"choices":[{"delta":{"content":"a"}}\n\n', b"data: {nonsense}\n\n", chunk(delta(b"\t"))])
def test_what_is_no_json_is_not_handed_on_however_it_comes(nonsense: bytes):
    for parts in every_cut(nonsense):
        decoder = ChatDecoder(LIMIT)
        assert read(decoder, (chunk(delta(b"a")), *parts)) == chunk(delta(b"a"))
        assert kind_of(decoder.failure) == "invalid_response"


def test_a_usage_that_is_none_does_not_erase_an_earlier_one():
    upstream = chunk(delta(b"a")) + LAST + chunk(finish(), b',"usage":[1]') + DONE
    for parts in every_cut(upstream):
        decoder = ChatDecoder(LIMIT)
        read(decoder, parts)
        assert decoder.usage == USAGE


def test_what_stands_beside_usage_in_a_legacy_completion_has_a_choice_of_its_kind():
    text = b'data: {"object":"text_completion","choices":[{"index":0,"text":"a","finish_reason":"stop"}]}\n\n'
    last = b'data: {"object":"text_completion","choices":[],"usage":{"prompt_tokens":1},"citations":["u"]}\n\n'
    choice = b'{"index":0,"text":"","logprobs":null,"finish_reason":null}'
    for parts in every_cut(text + last + DONE):
        assert (
            read(ChatDecoder(LIMIT), parts)
            == text + last.replace(b',"usage":{"prompt_tokens":1}', b"").replace(b"[]", b"[%b]" % choice) + DONE
        )


def test_a_stream_whose_events_are_all_different_is_read():
    decoder = ChatDecoder(2**20)
    events = [chunk(delta(b"a"), b',"number":%d' % number) for number in range(50)] + [chunk(delta(b"a"))] * 50 + [chunk(finish()), DONE]
    assert read(decoder, tuple(events)) == b"".join(events)
    assert decoder.tokens == 100


@pytest.mark.parametrize("digits", [17, 24, 400])
def test_a_number_that_no_record_can_hold_is_no_number_of_tokens(digits: int):
    decoder = ChatDecoder(2**16)
    decoder.feed(b'data: {"choices":[],"usage":{"prompt_tokens":9%b,"completion_tokens":3}}\n\n' % (b"0" * (digits - 1)))
    assert decoder.usage == Usage(0, 3)


@pytest.mark.parametrize("rest", [b"", NULL, NULL + b',"obfuscation":"xy"', b',"system_fingerprint":null' + NULL])
@pytest.mark.parametrize(
    "text",
    [b"b", b"a", b"word " * 30, b"\\n", b'\\"usage\\":null', b"", b"\\", b'"', b"\x00", b"\n", b"\r", b"\xff", b'","role":"x', b"{}[],:"],
)
def test_a_text_in_a_known_frame_is_what_it_is_when_it_is_read(text: bytes, rest: bytes):
    events = (chunk(delta(b"a"), rest), chunk(delta(text), rest), chunk(delta(b"b"), rest), chunk(finish()), DONE)
    by_event, by_byte = ChatDecoder(LIMIT), ChatDecoder(LIMIT)
    assert read(by_event, events) == read(by_byte, tuple(bytes([byte]) for byte in b"".join(events)))
    assert found_by(by_event) == found_by(by_byte)


def _written(value: object, spaced: bool) -> bytes:
    written = orjson.dumps(value)
    return written.replace(b'":', b'": ') if spaced else written


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"data: ", b"\n\n", b'{"type":[]}', b'{"usage":[1]}', b"\r", DONE]), max_size=12))
def test_bytes_of_any_kind_never_raise(parts: list[bytes]):
    read(ChatDecoder(200), tuple(parts))


# -- usage --


def ending(text: bytes, tokens: int, index: int = 0) -> bytes:
    """A choice that ends, with its own usage."""
    return delta(text, index).replace(b"null", b'"stop","usage":{"prompt_tokens":9,"completion_tokens":%d}' % tokens)


EARLY = b',"usage":{"prompt_tokens":9,"completion_tokens":1}'


ZEROS = b',"usage":{"prompt_tokens":0,"completion_tokens":0}'


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (chunk(delta(b"a"), EARLY), Usage(9, 1, reported=True)),
        (chunk(delta(b"a"), EARLY) + chunk(delta(b"b")) * 3, Usage(9, 4)),
        (chunk(delta(b"a"), EARLY) + chunk(delta(b"b")) * 3 + chunk(finish()) + DONE, Usage(9, 4)),
        (chunk(delta(b"a"), EARLY) + chunk(delta(b"b")) * 3 + chunk(finish(), ZEROS) + DONE, Usage(9, 4)),
        (chunk(delta(b"a"), EARLY) + chunk(delta(b"b")) * 3 + chunk(finish()) + LAST + DONE, USAGE),
        (chunk(delta(b"a")) * 3 + chunk(b"", EARLY) + DONE, Usage(9, 1, reported=True)),
        (chunk(delta(b"a")) * 3 + chunk(b"", b',"usage":{"prompt_tokens":9}') + DONE, Usage(9)),
        (chunk(delta(b"a"), b',"usage":{"prompt_tokens":9,"completion_tokens":8}') + chunk(delta(b"b")) * 3, Usage(9, 8, reported=True)),
        (chunk(delta(b"a"), ZEROS) + chunk(delta(b"b")), None),
        (chunk(delta(b"a"), EARLY) + chunk(finish(), b',"usage":{"completion_tokens":6}') + DONE, Usage(9, 6, reported=True)),
        (chunk(delta(b"a")) * 3 + LAST + chunk(b"", b',"usage":{"prompt_tokens":9,"completion_tokens":null}') + DONE, USAGE),
        (chunk(delta(b"a")) * 3 + chunk(ending(b"b", 2)) + DONE, Usage(9, 2, reported=True)),
        (chunk(ending(b"a", 2)) + chunk(ending(b"b", 3, 1)) + chunk(ending(b"", 3, 1)) + DONE, Usage(9, 5, reported=True)),
    ],
)
def test_contents_that_come_after_a_usage_count(stream: bytes, expected: Usage | None):
    for parts in ((stream,), tuple(stream.splitlines(keepends=True))):
        decoder = ChatDecoder(LIMIT)
        read(decoder, parts)
        assert decoder.usage == expected


def test_an_end_that_is_none_was_not_mended():
    endings = Endings()
    assert endings.fits(with_reason=True)
    decoder = ChatDecoder(LIMIT, endings=endings)
    read(decoder, (chunk(delta(b"a")), DONE.rstrip()))
    assert (decoder.mended, kind_of(decoder.failure)) == (False, "stream_truncated")


VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-9, 2**64 - 1)
    | st.floats(width=32, allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
)
OBJECTS = st.dictionaries(st.sampled_from(["role", "content", "delta", "finish_reason", "message", "usage"]), VALUES, max_size=3)
CHUNKS = st.fixed_dictionaries(
    {},
    optional={
        "id": VALUES,
        "choices": VALUES | st.lists(VALUES | OBJECTS, max_size=2),
        "usage": VALUES | OBJECTS,
        "error": VALUES | OBJECTS,
    },
)


def looked_at(value: dict[str, Any]) -> tuple[Any, ...]:
    return value.get("choices"), value.get("usage", msgspec.UNSET), value.get("error")


@given(CHUNKS | VALUES, st.integers(0, 100), st.sampled_from(b'"{}[],:\\\x00\xff 1nt-'))
def test_what_of_an_event_is_passed_over_is_held_to_the_same_as_what_is_made(value: Any, at: int, byte: int):
    raw = orjson.dumps(value)
    for data in (raw, raw[:at], raw[:at] + bytes([byte]) + raw[at + 1 :]):
        try:
            made = looked_at(read_event(data))
        except UpstreamError as error:
            with pytest.raises(UpstreamError) as refused:
                _chunk(data)
            assert (refused.value.kind, refused.value.message) == (error.kind, error.message)
        else:
            chunk = _chunk(data)
            assert (chunk.choices, chunk.usage, chunk.error) == made, data
