"""One request and its answer where they cross: with pings, with a shutdown, and what is left of them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from aiohttp import StreamReader

from proxy.core.call import Attempt, Call, Target
from proxy.core.errors import CapacityError, ClientDisconnected, ClientError, StreamError
from proxy.core.metrics import Registry
from proxy.core.protocols import Handler
from proxy.core.reply import Reply
from proxy.http.data_plane import DataPlane
from proxy.http.known_head import WholeBody
from proxy.http.listener import Listener
from proxy.http.readiness import Told
from proxy.http.server import Connection
from proxy.http.serving import EdgeLimits, Serving
from tests.core.doubles import HandClock, in_virtual_time
from tests.fuzz.wires import Wire

PING = b": ping\n\n"
STREAMING = b'{"model":"m","messages":[],"stream":true}'
WHOLE = b'{"model":"m","messages":[]}'
SHUTTING_DOWN = CapacityError("The gateway is shutting down.", code="shutting_down")


class Line(Wire):
    """A client's connection that says whether it was cut."""

    def __init__(self, protocol: Connection) -> None:
        self.connection = protocol
        self.cut = False
        super().__init__(protocol)

    def abort(self) -> None:
        self.cut = True
        super().abort()

    def ask(self, body: bytes, path: bytes = b"/v1/chat/completions", kind: bytes = b"application/json") -> None:
        self.feed(b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (path, kind, len(body), body))

    @property
    def text(self) -> bytes:
        return bytes(self.written)


class Edge:
    """The data plane over connections without wires. `ended`: what each reply was closed with; `reported`: what nobody foresaw."""

    def __init__(self, clock: HandClock, answer: Handler, *, keep_alive: float = 75.0, told: Told | None = None) -> None:
        self.ended: list[BaseException | None] = []
        self.reported: list[BaseException] = []
        self._answer = answer
        self.plane = DataPlane(
            Serving(self._serve, {}, EdgeLimits(max_body=1000, max_upload=5000, ping=10)),
            clock=clock,
            metrics=Registry(),
            state=lambda: "ready",
            report=lambda error, _id: self.reported.append(error),
            told=told,
        )
        options: dict[str, Any] = {"header_timeout": 10.0, "keepalive_timeout": keep_alive, "access_log": None, "auto_decompress": False}
        self.listener = Listener(self.plane, self.plane.refuse, most=10, most_per_address=10, options=options)

    def line(self) -> Line:
        return Line(self.connection())

    def connection(self) -> Connection:
        return self.listener()

    async def _serve(self, call: Call) -> Reply:
        arriving = call.receive(call)
        if arriving is not None:
            await arriving
        reply = await self._answer(call)
        reply.on_close(self.ended.append)
        return reply


async def _whole(_call: Call) -> Reply:
    return Reply(200, {"content-type": "application/json"}, b'{"a":1}')


# -- what is read whole, and what is passed on --


@pytest.mark.parametrize(
    ("path", "kind", "size", "status"),
    [
        (b"/v1/responses", b"application/json", 1000, 200),
        (b"/v1/responses", b"application/json", 1001, 413),
        (b"/v1/responses", b"text/plain", 1001, 413),
        (b"/v1/files", b"application/octet-stream", 1001, 200),
        (b"/v1/files", b"application/octet-stream", 5000, 200),
        (b"/v1/files", b"application/octet-stream", 5001, 413),
    ],
)
def test_what_is_passed_on_may_be_larger_than_what_is_read_whole(path: bytes, kind: bytes, size: int, status: int):
    async def read(call: Call) -> Reply:
        if call.content is not None:
            async for _piece in call.content:
                pass
        return await _whole(call)

    async def main(clock: HandClock) -> None:
        edge = Edge(clock, read)
        line = edge.line()
        line.ask(b'{"a":"%b"}' % (b"a" * (size - 8)), path, kind)
        await asyncio.sleep(1)
        assert line.text.startswith(b"HTTP/1.1 %d " % status)

    in_virtual_time(main)


def test_a_model_is_seen_whatever_the_body_calls_itself():
    seen: list[str | None] = []

    async def note(call: Call) -> Reply:
        seen.append(call.model)
        return await _whole(call)

    async def main(clock: HandClock) -> None:
        edge = Edge(clock, note)
        for kind in (b"application/json", b"Application/JSON; charset=utf-8", b"text/plain"):
            edge.line().ask(b'{"model":"m","input":"x"}', b"/v1/responses", kind)
        await asyncio.sleep(1)
        assert seen == ["m", "m", "m"]

    in_virtual_time(main)


