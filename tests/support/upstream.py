"""An upstream that misbehaves to order: a raw socket server on loopback that plays one script per request.

It is not an HTTP library on purpose. What it sends is exactly the bytes of the script, so that it can send what no HTTP server would:
half a header, a chunk size of letters, a reset in the middle of a word. What it gets it keeps as it came.

It runs in a thread with a loop of its own, so tests of either colour use it, and times are taken where things happen.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.raw_client import slices
from tests.support.script import Fin, Gate, Pour, Reset, Script, Send, Stall, Step, Wait, error_response, script

LINGER_ZERO = struct.pack("ii", 1, 0)  # close() sends RST and drops what is unsent
DRIP_GAP = 0.00008  # seconds between slices: enough for the reader on the other side to wake for most of them


@dataclass(slots=True)
class Connection:
    """One connection from the gateway. `closed_at` is `time.monotonic()` when the gateway was seen to close, or None."""

    number: int
    closed: threading.Event = field(default_factory=threading.Event)
    closed_at: float | None = None
    requests: int = 0
    poured: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came. `body` is without chunked framing."""

    raw_head: bytes
    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: Connection

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    def json(self) -> Any:
        return json.loads(self.body)


class Upstream:
    """Plays the scripts given to `play`, in the order that requests come; `otherwise` for a request that no script is left for."""

    def __init__(self, otherwise: Script | None = None) -> None:
        self.otherwise = otherwise or script(error_response(500, "no script left"))
        self.requests: list[Request] = []
        self.connections: list[Connection] = []
        self.errors: list[str] = []
        self._scripts: deque[Script] = deque()
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._peers: set[_Peer] = set()
        self._thread = threading.Thread(target=self._run, name="scripted-upstream", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def play(self, *answers: Script | bytes) -> None:
        with self._changed:
            self._scripts.extend(answer if isinstance(answer, Script) else script(answer) for answer in answers)

    def forget(self) -> None:
        """Drops scripts that nobody asked for and what was recorded. Open connections stay: the gateway may hold them in its pool."""
        with self._changed:
            self._scripts.clear()
            self.requests = []

    @property
    def unplayed(self) -> int:
        return len(self._scripts)

    def wait_request(self, count: int = 1, timeout: float = 5.0) -> Request:
        """The `count`-th request since `forget`, waiting for it up to `timeout` seconds."""
        with self._changed:
            seen = self._changed.wait_for(lambda: len(self.requests) >= count, timeout)
            assert seen, f"the upstream got {len(self.requests)} requests, not {count}, within {timeout} s"
            return self.requests[count - 1]

    def hang_up(self) -> None:
        """Closes every connection, as a server does with idle ones, and waits until the gateway has: its next request is on a fresh one."""
        open_now = [peer.connection for peer in list(self._peers)]
        closing = threading.Event()
        self._loop.call_soon_threadsafe(self._close_all, closing)
        assert closing.wait(5), "the upstream's loop stands still"  # later, it would close the next request's connection, too
        for connection in open_now:
            assert connection.closed.wait(5), "the gateway holds on to a connection that its server has closed"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # What follows runs in the thread of the loop.
    def _close_all(self, closing: threading.Event) -> None:
        for peer in list(self._peers):
            peer.transport.close()
        closing.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(self._loop.create_server(lambda: _Peer(self), sock=self._listener))
        self._loop.run_forever()
        server.close()
        for peer in list(self._peers):
            peer.abandon()
        pending = asyncio.all_tasks(self._loop)
        for task in pending:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def next_script(self) -> Script:
        with self._changed:
            return self._scripts.popleft() if self._scripts else self.otherwise

    def note(self, request: Request) -> None:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def open(self, peer: _Peer) -> Connection:
        connection = Connection(len(self.connections))
        self.connections.append(connection)
        self._peers.add(peer)
        return connection

    def close(self, peer: _Peer) -> None:
        self._peers.discard(peer)


class _Peer(asyncio.Protocol):
    """One connection: collects bytes, cuts requests out of them, plays a script for each."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.buffer = bytearray()
        self.arrived = asyncio.Event()
        self.gone = asyncio.Event()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.task: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = self.upstream.open(self)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.arrived.set()

    def pause_writing(self) -> None:
        self.flowing.clear()

    def resume_writing(self) -> None:
        self.flowing.set()

    def eof_received(self) -> bool:
        self._mark_gone()
        return False

    def connection_lost(self, _: Exception | None) -> None:
        self._mark_gone()
        self.upstream.close(self)

    def _mark_gone(self) -> None:
        if not self.gone.is_set():
            self.connection.closed_at = time.monotonic()
            self.gone.set()
            self.arrived.set()
            self.flowing.set()
            self.connection.closed.set()

    def abandon(self) -> None:
        self.transport.abort()

    async def _serve(self) -> None:
        while not self.gone.is_set() and not self.transport.is_closing():
            raw_head = await self._take_until(b"\r\n\r\n")
            if raw_head is None:
                return
            answer = self.upstream.next_script()
            request = self._parse(raw_head)
            self.connection.requests += 1
            if answer.at_head:
                self.upstream.note(request)
            else:
                body = await self._take_body(request)
                if body is None:
                    return
                self.upstream.note(replace(request, body=body))
            for step in answer.steps:
                if self.gone.is_set():
                    return
                await self._play(step)

    def _parse(self, raw_head: bytes) -> Request:
        first, *lines = raw_head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, version = first.split(" ", 2)
        headers = tuple((name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines))
        return Request(raw_head, method, target, version, headers, b"", self.connection)

    async def _take_body(self, request: Request) -> bytes | None:
        if request.header("expect") == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in (request.header("transfer-encoding") or ""):
            return await self._take_chunks()
        return await self._take(int(request.header("content-length") or 0))

    async def _take_chunks(self) -> bytes | None:
        body = bytearray()
        while (line := await self._take_until(b"\r\n")) is not None:
            size = int(line.split(b";")[0], 16)
            data = await self._take(size + 2)
            if data is None:
                return None
            if size == 0:
                return bytes(body)
            body += data[:-2]
        return None

    async def _take_until(self, mark: bytes) -> bytes | None:
        while (place := self.buffer.find(mark)) < 0:
            if not await self._more():
                return None
        return await self._take(place + len(mark))

    async def _take(self, count: int) -> bytes | None:
        while len(self.buffer) < count:
            if not await self._more():
                return None
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    async def _more(self) -> bool:
        if self.gone.is_set():
            return False
        self.arrived.clear()
        await self.arrived.wait()
        return not self.gone.is_set()

    async def _play(self, step: Step) -> None:
        match step:
            case Send(data, size):
                await self._send(data, size)
            case Pour(data, times):
                await self._pour(data, times)
            case Wait(seconds):
                await self._until_gone(seconds)
            case Stall():
                await self.gone.wait()
            case Gate(gate):
                while not gate.is_set() and not self.gone.is_set():
                    await self._until_gone(0.005)
            case Reset():
                await self._drained()
                self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
                self.transport.abort()
            case Fin():
                self.transport.close()

    async def _send(self, data: bytes, size: int) -> None:
        if not size:
            self.transport.write(data)
            await asyncio.sleep(0)
            return
        for piece in slices(data, size):
            if self.gone.is_set():
                return
            self.transport.write(piece)
            time.sleep(DRIP_GAP)  # noqa: ASYNC251 - this loop's timers are too coarse, and nothing else runs on it
            await asyncio.sleep(0)

    async def _pour(self, data: bytes, times: int) -> None:
        for _ in range(times):
            if self.gone.is_set():
                return
            self.transport.write(data)
            self.connection.poured += len(data)
            await self.flowing.wait()
            await asyncio.sleep(0)

    async def _drained(self) -> None:
        """Waits until the kernel has it all, and the reader a moment to take it: a reset drops what it has not read."""
        while self.transport.get_write_buffer_size() and not self.gone.is_set():
            await self._until_gone(0.001)
        await self._until_gone(0.02)

    async def _until_gone(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.gone.wait(), seconds)
        except TimeoutError:
            pass
