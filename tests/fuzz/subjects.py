"""What is fuzzed, and what always holds of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Hashable
from typing import Any

import orjson

from proxy.core import splice
from proxy.core.call import Call
from proxy.core.errors import UpstreamError
from proxy.core.metrics import Registry
from proxy.core.reply import Reply
from proxy.core.sse import EventDecoder, ProtocolError
from proxy.http.data_plane import DataPlane
from proxy.http.listener import Listener
from proxy.http.serving import EdgeLimits, Serving
from proxy.transport import Connection
from tests.core.doubles import HandClock, make_call
from tests.fuzz import seeds
from tests.fuzz.engine import Subject
from tests.fuzz.test_readers import CONTENT, PROVIDER, read_streams
from tests.fuzz.wires import Wire, dice_of, pieces

_LIMIT = 2000


# -- events: the same whatever the split, and never an exception but the one --


def _events_of(parts: list[bytes]) -> tuple[Any, ...]:
    decoder = EventDecoder(_LIMIT)
    events = []
    try:
        for part in parts:
            events += decoder.feed(part)
    except ProtocolError as error:
        return (*events, *error.events, "too large")
    return (*events, decoder.eof())


def _stream_of(operation: str, parts: list[bytes]) -> tuple[Any, ...]:
    decoder = PROVIDER.stream_decoder(make_call(operation, body={"stream": True}, stream=True))
    out = b""
    for part in parts:
        if decoder.failure is None and not decoder.done:
            out += decoder.feed(part)
    if decoder.failure is None and not decoder.done:
        out += decoder.eof()
    failure = decoder.failure
    return out, decoder.tokens, decoder.usage, decoder.started, decoder.done, decoder.mended, failure and (failure.kind, failure.code)


async def events(data: bytes, _clock: HandClock) -> Hashable:
    """Any bytes, split anywhere, are the same events, and the same answer to a client."""
    parts = list(pieces(data, dice_of(data)))
    whole = _events_of([data])
    assert whole == _events_of(parts), "another split, other events"
    read_streams(data)
    outcomes = []
    for operation in ("chat", "responses"):
        one, other = _stream_of(operation, [data]), _stream_of(operation, parts)
        assert one == other, "another split, another answer"
        outcomes.append((one[1] > 0, one[2] is not None, *one[3:6], one[6] and one[6][0]))
    return len(whole) > 1, "too large" in whole, *outcomes


# -- answers: never an exception, never a reuse in doubt, the same whatever the split --


async def _exchange(parts: list[bytes], *, reset: bool) -> tuple[Any, ...]:
    released: list[Connection] = []
    lost: list[Connection] = []
    connection = Connection(released.append, lost.append, header_limit=_LIMIT, body_limit=10_000)
    wire = Wire(connection)
    head = connection.begin(b"POST / HTTP/1.1\r\n\r\n")
    for part in parts:
        wire.feed(part)
    alive = not wire.is_closing()
    wire.lose(ConnectionResetError() if reset else None)
    assert head.done(), "the connection is gone, and somebody waits for a head"
    body = b""
    try:
        connection.check()
        while data := await connection.receive():
            body += data
    except UpstreamError as error:
        kind, body = error.kind, b""
        headers: Hashable = ()
    else:
        headers = tuple(connection.headers.items())
        kind = "whole"
        assert connection.status >= 200, "an answer without a status"
    connection.close(reuse=True)
    assert not released, "a connection that is lost goes back"
    assert len(lost) == 1, "it is lost more than once"
    return kind, connection.status if kind == "whole" else 0, body, headers, alive


async def _reuse(data: bytes, parts: list[bytes]) -> bool:
    """Whether the connection may serve again after these bytes; then not one byte of them may be left for the next answer."""
    released: list[Connection] = []
    connection = Connection(released.append, lambda _: None, header_limit=_LIMIT, body_limit=10**6)
    wire = Wire(connection)
    connection.begin(b"GET / HTTP/1.1\r\n\r\n")
    for part in parts:
        wire.feed(part)
    if connection.ready() is None:
        connection.abort()
        await asyncio.sleep(0)
        return False
    connection.close(reuse=True)
    reused = bool(released)
    if reused and connection.is_usable:
        connection.begin(b"GET / HTTP/1.1\r\n\r\n")
        wire.feed(b"HTTP/1.1 201 X\r\nContent-Length: 2\r\n\r\nok")
        connection.check()
        assert (connection.status, connection.ready()) == (201, b"ok"), "the next answer is not the one that was sent"
    connection.abort()
    await asyncio.sleep(0)
    return reused


async def answers(data: bytes, _clock: HandClock) -> Hashable:
    """Any bytes are an answer or an UpstreamError, however they come; and only a clean end lets a connection serve again."""
    dice = dice_of(data)
    parts = list(pieces(data, dice))
    reset = dice.random() < 0.3
    whole, split = await _exchange([data], reset=reset), await _exchange(parts, reset=reset)
    parsed = await _exchange([data[:1], data[1:]], reset=reset)
    assert whole == parsed, f"a head that is read whole is another than one whose first byte comes alone: {whole}, {parsed}"
    if "response_too_large" not in (whole[0], split[0]):
        # What is too large is seen when it arrives; what else is wrong with it, by then or not.
        assert whole[:4] == split[:4], f"another split, another answer: {whole}, {split}"
    reused = await _reuse(data, [data]), await _reuse(data, parts)
    assert reused[0] == reused[1] or whole[0] != split[0], "another split, another use of the connection"
    return whole[0], whole[1] // 100, bool(whole[2]), reused


# -- requests: every one is answered or its connection closed; nothing hangs, nothing is a 500 --

_ANSWER = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n((?:[!#-'*+.^_`|~0-9A-Za-z-]+: [^\r\n\x00]*\r\n)*)\r\n")


class Broken(AssertionError):
    """What was written is no sequence of answers."""


def statuses(written: bytes, *, heads: bool) -> list[int]:
    """The statuses of the answers that `written` consists of; with `heads`, any may be without its body. Raises Broken."""
    found = []
    at = 0
    while at < len(written):
        match = _ANSWER.match(written, at)
        if match is None:
            raise Broken(written[at : at + 200])
        found.append(int(match[1]))
        at = match.end()
        fields = match[2].lower()
        if found[-1] < 200 or (heads and (at == len(written) or written.startswith(b"HTTP/1.", at))):
            continue
        length = re.search(rb"content-length: (\d+)\r", fields)
        if length:
            at += int(length[1])
        elif b"transfer-encoding: chunked" in fields:
            end = written.find(b"0\r\n\r\n", at)
            at = end + 5 if end >= 0 else len(written)
        else:
            at = len(written)
    if at > len(written):
        raise Broken(written[-200:])
    return found


async def _served(call: Call) -> Reply:
    arriving = call.receive(call)
    if arriving is not None:
        await arriving
    if call.content is not None:
        async for _ in call.content:
            pass
    if call.stream:
        return Reply(200, {"content-type": "text/event-stream"}, stream=_two())
    return Reply(200, {"content-type": "application/json"}, orjson.dumps({"model": call.model}))


async def _two() -> AsyncIterator[bytes]:
    yield b"data: 1\n\n"
    await asyncio.sleep(0.01)
    yield b"data: [DONE]\n\n"


def _listener(clock: HandClock) -> tuple[Listener, list[BaseException]]:
    unforeseen: list[BaseException] = []
    plane = DataPlane(
        Serving(_served, {}, EdgeLimits(max_body=5000, body_timeout=15, write_timeout=30, ping=10)),
        clock=clock,
        metrics=Registry(),
        state=lambda: "ready",
        report=lambda error, _id: unforeseen.append(error),
    )
    options = {"header_timeout": 10.0, "keepalive_timeout": 75.0, "access_log": None, "auto_decompress": False}
    return Listener(plane, plane.refuse, most=10, most_per_address=10, options=options), unforeseen


async def requests(data: bytes, clock: HandClock) -> Hashable:
    """Any bytes on a client's connection end in answers and a close, whether the client then leaves or is silent."""
    dice = dice_of(data)
    listener, unforeseen = _listener(clock)
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    wire = Wire(listener())
    at_once = dice.random() < 0.3
    for part in [data] if at_once else pieces(data, dice):
        for _ in range(dice.randrange(3)):
            await asyncio.sleep(0)
        wire.feed(part)
    started = clock.now
    if dice.random() < 0.3:
        wire.lose()
    while not wire.lost:
        assert clock.now - started < 300, "nobody closes the connection"
        await asyncio.sleep(1)
    await asyncio.sleep(1)
    found = statuses(bytes(wire.written), heads=b"HEAD" in data)
    assert 500 not in found and not unforeseen, unforeseen
    assert not failures, failures
    assert listener.connections == [], "it is still held"
    return tuple(found[:3]), clock.now - started > 5