# -- a whole answer after a ping --


def after(seconds: float, reply: Reply) -> Handler:
    async def answer(_call: Call) -> Reply:
        await asyncio.sleep(seconds)
        return reply

    return answer


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, {"content-type": "application/json"}, b'{"choices":[]}'),
        Reply(403, {"content-type": "application/json"}, b'{"error":{"message":"no"}}'),
    ],
    ids=["an answer", "an error"],
)
def test_a_whole_answer_to_a_stream_that_a_ping_has_begun_is_no_second_head(reply: Reply):
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, after(25, reply))
        line = edge.line()
        line.ask(STREAMING)
        await asyncio.sleep(30)
        assert line.text.count(b"HTTP/1.1 ") == 1
        assert line.text.count(PING) == 2
        assert b"content-length" not in line.text
        event = line.text.partition(b"data: ")[2].partition(b"\n\n")
        assert orjson.loads(event[0])["error"]["code"] == "internal_error"
        assert event[2] == b"\r\n0\r\n\r\n"
        assert (len(edge.reported), edge.ended) == (1, edge.reported)
        assert line.lost

    in_virtual_time(main)


def test_whole_events_after_a_ping_go_on_with_its_stream():
    events = b'data: {"a":1}\n\ndata: [DONE]\n\n'

    async def main(clock: HandClock) -> None:
        edge = Edge(clock, after(15, Reply(200, {"content-type": "text/event-stream"}, events)))
        line = edge.line()
        line.ask(STREAMING)
        await asyncio.sleep(20)
        assert line.text.count(b"HTTP/1.1 ") == 1
        assert line.text.endswith(b"8\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (PING, len(events), events))
        assert (edge.reported, edge.ended, line.lost) == ([], [None], False)

    in_virtual_time(main)


def test_a_ping_to_a_client_that_has_just_gone_keeps_no_other_from_its_own():
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, after(100, Reply()))
        lines = [edge.line() for _ in range(4)]
        for line in lines:
            line.ask(STREAMING)
        await asyncio.sleep(5)
        for line in lines[::2]:
            line.connection.transport = None  # lost, and the request's task has not heard of it
        await asyncio.sleep(20)
        assert [line.text.count(PING) for line in lines] == [0, 2, 0, 2]

    in_virtual_time(main)


def test_pings_end_with_their_stream():
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, after(5, Reply(200, {"content-type": "text/event-stream"}, b"data: [DONE]\n\n")))
        line = edge.line()
        line.ask(STREAMING)
        await asyncio.sleep(60)
        written = line.text
        assert b"[DONE]" in written and PING not in written
        line.ask(STREAMING)
        await asyncio.sleep(60)
        assert PING not in line.text and line.text.count(b"[DONE]") == 2

    in_virtual_time(main)


# -- a stream that breaks --


async def _broken(_call: Call) -> Reply:
    async def events() -> AsyncIterator[bytes]:
        yield b'data: {"a":1}\n\n'
        raise StreamError("stream_interrupted", "It broke.")

    return Reply(200, {"content-type": "text/event-stream"}, stream=events())


def test_after_a_stream_that_broke_the_connection_closes_in_a_moment():
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, _broken)
        line = edge.line()
        line.ask(STREAMING)
        await asyncio.sleep(0.4)
        assert line.text.endswith(b"0\r\n\r\n")
        assert not line.lost, "a client that asks again at once would lose its request"
        await asyncio.sleep(0.2)
        assert (line.lost, line.cut) == (True, False)

    in_virtual_time(main)


def test_who_asks_again_after_a_stream_that_broke_is_answered():
    answers = [_broken, _broken, after(2, Reply(200, {"content-type": "application/json"}, b'{"a":1}'))]

    async def each_its_own(call: Call) -> Reply:
        return await answers.pop(0)(call)

    async def main(clock: HandClock) -> None:
        edge = Edge(clock, each_its_own)
        line = edge.line()
        for _ in range(3):
            line.ask(STREAMING if len(answers) > 1 else WHOLE)
            await asyncio.sleep(0.3)
        await asyncio.sleep(30)
        assert line.text.count(b"HTTP/1.1 200") == 3
        assert line.text.endswith(b'{"a":1}')
        assert not line.lost

    in_virtual_time(main)


