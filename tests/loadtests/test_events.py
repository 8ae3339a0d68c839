"""Only a delta with content is a token."""

from __future__ import annotations

import pytest

from loadtests.events import kind_of


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (b": ping\n\n", "other"),
        (b"\n\n", "other"),
        (b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n', "other"),
        (b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n', "other"),
        (b'data: {"choices":[],"usage":{}}\n\n', "other"),
        (b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n', "content"),
        (b'event: x\ndata:{"choices":[{"delta":{"content":" "}}]}\r\n\n', "content"),
        (b'data: {"error":{"message":"m"}}\n\n', "error"),
        (b"data: [DONE]\n\n", "done"),
    ],
)
def test_the_kind_of_an_event(event, kind):
    assert kind_of(event) == kind


@pytest.mark.parametrize("event", [b"data: {\n\n", b"data: 3\n\n"])
def test_what_is_no_event_of_a_chat(event):
    with pytest.raises(ValueError):
        kind_of(event)