# -- splices: what is changed is changed, everything else means what it did --


def _members(raw: bytes) -> dict[str, Any] | None:
    try:
        orjson.loads(raw)  # what the edge takes
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


async def splices(data: bytes, _clock: HandClock) -> Hashable:
    """A member that is set or taken out leaves a valid object whose other members are what they were."""
    members = _members(data)
    if members is None:
        return None
    outcome = []
    for key in ("model", "stream_options", "usage"):
        present = key in members
        changed = _members(splice.set_member(data, key, b'{"a":[1,"}"]}', present=present))
        assert changed == {**members, key: {"a": [1, "}"]}}, (key, changed)
        removed = _members(splice.remove_member(data, key))
        assert removed == {name: value for name, value in members.items() if name != key}, (key, removed)
        outcome.append((present, len(splice.member_spans(data, key))))
    return tuple(outcome), min(len(members), 5)


SUBJECTS = (
    Subject("events", events, (*seeds.VALUES[:25], *seeds.STREAMS, CONTENT), seeds.EVENT_WORDS),
    Subject("answers", answers, seeds.ANSWERS, seeds.HTTP_WORDS),
    Subject("requests", requests, seeds.REQUESTS, seeds.HTTP_WORDS),
    Subject("splices", splices, seeds.OBJECTS, seeds.JSON_WORDS),
)
