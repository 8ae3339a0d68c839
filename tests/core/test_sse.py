"""The event stream decoder, against the WHATWG text: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.sse import Event, EventDecoder, ProtocolError
from tests.core.doubles import every_cut

# What a stream is made of, so that random streams hold more than random bytes would.
_PIECES = [
    b"data", b"data:", b"data: ", b"event: ", b"id: 1", b"retry: 3", b":", b" ", b"x", b'{"a":1}', b"[DONE]",
    b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\xef\xbb\xbf", b"\xef", b"\xc3\xa9", b"\xff", b"\0",
]  # fmt: skip
STREAMS = st.lists(st.sampled_from(_PIECES) | st.binary(max_size=4), max_size=40).map(b"".join)


def decode(*parts: bytes, limit: int = 2**20) -> tuple[list[Event], bool]:
    """The events of a stream that arrived in `parts`, and whether it went over the limit."""
    decoder = EventDecoder(limit)
    events: list[Event] = []
    for part in parts:
        try:
            events += decoder.feed(part)
        except ProtocolError as error:
            return events + error.events, True
    return events, False


def datas(*parts: bytes) -> list[bytes]:
    return [event.data for event in decode(*parts)[0]]


CASES = {
    "one line": (b"data: a\n\n", [b"a"]),
    "no space after the colon": (b"data:a\n\n", [b"a"]),
    "only one space is taken": (b"data:  a \n\n", [b" a "]),
    "carriage returns": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "both": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "mixed line ends": (b"data: a\r\n\ndata: b\n\r\ndata: c\r\n\r", [b"a", b"b", b"c"]),
    "several lines": (b"data: a\ndata: b\n\n", [b"a\nb"]),
    "empty lines of data": (b"data\ndata\n\n", [b"\n"]),
    "an empty value": (b"data:\n\n", [b""]),
    "a name without a colon": (b"data\n\n", [b""]),
    "comments": (b": hello\n:\ndata: a\n: there\n\n", [b"a"]),
    "unknown fields": (b"foo: 1\nid: 7\nretry: 10\ndata: a\n\n", [b"a"]),
    "a field that only begins alike": (b"database: 1\ndata : 2\n\n", []),
    "names are told apart by case": (b"Data: 1\n\n", []),
    "a colon inside": (b"data: a:b: c\n\n", [b"a:b: c"]),
    "a mark first": (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    "a mark only first": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
    "two marks": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
    "half a mark": (b"\xef\xbbdata: a\n\ndata: b\n\n", [b"b"]),
    "blank lines alone": (b"\n\n\r\r\n\n", []),
    "an event without data": (b"event: ping\n\n", []),
    "cut in its line": (b"data: a\n\ndata: b", [b"a"]),
    "cut before its blank line": (b"data: a\n\ndata: b\n", [b"a"]),
    "letters of many bytes": ("data: é€😀\n\n".encode(), ["é€😀".encode()]),
    "no UTF-8": (b"data: \xff\xfe\n\n", [b"\xff\xfe"]),
    "a zero byte": (b"data: \0\n\n", [b"\0"]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize(("stream", "expected"), CASES.values(), ids=CASES.keys())
def test_events_are_read_as_the_specification_says_wherever_the_bytes_are_cut(stream: bytes, expected: list[bytes]):
    for parts in every_cut(stream):
        assert datas(*parts) == expected


def test_an_events_name_belongs_to_that_event_only():
    events, _ = decode(b"event: one\nevent: two\ndata: a\n\ndata: b\n\nevent:\ndata: c\n\n")
    assert events == [Event(b"a", b"two"), Event(b"b"), Event(b"c")]


def test_a_name_without_data_is_forgotten_at_the_blank_line():
    assert decode(b"event: ping\n\ndata: a\n\n")[0] == [Event(b"a")]


@given(STREAMS, st.data())
def test_any_split_gives_the_same_events(stream: bytes, data: st.DataObject):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parts = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decode(*parts) == decode(stream)


@given(STREAMS, st.integers(4, 24))
def test_any_split_goes_over_the_limit_after_the_same_events(stream: bytes, limit: int):
    whole = decode(stream, limit=limit)
    for parts in every_cut(stream):
        assert decode(*parts, limit=limit) == whole


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_bytes_of_any_kind_are_decoded_or_refused_and_nothing_else(parts: list[bytes]):
    decoder = EventDecoder(limit=100)
    try:
        for part in parts:
            decoder.feed(part)
    except ProtocolError:
        return
    decoder.eof()


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 100 + b"\n\n",
        b"data: " + b"x" * 100,
        b": " + b"x" * 100 + b"\n",
        b"x" * 101,
        b"data: xxxxxxxxx\n" * 20,
        b"event: " + b"x" * 100 + b"\n",
    ],
    ids=["data", "unfinished", "comment", "no field", "many lines", "name"],
)
def test_an_event_over_the_limit_is_refused_after_those_before_it(stream: bytes):
    for parts in every_cut(b"data: a\n\n" + stream):
        assert decode(*parts, limit=100) == ([Event(b"a")], True)


def test_an_event_at_the_limit_is_taken():
    assert decode(b"data: " + b"x" * 94 + b"\n\n", limit=100) == ([Event(b"x" * 94)], False)


def test_a_long_stream_of_small_events_is_never_over_the_limit():
    assert len(decode(b"data: a\n\n" * 1000, limit=20)[0]) == 1000


def test_a_long_line_in_small_pieces_takes_linear_time():
    decoder = EventDecoder(limit=2**24)
    began = time.process_time()
    decoder.feed(b"data: ")
    for _ in range(2**23 // 2**14):
        decoder.feed(b"x" * 2**14)
    [event] = decoder.feed(b"\n\n")
    assert len(event.data) == 2**23
    # A tenth of a second. Were every piece searched from the line's start again, 2 GiB would be: half a minute.
    assert time.process_time() - began < 5


def test_the_unfinished_event_can_be_looked_at_in_the_end():
    for stream, rest in [
        (b"data: a\n\n", b""),
        (b"data: a\n", b"a"),
        (b"data: a", b"a"),
        (b"data: a\ndata: b", b"a\nb"),
        (b": comment", b""),
        (b"\xef\xbb", b""),
        (b"", b""),
    ]:
        for parts in every_cut(stream):
            decoder = EventDecoder()
            for part in parts:
                decoder.feed(part)
            assert decoder.eof() == rest


def test_it_is_clean_only_between_two_events():
    decoder = EventDecoder()
    assert not decoder.is_clean
    for part, clean in [
        (b"data: a", False),
        (b"\n", False),
        (b"\n", True),
        (b"event: x\n", False),
        (b"\n", True),
        (b"data: a\r\r", False),
        (b"\n", True),
        (b":", False),
        (b"\n", True),
    ]:
        decoder.feed(part)
        assert decoder.is_clean is clean, part


def test_a_caller_that_saw_the_beginning_itself_can_say_that_there_is_no_mark():
    decoder = EventDecoder()
    decoder.start()
    assert decoder.is_clean
    assert [event.data for event in decoder.feed(b"data: a\n\n")] == [b"a"]
