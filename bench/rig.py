"""The server without sockets: requests and streams driven through it one at a time, each a list of marks."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import payload, roundtrips, streams, upstream
from bench.timeline import SeamMissing, Timeline
from bench.unplugged import Loop, Wire, plug
from comporta.cli import configuration
from proxy import app, log
from proxy.core.protocols import JSONLog

_TURNS = 2000  # of the loop, after which nothing more will come
_PORT = 8080

Marks = list[tuple[str, int]]
Emit = Callable[[dict[str, Any]], None]


class NoAnswer(RuntimeError):
    """The server did not answer as it should."""


@dataclass(slots=True)
class Rig:
    """A started server, one client's connection to it, and the provider's side of whatever it connects to."""

    loop: Loop
    timeline: Timeline
    marked: bool
    client: Wire = field(init=False)
    provider: Wire | None = None
    request: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)
    writes: int = 0
    react: Callable[[Wire, bytes], None] = field(init=False)

    # -- what the two ends do --

    def from_provider(self) -> Wire:
        """The server dials: the other end."""
        return Wire("upstream", self.timeline if self.marked else None, self._requested)

    def _requested(self, wire: Wire, data: bytes) -> None:
        self.request += data
        if upstream.request_length(self.request) is not None:
            request = bytes(self.request)
            self.request.clear()
            self.loop.call_soon(self.react, wire, request)

    def _told(self, _wire: Wire, data: bytes) -> None:
        self.answered += data
        self.writes += 1

    async def connect(self, factory: Callable[[], Any]) -> None:
        """The client's connection."""
        self.client, _ = plug(Wire("client", self.timeline if self.marked else None, self._told), factory)
        await asyncio.sleep(0)

    # -- one at a time --

    async def until(self, done: Callable[[], bool]) -> None:
        """Let the loop turn. Raises NoAnswer when nothing more comes."""
        for _ in range(_TURNS):
            if done():
                return
            await asyncio.sleep(0)
        raise NoAnswer(f"the server did not answer within {_TURNS} turns of its loop; so far: {bytes(self.answered[:300])!r}")

    async def whole(self, request: bytes) -> Marks:
        """One request with a JSON answer."""
        self.react = _answer
        self._begin()
        self.client.deliver(request)
        await self.until(self._is_answered)
        self.timeline.mark("idle")
        if not roundtrips.is_right(bytes(self.answered)):
            raise NoAnswer(f"the server answered {bytes(self.answered[:300])!r}")
        return self.timeline.take()

    def _is_answered(self) -> bool:
        length = roundtrips.response_length(self.answered)
        return length is not None and len(self.answered) >= length

    async def stream(self, request: bytes, chunks: int) -> tuple[list[Marks], list[Marks]]:
        """One stream: the marks of its beginning and its end, and those of each chunk. The first two come with the head and are its."""
        begun = asyncio.Event()
        writes: list[bytes] = []

        def begin(wire: Wire, asked: bytes) -> None:
            self.provider = wire
            writes.extend(upstream.stream_writes(chunks, b'"include_usage":true' in asked))
            wire.deliver(writes[0])
            begun.set()

        self.react = begin
        self._begin()
        self.client.deliver(request)
        await self.until(lambda: begun.is_set() and self.writes > 0)
        self.timeline.mark("idle")
        ends = [self.timeline.take()]
        pieces = [await self._piece(data) for data in writes[1 : chunks - 2]]
        await self._piece(writes[chunks - 2])  # the one with the finish reason is decoded in another way
        ends.append(await self._end(writes[-1]))
        _, fault = streams.check(bytes(self.answered), chunks)
        if fault is not None:
            raise NoAnswer(f"the stream is not as it should be: {fault}")
        return ends, pieces

    async def _piece(self, data: bytes) -> Marks:
        assert self.provider is not None
        seen = self.writes
        self.timeline.take()
        self.timeline.mark("begin")
        self.provider.deliver(data)
        while self.writes == seen:
            await self.until(lambda: self.writes > seen)
        self.timeline.mark("idle")
        return self.timeline.take()

    async def _end(self, data: bytes) -> Marks:
        assert self.provider is not None
        self.timeline.take()
        self.timeline.mark("begin")
        self.provider.deliver(data)
        await self.until(lambda: self.answered.endswith(b"\r\n0\r\n\r\n"))
        await asyncio.sleep(0)
        self.timeline.mark("idle")
        return self.timeline.take()

    def _begin(self) -> None:
        self.answered.clear()
        self.writes = 0
        self.timeline.take()
        self.timeline.mark("begin")


def _answer(wire: Wire, _request: bytes) -> None:
    wire.deliver(upstream.http_answer(payload.answer()))


@asynccontextmanager
async def started(loop: Loop, config: Path, emit: Emit, timeline: Timeline, *, marked: bool) -> AsyncIterator[Rig]:
    """A server with one client connected to it. Raises SeamMissing where it is built differently by now, NoAnswer where it fails."""
    found = Rig(loop, timeline, marked)
    loop.dialled = found.from_provider
    loop.factories.clear()
    loaded = configuration.read(config)
    listening = socket.create_server(("127.0.0.1", 0))
    try:
        kind: Any = vars(app)["Gateway"]
        gateway = kind(loaded.settings, environ={}, emit=emit)
        await gateway.start(*([listening] if inspect.signature(gateway.start).parameters else []))
    except (AttributeError, KeyError, TypeError) as error:
        raise SeamMissing(f"proxy.app's Gateway as it was ({error!r})") from error
    try:
        await _find_clients_door(found)
        yield found
        found.client.abort()
        await asyncio.sleep(0)
    finally:
        await gateway.stop()
        listening.close()


async def _find_clients_door(rig: Rig) -> None:
    """Connect to the listener that answers a chat."""
    refused: list[str] = []
    for factory in tuple(rig.loop.factories):
        await rig.connect(factory)
        try:
            await rig.whole(request())
        except (NoAnswer, ValueError) as error:
            refused.append(str(error))
            rig.client.abort()
            await asyncio.sleep(0)
        else:
            return
    raise NoAnswer(f"none of {len(rig.loop.factories)} listeners answers a chat: {refused}")


def request(chunks: int | None = None) -> bytes:
    """A chat of about 1 KiB as an SDK sends it; with `chunks`, as a stream of so many."""
    if chunks is None:
        return streams.http_request(_PORT, payload.chat_body(1024))
    return streams.http_request(_PORT, payload.stream_body(1024, payload.Pace(chunks, 1), usage=False))


@dataclass(slots=True)
class LogThread:
    """The server's own log writer, writing to nowhere, and the processor time of its thread."""

    emit: JSONLog
    clock: int

    def seconds(self) -> float:
        return time.clock_gettime(self.clock)


@contextmanager
def log_thread(directory: Path) -> Iterator[LogThread]:
    """Raises SeamMissing when the log writes without a thread of its own."""
    with (directory / "log").open("wb") as stream:
        writer = log.writer_for(stream)
        before = set(threading.enumerate())
        writer.start()
        fresh = [thread for thread in threading.enumerate() if thread not in before]
        if len(fresh) != 1 or fresh[0].ident is None:
            writer.stop()
            raise SeamMissing("the one thread of proxy.log's writer")
        try:
            yield LogThread(writer, time.pthread_getcpuclockid(fresh[0].ident))
        finally:
            writer.stop()
