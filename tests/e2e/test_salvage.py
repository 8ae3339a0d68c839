"""Requests that come in one piece with bytes that are no HTTP: each is answered and recorded, and only then the rest refused."""

from __future__ import annotations

import pytest

from tests.support.gateway import Gateway
from tests.support.raw_client import RawClient, chat_body
from tests.support.script import CHAT, completion
from tests.support.upstream import Upstream


@pytest.mark.parametrize("count", [1, 3])
def test_what_was_sent_well_is_answered_before_what_was_not_is_refused(gateway: Gateway, upstream: Upstream, count: int) -> None:
    upstream.play(*[CHAT] * count)
    mark = gateway.mark()
    with RawClient(gateway.url) as client:
        client.send(client.request_bytes("POST", "/v1/chat/completions", chat_body()) * count + b"BLAH\r\n\r\n")
        answers = [client.read() for _ in range(count)]
        assert [(answer.status, answer.json()) for answer in answers] == [(200, completion())] * count
        assert client.read().status == 400
        assert client.is_closed(4)
    assert len(upstream.requests) == count
    for answer in answers:
        gateway.record_of(answer)
    gateway.wait_record(lambda record: record["operation"] == "unknown")
    assert gateway.mark() == mark + count + 1
