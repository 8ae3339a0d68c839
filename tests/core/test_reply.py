"""A reply is closed once, on every way out."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from proxy.core.reply import Reply


async def _nothing() -> AsyncIterator[bytes]:
    pieces: tuple[bytes, ...] = ()
    for piece in pieces:
        yield piece


def test_closers_run_innermost_first_and_once():
    seen: list[tuple[str, BaseException | None]] = []
    reply = Reply()
    reply.on_close(lambda error: seen.append(("inner", error)))
    reply.on_close(lambda error: seen.append(("outer", error)))
    reply.close()
    reply.close(ValueError())
    assert seen == [("inner", None), ("outer", None)]
    assert reply.closed


def test_closers_learn_what_ended_the_reply():
    seen: list[BaseException | None] = []
    reply = Reply()
    reply.on_close(seen.append)
    error = ConnectionError()
    reply.close(error)
    assert seen == [error]


def test_a_closer_that_comes_too_late_runs_at_once():
    seen: list[BaseException | None] = []
    reply = Reply()
    error = ConnectionError()
    reply.close(error)
    reply.on_close(seen.append)
    reply.close()
    assert seen == [error]


def test_a_closer_that_closes_again_does_no_harm():
    seen: list[BaseException | None] = []
    reply = Reply()
    reply.on_close(reply.close)
    reply.on_close(seen.append)
    reply.close()
    assert seen == [None]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply, False),
        (lambda: Reply(headers={"content-type": "text/event-stream"}), False),
        (lambda: Reply(stream=_nothing()), False),
        (lambda: Reply(stream=_nothing(), headers={"content-type": "audio/mpeg"}), False),
        (lambda: Reply(stream=_nothing(), headers={"content-type": "text/event-stream; charset=utf-8"}), True),
        (lambda: Reply(stream=_nothing(), headers={"content-type": "text/event-streamx"}), False),
    ],
)
def test_an_event_stream_is_told_by_its_type(reply, expected: bool):
    assert reply().is_event_stream is expected


def test_replies_do_not_share_headers():
    one, other = Reply(), Reply()
    one.headers["a"] = "b"
    assert other.headers == {}
