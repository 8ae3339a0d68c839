"""Whatever a provider or a client sends, a reader gives a value or its one error.

The invariant comes first; the seeds and the dice follow.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.openai import OpenAI, OpenAISettings
from providers.openai.stream import ChatDecoder
from providers.openai.typed_events import TypedEventDecoder
from proxy.core.errors import ClientError, UpstreamError
from proxy.core.protocols import StreamDecoder
from proxy.core.sse import EventDecoder, ProtocolError
from proxy.http import errors, parse
from tests.core.doubles import ScriptedResponse, make_call
from tests.fuzz.seeds import VALUES

PROVIDER = OpenAI(OpenAISettings())
OPERATIONS = ("chat", "completion", "embedding", "responses")
CONTENT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'


def read_events(data: bytes) -> None:
    decoder = EventDecoder(2**16)
    try:
        decoder.feed(data)
    except ProtocolError:
        return
    decoder.eof()


def read_stream(decoder: StreamDecoder, data: bytes) -> None:
    decoder.feed(data)
    if decoder.failure is None and not decoder.done:
        decoder.eof()
    if decoder.failure is not None:
        orjson.loads(errors.event(decoder.failure)[6:])


def read_streams(data: bytes) -> None:
    for frame in (data, b"data: " + data + b"\n\n", CONTENT + b"data: " + data + b"\n\n", b"event: error\ndata: " + data + b"\n\n"):
        read_stream(ChatDecoder(2**16), frame)
        read_stream(ChatDecoder(2**16, wants_usage=True), frame)
        read_stream(TypedEventDecoder(2**16, terminal=True), frame)
        begun = ChatDecoder(2**16)
        begun.feed(CONTENT)
        read_stream(begun, frame)


def read_answer(data: bytes) -> None:
    for operation in OPERATIONS:
        try:
            PROVIDER.decode(make_call(operation), ScriptedResponse(), data)
        except UpstreamError as error:
            orjson.loads(errors.body(error))


def read_refusal(data: bytes) -> None:
    for status in (300, 400, 401, 429, 500, 503, 529):
        orjson.loads(errors.body(PROVIDER.decode_error(ScriptedResponse(status=status), data)))


def read_request(data: bytes) -> None:
    for operation in OPERATIONS:
        call = make_call(operation, raw=data)
        try:
            parse.read_members(call, parse.parse_object(data))
        except ClientError as error:
            orjson.loads(errors.body(error))


READERS = (read_events, read_streams, read_answer, read_refusal, read_request)
EACH = pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
Read = Callable[[bytes], None]


@EACH
@pytest.mark.parametrize("seed", VALUES, ids=lambda seed: repr(seed[:32]))
def test_a_seed_is_read_or_refused(read: Read, seed: bytes):
    read(seed)
    read(b'{"error":' + seed + b"}")
    read(seed[: len(seed) // 2])


@EACH
@given(data=st.binary(max_size=80) | st.lists(st.sampled_from(VALUES), max_size=3).map(b",".join))
def test_any_bytes_are_read_or_refused(read: Read, data: bytes):
    read(data)
