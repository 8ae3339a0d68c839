"""Answers that are passed on as they come: what is waited for before, and how they go on."""

from __future__ import annotations

import pytest

from proxy.core.call import Timeouts
from proxy.core.errors import StreamError, UpstreamError
from proxy.relay import Copy, relayed
from tests.test_stream import RESET, Watched


async def test_a_relayed_body_comes_piece_by_piece():
    watched, told = Watched(b"b", b"", b"never"), list[UpstreamError]()
    assert [piece async for piece in relayed(b"a", watched.response, watched.watch, told.append)] == [b"a", b"b"]


async def test_while_the_client_is_waited_for_only_the_whole_has_an_end():
    watched = Watched(b"b", timeouts=Timeouts(first_token=60, idle=30, total=100))
    start, told = watched.clock.now, list[UpstreamError]()
    pieces = relayed(b"a", watched.response, watched.watch, told.append)
    assert await anext(pieces) == b"a"
    assert watched.watch.due == start + 100
    watched.clock.move(50)
    assert await anext(pieces) == b"b"
    watched.watch.progress()
    assert watched.watch.due == start + 80


async def test_a_relayed_body_that_breaks_off_is_an_interrupted_stream():
    watched, told = Watched(RESET), list[UpstreamError]()
    seen = []
    with pytest.raises(StreamError) as caught:
        async for piece in relayed(b"a", watched.response, watched.watch, told.append):
            seen.append(piece)
    assert seen == [b"a"]
    assert caught.value.kind == "stream_interrupted"
    assert told == [caught.value]


@pytest.mark.parametrize("size", [1, 1000, 2**16, 2**17])
def test_of_a_body_that_is_too_large_its_end_is_kept(size: int):
    body = bytes(range(256)) * 2**10
    kept, whole = Copy(2**17), Copy(len(body))
    for start in range(0, len(body), size):
        kept.add(body[start : start + size])
        whole.add(body[start : start + size])
    assert (kept.body, whole.body) == (body[-(2**16) :], body)