def test_pings_go_on_after_a_client_that_did_not_read_does_so_again():
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, after(100, Reply()))
        line = edge.line()
        line.ask(STREAMING)
        await asyncio.sleep(15)
        line.connection.pause_writing()
        await asyncio.sleep(30)
        assert line.text.count(PING) == 1
        line.connection.resume_writing()
        await asyncio.sleep(25)
        assert line.text.count(PING) >= 3

    in_virtual_time(main)


def test_what_a_ping_waits_for_is_not_the_gateways_time():
    async def slow(call: Call) -> Reply:
        attempt = Attempt(Target("up", "m"), call.started)
        call.attempts.append(attempt)
        await asyncio.sleep(15)
        attempt.ended = call.started + 15
        call.upstream_seconds += 15
        kept.append(call)
        raise ClientError("no")

    kept: list[Call] = []

    async def main(clock: HandClock) -> None:
        edge = Edge(clock, slow)
        edge.line().ask(STREAMING)
        await asyncio.sleep(20)
        assert [call.overhead < 0.1 for call in kept] == [True]
        assert [call.upstream_seconds for call in kept] == [15]

    in_virtual_time(main)


def test_nothing_follows_a_whole_body_that_is_read_slowly():
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, _whole)
        line = edge.line()
        line.connection.pause_writing()
        line.ask(STREAMING)
        await asyncio.sleep(8)
        line.connection.lags = False  # as it is between the client's reading on and the task's going on
        await asyncio.sleep(8)
        assert line.text.endswith(b'{"a":1}')

    in_virtual_time(main)


# -- shutdown --


def test_a_whole_answer_that_its_client_reads_slowly_is_not_cut_by_a_shutdown():
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, _whole)
        line = edge.line()
        line.connection.pause_writing()
        line.ask(WHOLE)
        await asyncio.sleep(1)
        assert line.text.endswith(b'{"a":1}')
        edge.plane.drain()
        assert edge.plane.interrupt(SHUTTING_DOWN) == 0
        await asyncio.sleep(1)
        assert (line.cut, line.lost, edge.ended) == (False, False, [])
        line.connection.resume_writing()
        await asyncio.sleep(1)
        assert (line.cut, line.lost, edge.ended) == (False, True, [None])
        assert line.text.count(b"HTTP/1.1 ") == 1

    in_virtual_time(main)


def test_a_client_that_never_reads_its_whole_answer_does_not_outlast_the_shutdown():
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, _whole)
        line = edge.line()
        line.connection.pause_writing()
        line.ask(WHOLE)
        await asyncio.sleep(1)
        edge.plane.interrupt(SHUTTING_DOWN)
        line.connection.abort_body()
        await asyncio.sleep(1)
        assert [type(error).__name__ for error in edge.ended] == ["ClientDisconnected"]
        assert edge.plane.in_flight == 0

    in_virtual_time(main)


async def _endless(_call: Call) -> Reply:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(1)

    return Reply(200, {"content-type": "audio/mpeg"}, stream=body())


def test_a_body_that_goes_on_is_cut_by_a_shutdown():
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, _endless)
        line = edge.line()
        line.ask(WHOLE)
        await asyncio.sleep(3)
        assert edge.plane.interrupt(SHUTTING_DOWN) == 1
        await asyncio.sleep(1)
        assert (line.cut, edge.ended) == (True, [SHUTTING_DOWN])

    in_virtual_time(main)


# -- answers that wait for the end of the loop's turn --


async def _either(call: Call) -> Reply:
    return await (_streamed if call.stream else _whole)(call)


async def _streamed(_call: Call) -> Reply:
    async def body() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"

    return Reply(200, {"content-type": "text/event-stream"}, stream=body())


def posted(body: bytes, *more: bytes) -> bytes:
    lines = (b"POST /v1/chat/completions HTTP/1.1", b"Host: a", b"Content-Type: application/json", b"Content-Length: %d" % len(body), *more)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def test_an_answer_that_is_its_connections_last_is_written_before_it_closes():
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, _whole)
        lines = [edge.line() for _ in range(8)]
        for line in lines:
            line.feed(posted(WHOLE, b"Connection: close"))
        await asyncio.sleep(1)
        assert all(line.text.endswith(b'{"a":1}') and line.lost for line in lines)

    in_virtual_time(main)


