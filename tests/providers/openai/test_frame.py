"""Frames: what has one means what the event meant that it was made of."""

from __future__ import annotations

import pytest

from providers.openai.frame import Frame, frame_of
from tests.providers.openai.fixtures import NULL, chunk, delta, finish

FIRST = chunk(delta(b"Hel"))
PADDED = b'data: {"choices":[{"delta":{"content":"%b"}}],"usage":null,"obfuscation":"%b","object":"x"}\n\n'


def taken(frame: Frame | None, data: bytes, start: int = 0) -> tuple[int, bytes]:
    """Where the event at `start` ends, and what of it is shown."""
    shown: list[bytes] = []
    assert frame is not None
    return frame.take(data, start, shown), b"".join(shown)


@pytest.mark.parametrize(
    "text",
    [
        b"a",
        b" two words",
        "ü 漢字 😀".encode(),
        b"\\n\\n",
        b'say \\"hi\\"',
        b"\\\\",
        b"a\\\\",
        b"\\u00e9",
        b"\\ue000",
        b"\x7f",
        b"\xff",
        b"}]}",
    ],
)
def test_another_text_in_the_same_frame_is_known(text: bytes):
    frame, event = frame_of(FIRST), chunk(delta(text))
    assert taken(frame, event) == (len(event), event)
    assert taken(frame, FIRST + event + FIRST, len(FIRST)) == (len(FIRST + event), event)


@pytest.mark.parametrize(
    "event",
    [
        chunk(delta(b"")),
        chunk(delta(b"a"), NULL),
        chunk(delta(b"a", 1)),
        chunk(finish()),
        chunk(delta(b"a\nb")),
        chunk(delta(b"a\rb")),
        chunk(delta(b"\t")),
        chunk(delta(b"\\q")),
        chunk(delta(b"\\ud800")),
        chunk(delta(b"\\u12")),
        chunk(delta(b'a"b')),
        chunk(delta(b'","role":"')),
        chunk(delta(b"\\")),
        chunk(delta(b"a")).replace(b"null", b'"stop"'),
        chunk(delta(b"a")).replace(b"\n\n", b"\r\n\r\n"),
        chunk(delta(b"a"))[:-1],
        b"",
        b"data: [DONE]\n\n",
    ],
)
def test_what_is_not_surely_the_same_but_for_its_text_is_not_known(event: bytes):
    assert taken(frame_of(FIRST), event) == (0, b"")


@pytest.mark.parametrize(
    ("text", "padding", "is_known"),
    [
        (b"b", b"Pf2", True),
        (b"b", b"x" * 20, True),
        (b"b", b"", False),
        (b"b", b'x","usage":{"a', False),
        (b"b", b"x\\", False),
        (b"", b"x", False),
    ],
)
def test_padding_may_differ_too(text: bytes, padding: bytes, is_known: bool):
    frame, event = frame_of(PADDED % (b"a", b"Qq1")), PADDED % (text, padding)
    assert taken(frame, event) == ((len(event), event) if is_known else (0, b""))


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[{"text":"%b"}],"usage":null}\n\n',
        b'data: {"id":"x","usage":null,"choices":[{"text":"%b"}]}\n\n',
        b'data: {"choices":[{"text":"%b"}],"usage":null,"p":"abc","object":"x"}\n\n',
        b'data: {"choices":[{"text":"%b"}],"p":"abc","usage":null}\n\n',
        b'data: {"id":"x","usage":null,"choices":[{"text":"%b"}],"p":"abc","object":"x"}\n\n',
    ],
)
@pytest.mark.parametrize("text", [b"b", b"a longer text than the one before", b"\\n", b'\\"usage\\":null'])
def test_what_is_hidden_is_not_shown_wherever_it_stands(event: bytes, text: bytes):
    hidden = b',"usage":null'
    frame, other = frame_of(event % b"a", hidden), event % text
    assert taken(frame, other) == (len(other), other.replace(hidden, b""))


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[{"text":"%b","index":0}]}\n\n',
        b'data: {"choices":[{"delta":{"content":null,"reasoning_content":"%b"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"","reasoning":"%b"}}]}\n\n',
        b'data: {"choices": [{"delta": {"role": "assistant", "content": "%b"}}]}\n\n',
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"%b"}}]}}]}\n\n',
    ],
)
def test_text_is_found_under_each_of_its_names(event: bytes):
    other = event % b"other"
    assert taken(frame_of(event % b"a"), other) == (len(other), other)


@pytest.mark.parametrize(
    "event", [chunk(delta(b"")), chunk(b'{"index":0,"delta":{"refusal":"no"}}'), chunk(delta(b"\\ud800")), b"data: {}\n\n"]
)
def test_an_event_whose_text_is_not_found_gives_no_frame(event: bytes):
    assert frame_of(event) is None
