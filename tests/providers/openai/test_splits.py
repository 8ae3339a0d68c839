"""Streams of the servers there are, and odd ones: what is found in them does not depend on where their bytes were split.

The yardstick is the stream byte by byte, of which every event is read; the short ways are for events that come whole.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from providers.openai.stream import ChatDecoder
from providers.openai.typed_events import TypedEventDecoder
from proxy.core.protocols import StreamDecoder
from tests.providers.openai.fixtures import COUNTS, DONE
from tests.providers.openai.test_stream import found_by, read

#: One content of each server, its text and its padding to be filled in.
_ENDS = b'"logprobs":null,"finish_reason":null}'
SERVERS: dict[str, bytes] = {
    "openai": b'{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%(text)b"},'
    + _ENDS
    + b'],"usage":null,"obfuscation":"%(pad)b"}',
    "tools": b'{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"%(text)b"}}]},'
    + _ENDS
    + b'],"usage":null}',
    "vllm": b'{"id":"c","choices":[{"index":0,"delta":{"content":"%(text)b"},' + _ENDS + b"]}",
    "reasoning": b'{"id":"c","choices":[{"index":0,"delta":{"content":null,"reasoning_content":"%(text)b"},' + _ENDS + b"]}",
    "llama.cpp": b'{"choices":[{"finish_reason":null,"index":0,"delta":{"content":"%(text)b"}}],"created":1,"id":"c"}',
    "azure": b'{"choices":[{"content_filter_results":{"hate":{"filtered":false}},"delta":{"content":"%(text)b"},'
    + _ENDS
    + b'],"id":"c","obfuscation":"%(pad)b","object":"x","usage":null}',
    "spaced": b'{"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "%(text)b"}}], "usage": null}',
    "legacy": b'{"id":"c","choices":[{"text":"%(text)b","index":0,' + _ENDS + b"]}",
    "probabilities": b'{"choices":[{"delta":{"content":"%(text)b"},"logprobs":{"content":[{"token":"%(text)b"}]}}]}',
    "usage in a choice": b'{"choices":[{"delta":{"content":"%(text)b"},"usage":null}],"usage":null}',
    "usage first": b'{"usage":null,"choices":[{"delta":{"content":"%(text)b"}}]}',
}
#: In turn, the empty one often.
TEXTS = (
    b"a",
    b"",
    b" hello",
    "é😀".encode(),
    b"\\n",
    b"",
    b'\\"error\\"',
    b',\\"usage\\":null',
    b"\\u00e9",
    b"\\ud83d\\ude00",
    b"\\\\",
    b"",
    b"}",
)
#: Events that stand among them now and then.
ODD = (
    b'data: {"choices":[]}\n\n',
    b": ping\n\n",
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}\n\n',
    b'data: {"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n',
    b'data: {"choices":[{"delta":{"content":"a"}}],"usage":7}\n\n',
    b'data: {"choices":[{"delta":{"content":"a"}}],"error":null}\n\n',
    b'event: x\r\ndata: {"choices":[{"delta":\r\ndata: {"content":"a"}}]}\r\n\r\n',
    b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":""}]}\n\n',
)
LAST = (
    (b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n', b'data: {"choices":[],"usage":' + COUNTS + b"}\n\n", DONE),
    (b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n', b'data: {"choices":[]}\n\n'),
    (b'data: {"error":{"message":"m","code":"overloaded"}}\n\n', DONE),
    (b'data: {"choices":[{"delta":{"content":"a"}}\n\n', DONE),
    (b'data: {"choices":[{"delta":{"content":"\\q"}}]}\n\n', DONE),
    (b'data: {"choices":[{"del',),
)


def chat(server: bytes, seed: int) -> list[bytes]:
    """A stream's events."""
    draw = random.Random(seed)
    start = draw.randrange(len(TEXTS))
    events = []
    for number in range(6):
        text = TEXTS[(start + number) % len(TEXTS)]
        events.append(b"data: %b\n\n" % (server % {b"text": text, b"pad": b"aB3dE5"[: draw.randint(1, 6)]}))
        if draw.random() < 0.35:
            events.append(draw.choice(ODD))
    return [*events, *LAST[seed % len(LAST)]]


def splits(events: list[bytes]) -> Iterator[tuple[bytes, ...]]:
    """All of it at once, in two here and there, and event by event with one of them in two, at every byte."""
    data = b"".join(events)
    yield (data,)
    yield from ((data[:at], data[at:]) for at in range(1, len(data), 7))
    yield tuple(events)
    for number, event in enumerate(events):
        for at in range(1, len(event)):
            yield (*events[:number], event[:at], event[at:], *events[number + 1 :])


def check(events: list[bytes], fresh: Callable[[], StreamDecoder]) -> StreamDecoder:
    yardstick = fresh()
    data = b"".join(events)
    expected = read(yardstick, tuple(data[at : at + 1] for at in range(len(data))))
    for parts in splits(events):
        decoder = fresh()
        assert (read(decoder, parts), found_by(decoder)) == (expected, found_by(yardstick)), parts
    return yardstick


@pytest.mark.parametrize(("seed", "server"), list(enumerate(SERVERS)))
def test_a_chat_is_the_same_wherever_it_was_split(seed: int, server: str):
    assert check(chat(SERVERS[server], seed), partial(ChatDecoder, 4096, wants_usage=seed % 3 == 1)).tokens > 2


def test_typed_events_are_the_same_wherever_they_were_split():
    events = [
        b'event: response.created\ndata: {"type":"response.created","response":{"usage":null}}\n\n',
        *(b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"%b"}\n\n' % text for text in TEXTS),
        b'data: {"type":"response.output_text.delta","delta":"a"}\n\n',
        b'event: response.completed\ndata: {"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":2}}}\n\n',
    ]
    assert check(events, partial(TypedEventDecoder, 4096, terminal=True)).tokens == len(TEXTS) + 1
    check(events[:-1], partial(TypedEventDecoder, 4096, terminal=True))
    check([*events[:3], b'event: error\ndata: {"type":"error","message":"m"}\n\n'], partial(TypedEventDecoder, 4096, terminal=True))