def test_answers_to_requests_that_came_together_go_out_in_their_order():
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, _either)
        lines = [edge.line() for _ in range(8)]
        for line in lines:
            line.feed(posted(WHOLE) + posted(STREAMING) + posted(WHOLE) + b"\0 no HTTP\r\n\r\n")
        await asyncio.sleep(1)
        for line in lines:
            kinds = [piece.split(b"\r\n", 1)[0] for piece in line.text.split(b"HTTP/1.1 ")[1:]]
            assert kinds == [b"200 OK", b"200 OK", b"200 OK", b"400 Bad Request"]
            assert line.text.count(b'{"a":1}') == 2
            assert line.text.index(b'{"a":1}') < line.text.index(b"data: 1") < line.text.rindex(b'{"a":1}')

    in_virtual_time(main)


async def waiting(line: Line, edge: Edge) -> None:
    """Until the answer to `line` is made and has not been written."""
    while not edge.ended:
        await asyncio.sleep(0)
    assert not line.text


@pytest.mark.parametrize("ends", ["retires", "is cut", "is closed", "is ended by its client"])
def test_an_answer_that_waits_is_written_before_its_connection_ends(ends: str):
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, _whole)
        line = edge.line()
        line.feed(posted(WHOLE))
        await waiting(line, edge)
        ways = {"retires": line.connection.retire, "is cut": line.connection.abort_body, "is closed": line.connection.force_close}
        ways.get(ends, line.end)()
        await asyncio.sleep(1)
        assert line.text.endswith(b'{"a":1}')
        assert line.lost

    in_virtual_time(main)


def test_a_client_that_never_reads_the_rest_does_not_keep_its_connection():
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, _whole)
        line = edge.line()
        line.unsent = 1
        line.feed(posted(WHOLE, b"Connection: close"))
        await asyncio.sleep(29)
        assert not line.cut, "it may be slow"
        await asyncio.sleep(2)
        assert line.cut

    in_virtual_time(main)


