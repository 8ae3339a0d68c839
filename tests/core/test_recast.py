"""Casts: what a chunk is known by, and what of it is shown."""

from __future__ import annotations

import pytest

from proxy.core import recast
from proxy.core.recast import LINES, NO_CHUNK, SHORT, cast_of, chunk_of, is_text


@pytest.mark.parametrize("size", [1, 9, 15, 16, 255, 256, 4094, 4095])
def test_a_chunk_s_length_tells_its_line_and_the_size_of_its_data(size: int):
    chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
    assert chunk_of(len(chunk)) == (LINES[size], size)
    assert chunk.startswith(LINES[size])


@pytest.mark.parametrize("length", [0, 1, 4, 5, 21, 262, 4103, 5000, 2**20])
def test_of_other_lengths_no_chunk_is_known(length: int):
    assert chunk_of(length, NO_CHUNK) == NO_CHUNK


@pytest.mark.parametrize("shown_after", [b"aaaa", b"a", b""])
@pytest.mark.parametrize("shown_between", [b'","p":"', b'"', b""])
@pytest.mark.parametrize("between", [b'","p":"', b""])
def test_a_cast_says_where_a_text_stands_and_what_is_hidden(between: bytes, shown_between: bytes, shown_after: bytes):
    shown_between = shown_between if between else b""
    before, head, after, tail, around, most, *shown, hidden = cast_of(b"before", b"aaaa", shown_after, between, shown_between)
    event = b"before" + b"text" + b"aaaa"
    assert (event + b"\r\n")[head:tail] == b"text"
    assert (before, after, around) == (b"before", b"aaaa\r\n", len(event) - len(b"text"))
    assert shown == [between, shown_between, shown_after + b"\r\n"]
    assert hidden == len(between + b"aaaa") - len(shown_between + shown_after)
    assert most == (len(between) + 2 * SHORT if between else SHORT)


def test_what_stands_after_many_texts_alike_is_there_once_and_no_more_than_some_is_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recast, "_COMMON", {})
    casts = [cast_of(b"%d" % stream, b"".join([b"after", b" it"]), b"") for stream in range(3)]
    assert len({id(cast[2]) for cast in casts}) == 1
    for stream in range(1000):
        assert cast_of(b"", b"%d" % stream, b"")[2] == b"%d\r\n" % stream
    cast_of(b"", b"x" * 1000, b"")
    assert len(recast._COMMON) <= 256
    assert max(map(len, recast._COMMON)) <= 256


@pytest.mark.parametrize("text", [b"a", b" word", b"\\n", b'\\"', "über".encode(), b"\\u00e9", b"\\\\", b"'"])
def test_a_text_may_stand_in_a_string(text: bytes):
    assert is_text(text)


@pytest.mark.parametrize("text", [b'"', b"\\", b"\n", b"\x00", b"\\x", b"\\u12", b"\\ud83d", b'a"b', b'\\\\"'])
def test_what_would_end_a_string_or_is_half_of_something_is_no_text(text: bytes):
    assert not is_text(text)
