"""Load of streams: many at a time over raw sockets, every chunk of each checked.

While a stream runs, its bytes are only kept; it is decoded and compared when it has ended, so that the client takes little of the core
that it shares with the upstream.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import cast

import orjson
import uvloop

from bench import payload

_TEXT = re.compile(rb'"content"\s*:\s*"[^"]')  # the first delta says the role and no text: a gateway may hold it back until text comes
_END = b"\r\n0\r\n\r\n"
_STREAM_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """One stream as the client saw it.

    `chunks` are the content events that arrived as they should, `reads` the socket reads they came in: close to one for each says that
    nobody put chunks together. `fault` is None when all was right. Times are seconds from the request: to the first delta with text, and
    to the end of the body.
    """

    first_s: float
    total_s: float
    chunks: int
    reads: int
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to offer: how many streams at a time, for how long, how each comes, how large a request.

    A stream that has begun is finished. `usage`: whether the client asks for the usage event.
    """

    streams: int
    seconds: float
    pace: payload.Pace
    body_bytes: int = 1024
    usage: bool = False


def http_request(port: int, body: bytes) -> bytes:
    """A streaming chat request as an SDK sends it."""
    head = (
        f"POST {payload.PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer sk-bench\r\nUser-Agent: comporta-bench\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def dechunk(data: bytes) -> bytes:
    """The content of a whole chunked body. Raises ValueError where the framing is broken or the end is missing."""
    parts: list[bytes] = []
    position = 0
    while True:
        line = data.find(b"\r\n", position)
        if line < 0:
            raise ValueError("chunked body without its end")
        size = int(data[position:line].partition(b";")[0], 16)
        start = line + 2
        if data[start + size : start + size + 2] != b"\r\n":
            raise ValueError("chunk of another length than it says")
        if size == 0:
            return b"".join(parts)
        parts.append(data[start : start + size])
        position = start + size + 2


def check(response: bytes, chunks: int) -> tuple[int, str | None]:
    """Compare a whole response with what the upstream sends: how many chunks are right, and what is wrong (None: nothing).

    Comments (pings) and the usage event are let pass; text, number and order of the chunks, the finish reason and `[DONE]` are not.
    """
    head, separator, body = response.partition(b"\r\n\r\n")
    if not separator or not head.startswith(b"HTTP/1.1 200 "):
        return 0, f"answered {response[:200]!r}"
    try:
        events = [event for event in dechunk(body).split(b"\n\n") if event and not event.startswith(b":")]
    except ValueError as error:
        return 0, str(error)
    if not events or events[-1] != b"data: [DONE]":
        return 0, "no [DONE]"
    right = 0
    for event in events[:-1]:
        decoded = orjson.loads(event.removeprefix(b"data: "))
        if "error" in decoded:
            return right, f"error event {event[:200]!r}"
        if not decoded["choices"]:
            continue
        choice = decoded["choices"][0]
        finish = "stop" if right == chunks - 1 else None
        if (choice["delta"].get("content"), choice["finish_reason"]) != (payload.token(right), finish):
            return right, f"chunk {right} is {event[:200]!r}"
        right += 1
    return right, None if right == chunks else f"{right} of {chunks} chunks"


class Client(asyncio.Protocol):
    """One keep-alive connection that runs one stream after the other."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()  # the first text has come, or never will
        self._pieces: list[bytes] = []
        self._tail = b""
        self._first = 0.0
        self._ended: asyncio.Future[float] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but does not derive from it

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.begun.set()
        self._finish()

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        if not self._first and _TEXT.search(data):
            self._first = time.monotonic()
            self.begun.set()
        self._tail = (self._tail + data)[-len(_END) :]
        if self._tail == _END:
            self._finish()

    @property
    def is_open(self) -> bool:
        """Whether another stream can be asked for here."""
        return self._transport is not None

    def close(self) -> None:
        """Leave, in the middle of a stream or not."""
        if self._transport is not None:
            self._transport.abort()

    async def run(self, request: bytes, chunks: int) -> Exchange:
        """One whole stream. A cut connection or a stream that takes too long is a fault of the exchange, not an exception."""
        self._pieces, self._tail, self._first = [], b"", 0.0
        self._ended = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        if self._transport is not None:
            self._transport.write(request)
        try:
            ended = await asyncio.wait_for(self._ended, _STREAM_SECONDS)
        except TimeoutError:
            self.close()
            return Exchange(0.0, _STREAM_SECONDS, 0, len(self._pieces), "no end in time")
        right, fault = check(b"".join(self._pieces), chunks)
        if fault is not None:
            self.close()
        return Exchange(self._first - began, ended - began, right, len(self._pieces), fault)

    def _finish(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(time.monotonic())


@dataclass(slots=True)
class Opened:
    """Streams that are held open: their clients and the tasks that read them."""

    clients: list[Client] = field(default_factory=list)
    tasks: list[asyncio.Task[Exchange]] = field(default_factory=list)

    async def close(self) -> None:
        """Abort them all."""
        for client in self.clients:
            client.close()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def connect(port: int) -> Client:
    """A new connection."""
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    return client


async def open_streams(port: int, plan: Plan) -> Opened:
    """Begin `plan.streams` streams, 50 at a time, and return when each has its first chunk.

    Raises TimeoutError after 60 s, ConnectionError when a stream ended meanwhile.
    """
    opened = Opened()
    request = http_request(port, payload.stream_body(plan.body_bytes, plan.pace, usage=plan.usage))
    async with asyncio.timeout(60):
        while len(opened.clients) < plan.streams:
            fresh = [await connect(port) for _ in range(min(50, plan.streams - len(opened.clients)))]
            opened.clients += fresh
            opened.tasks += [asyncio.create_task(client.run(request, plan.pace.chunks)) for client in fresh]
            await asyncio.gather(*(client.begun.wait() for client in fresh))
    if any(task.done() for task in opened.tasks):
        await opened.close()
        raise ConnectionError("a stream that was to stay open has ended")
    return opened


def offer(port: int, plan: Plan) -> list[Exchange]:
    """Run the plan on an event loop of its own and return every stream that it ran."""
    return uvloop.run(run(port, plan))


async def run(port: int, plan: Plan) -> list[Exchange]:
    """Run the plan: the first streams begin one after the other, and each is followed by another until the time is up."""
    request = http_request(port, payload.stream_body(plan.body_bytes, plan.pace, usage=plan.usage))
    end = time.monotonic() + plan.seconds
    # Spread over one stream's length: beginnings then stay apart, and a first token does not queue behind the others' requests.
    step = plan.pace.seconds / plan.streams
    found = await asyncio.gather(*(_lane(port, request, plan, end, number * step) for number in range(plan.streams)))
    return [exchange for lane in found for exchange in lane]


async def _lane(port: int, request: bytes, plan: Plan, end: float, delay: float) -> list[Exchange]:
    """One stream after the other until the time is up; at least one."""
    await asyncio.sleep(delay)
    exchanges: list[Exchange] = []
    client = await connect(port)
    while not exchanges or time.monotonic() < end:
        if not client.is_open:
            client = await connect(port)
        exchanges.append(await client.run(request, plan.pace.chunks))
        if exchanges[-1].fault is not None:
            await asyncio.sleep(0.05)  # a server that refuses is not hammered
    client.close()
    return exchanges
