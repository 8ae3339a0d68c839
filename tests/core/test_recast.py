"""Casts: a chunk is known by its length and its two ends, and becomes the client's."""

from __future__ import annotations

import pytest

from proxy.core.recast import NEVER, SHORT, Casts


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize("around", [15, 16, 100, 190, 230, 255, 256, 4000, 4090])
def test_a_chunk_and_what_is_shown_of_it_are_framed(around: int):
    """Also where the sizes of the two have not as many digits."""
    before, after, shown_after = b"b" * (around - 14), b"a" * 14, b"a"
    known = Casts(before, after, shown_after)
    for size in range(1, SHORT):
        text = b"x" * size
        chunk, shown = framed(before + text + after), framed(before + text + shown_after)
        if len(before + text + after) >= 0x1000:
            assert known[len(chunk)] == NEVER
            continue
        head, tail, told, shown_head, shown_tail, shown_size = known[len(chunk)]
        assert (head + text + tail, told) == (chunk, size)
        assert shown_head is not None
        assert (shown_head + text + shown_tail, shown_size) == (shown, len(before + text + shown_after))


@pytest.mark.parametrize("around", [31, 100, 230, 255, 256, 4000])
def test_between_a_text_and_its_padding_something_may_be_hidden_too(around: int):
    before, between, after = b"b" * (around - 20), b'","usage":null', b"a" * 6
    known = Casts(before, after, after, between, b'"')
    for size in range(2, 2 * SHORT):
        inner, shown_inner = b"x" * (size - 1) + between + b"p", b"x" * (size - 1) + b'"' + b"p"
        chunk, shown = framed(before + inner + after), framed(before + shown_inner + after)
        if len(before + inner + after) >= 0x1000:
            continue
        head, tail, told, shown_head, shown_tail, shown_size = known[len(chunk)]
        assert (head + inner + tail, told) == (chunk, len(inner))
        assert shown_head is not None
        assert (shown_head + shown_inner + shown_tail, shown_size) == (shown, len(before + shown_inner + after))


@pytest.mark.parametrize("between", [b"", b'","p":"'])
def test_of_what_hides_nothing_the_chunk_itself_is_shown(between: bytes):
    known = Casts(b"b" * 80, b"a" * 20, b"a" * 20, between, between)
    data = b"b" * 80 + b"xx" + between + b"a" * 20
    _, _, size, shown_before, _, shown_size = known[len(framed(data))]
    assert (size, shown_before, shown_size) == (len(b"xx" + between), None, len(data))


@pytest.mark.parametrize("length", [0, 1, 106, 107 + SHORT, 5000, 2**20])
def test_a_chunk_that_cannot_have_a_short_text_is_not_known(length: int):
    known = Casts(b"b" * 80, b"a" * 20, b"a" * 20)
    assert known[length] == NEVER
    assert not known, "nothing is kept of what comes and fits nothing"