def test_a_connection_that_was_asked_for_its_health_keeps_nothing_that_is_replaced():
    async def main(clock: HandClock) -> None:
        async def gateway(call: Call) -> Reply:
            return await _whole(call)

        edge = Edge(clock, _whole)
        edge.plane.serving = Serving(gateway, {}, EdgeLimits())
        line = edge.line()
        line.feed(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(1)
        assert line.text.startswith(b"HTTP/1.1 200")
        replaced = weakref.ref(gateway)
        edge.plane.serving = Serving(_whole, {}, EdgeLimits())
        del gateway
        assert replaced() is None

    in_virtual_time(main)


def test_an_answer_whose_client_is_lost_meanwhile_is_not_written_and_others_are():
    async def main(clock: HandClock) -> None:
        edge = Edge(clock, _whole)
        lost, other = edge.line(), edge.line()
        lost.feed(posted(WHOLE))
        other.feed(posted(WHOLE))
        await waiting(lost, edge)
        lost.lose()
        await asyncio.sleep(1)
        assert (lost.text, other.text[-7:]) == (b"", b'{"a":1}')

    in_virtual_time(main)


# -- what is left --


@contextmanager
def uncollected() -> Iterator[None]:
    """What goes in here goes because nothing knows it any more, not because the collector came by."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_an_upload_leaves_no_circle():
    """What only the collector would find keeps its bytes in memory until it comes by."""
    contents: list[weakref.ref[Any]] = []

    async def answer(call: Call) -> Reply:
        contents.append(weakref.ref(call.content))
        return await _whole(call)

    async def main(clock: HandClock) -> None:
        edge = Edge(clock, answer)
        edge.line().ask(b"abc", b"/v1/files", b"application/octet-stream")
        await asyncio.sleep(1)
        assert edge.ended == [None]
        assert [content() for content in contents] == [None]

    with uncollected():
        in_virtual_time(main)


@pytest.mark.parametrize(
    ("body", "failure", "leaves", "told"),
    [
        (WHOLE, None, False, type(None)),
        (STREAMING, None, False, type(None)),
        (WHOLE, ClientError("no"), False, ClientError),
        (WHOLE, RuntimeError("unforeseen"), False, RuntimeError),
        (WHOLE, ClientDisconnected("gone"), False, ClientDisconnected),
        (b"{", None, False, ClientError),
        (WHOLE, None, True, ClientDisconnected),
        (WHOLE, RuntimeError("unforeseen"), True, ClientDisconnected),
        (STREAMING, None, True, ClientDisconnected),
    ],
)
def test_whatever_becomes_of_a_request_its_call_is_ended_once(body: bytes, failure: Exception | None, leaves: bool, told: type[object]):
    ends: list[BaseException | None] = []

    async def main(clock: HandClock) -> None:
        class Recorded(Edge):
            async def _serve(self, call: Call) -> Reply:
                call.recorder = lambda _call, _reply, error: ends.append(error)
                return await super()._serve(call)

        async def answer(call: Call) -> Reply:
            await asyncio.sleep(5)
            if failure is not None:
                raise failure
            return await _either(call)

        edge = Recorded(clock, answer)
        line = edge.line()
        line.ask(body)
        await asyncio.sleep(1)
        if leaves:
            line.lose()
        await asyncio.sleep(60)
        assert edge.plane.in_flight == 0

    in_virtual_time(main)
    assert [type(end) for end in ends] == [told]


def test_a_request_that_was_refused_leaves_no_circle():
    kept: list[weakref.ref[BaseException]] = []

    def refusal() -> ClientError:
        error = ClientError("no")
        kept.append(weakref.ref(error))
        return error

    async def answer(_call: Call) -> Reply:
        raise refusal()

    async def main(clock: HandClock) -> None:
        edge = Edge(clock, answer)
        edge.line().ask(WHOLE)
        await asyncio.sleep(1)
        assert [error() for error in kept] == [None]

    with uncollected():
        in_virtual_time(main)


def test_an_answer_is_the_same_whatever_its_connection_has_answered_before():
    async def main(clock: HandClock) -> None:
        def asked(start: bytes, body: bytes = WHOLE) -> bytes:
            return start + b"\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n" % len(body) + body

        path = b" /v1/chat/completions HTTP/1.1"
        kinds = [
            asked(b"POST" + path),
            asked(b"POST" + path, STREAMING),
            asked(b"POST /v1/chat/completions HTTP/1.0"),
            asked(b"HEAD /healthz HTTP/1.1", b""),
            asked(b"HEAD" + path, b""),
            asked(b"POST" + path, b"{"),
        ]

        async def ask(line: Line, request: bytes) -> list[bytes]:
            before = len(line.written)
            line.feed(request)
            await asyncio.sleep(1)
            found = bytes(line.written[before:])
            return [row for row in found.split(b"\r\n") if not row.startswith((b"x-request-id", b"openai-processing-ms"))]

        edge = Edge(clock, _either)
        alone = [await ask(edge.line(), kind) for kind in kinds]
        line = edge.line()
        for first in (0, 0, *range(6)):
            for second in range(6):
                assert await ask(line, kinds[first]) == alone[first]
                assert await ask(line, kinds[second]) == alone[second], (kinds[first], kinds[second])

    in_virtual_time(main)


def test_a_connection_that_waits_keeps_nothing_of_the_request_that_it_had():
    kept: list[weakref.ref[Any]] = []

    async def answer(call: Call) -> Reply:
        call.notes["thing"] = thing = frozenset({call.id})
        kept.append(weakref.ref(thing))
        return await _whole(call)

    def bodies() -> set[int]:
        return {id(thing) for thing in gc.get_objects() if type(thing) in (StreamReader, WholeBody)}

    async def main(clock: HandClock) -> None:
        others = bodies()  # what other tests have left
        edge = Edge(clock, answer)
        line = edge.line()
        for count in range(1, 4):
            line.ask(WHOLE)
            await asyncio.sleep(1)
            assert not line.lost
            assert [thing() for thing in kept] == [None] * count
            assert bodies() <= others

    with uncollected():
        in_virtual_time(main)


def test_a_body_in_several_pieces_at_once_is_no_late_head():
    """Pieces may come before the connection's task has begun: with them no time for another head may run."""

    async def slow(call: Call) -> Reply:
        await asyncio.sleep(30)
        return await _whole(call)

    async def main(clock: HandClock) -> None:
        line = Edge(clock, slow).line()
        await asyncio.sleep(1)  # it waits for its first request
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(WHOLE)
        for piece in (head + WHOLE[:5], WHOLE[5:9], WHOLE[9:]):
            line.feed(piece)
        await asyncio.sleep(60)
        assert line.text.endswith(b'{"a":1}')

    in_virtual_time(main)
