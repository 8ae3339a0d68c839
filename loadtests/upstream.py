"""An upstream behind sockets, for the soak: the model `far` answers well, `wild` in turn well and with all that an upstream can do wrong.

`down` always fails, `slow` takes its time, and `breaks` loses each answer in the middle: targets beside which another one has to serve.

`python -m loadtests.upstream` listens on a free port of loopback until SIGTERM, and says where in one line of JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

_FIRST, _EACH, _TOKENS = 0.01, 0.002, 20  # seconds, seconds, how many
_SLOW = 0.3  # seconds
_MOST_SILENT = 60.0

Behaviour = Callable[[StreamReader, StreamWriter, bool], Awaitable[bool]]
"""Answers one request, a stream if the third is true; says whether the connection may carry another."""


def _head(kind: str, length: int | None, status: str = "200 OK") -> bytes:
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{size}\r\n\r\n".encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _delta(index: int) -> bytes:
    return b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word %d "}}]}\n\n' % index


def _whole() -> bytes:
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": "words " * _TOKENS}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 8, "completion_tokens": _TOKENS, "total_tokens": 8 + _TOKENS}
    return json.dumps({"id": "c", "object": "chat.completion", "model": "far", "choices": [choice], "usage": usage}).encode()


async def _begin(writer: StreamWriter, tokens: int) -> None:
    await asyncio.sleep(_FIRST)
    writer.write(_head("text/event-stream", None))
    for index in range(tokens):
        writer.write(_chunk(_delta(index)))
        await writer.drain()
        await asyncio.sleep(_EACH)


async def well(_: StreamReader, writer: StreamWriter, stream: bool) -> bool:
    """As asked."""
    if stream:
        await _begin(writer, _TOKENS)
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    else:
        await asyncio.sleep(_FIRST + _EACH * _TOKENS)
        body = _whole()
        writer.write(_head("application/json", len(body)) + body)
    await writer.drain()
    return True


async def slow(reader: StreamReader, writer: StreamWriter, stream: bool) -> bool:
    """As asked, after a while."""
    await asyncio.sleep(_SLOW)
    return await well(reader, writer, stream)


async def failing(_: StreamReader, writer: StreamWriter, _stream: bool) -> bool:
    """500."""
    body = b'{"error":{"message":"It failed.","type":"server_error","param":null,"code":null}}'
    writer.write(_head("application/json", len(body), "500 Internal Server Error") + body)
    return True


async def breaking(_: StreamReader, writer: StreamWriter, stream: bool) -> bool:
    """The connection is reset in the middle."""
    if stream:
        await _begin(writer, _TOKENS // 2)
    else:
        body = _whole()
        writer.write(_head("application/json", len(body)) + body[: len(body) // 2])
        await writer.drain()
    writer.transport.abort()
    return False


async def truncating(_: StreamReader, writer: StreamWriter, stream: bool) -> bool:
    """A clean end without `[DONE]`; of a whole answer half of the bytes."""
    if stream:
        await _begin(writer, _TOKENS // 2)
        writer.write(b"0\r\n\r\n")
        return True
    body = _whole()
    writer.write(_head("application/json", len(body)) + body[: len(body) // 2])
    return False


async def silent(reader: StreamReader, writer: StreamWriter, stream: bool) -> bool:
    """Nothing further, until the gateway has had enough."""
    if stream:
        await _begin(writer, _TOKENS // 2)
    await asyncio.wait_for(reader.read(1), _MOST_SILENT)
    return False


async def garbled(_: StreamReader, writer: StreamWriter, _stream: bool) -> bool:
    """What is no HTTP."""
    writer.write(b"\x16\x03\x01 this is no answer\r\n\r\n")
    return False


async def mute(_: StreamReader, _writer: StreamWriter, _stream: bool) -> bool:
    """The connection ends without an answer."""
    return False


def wild() -> Iterator[Behaviour]:
    """Nine of twenty answers are good; one of twenty is silence, which costs its client seconds."""
    faults: list[Behaviour] = [failing, breaking, truncating, garbled, mute]
    return itertools.cycle([well, *itertools.chain.from_iterable((fault, well) for fault in faults), *faults, well, well, well, silent])


#: What each model does; `wild` takes turns, every other one answers well.
MODELS: dict[str, Behaviour] = {"down": failing, "slow": slow, "breaks": breaking}


class Upstream:
    """Answers every connection until it is told to end."""

    def __init__(self) -> None:
        self._wild = wild()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass  # the gateway has left
        finally:
            writer.close()

    async def _one(self, reader: StreamReader, writer: StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0] or b"0")
        body = json.loads(await reader.readexactly(length))
        behaviour = next(self._wild) if body["model"] == "wild" else MODELS.get(body["model"], well)
        return await behaviour(reader, writer, bool(body.get("stream")))


async def main() -> None:
    """Until SIGTERM."""
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    server = await asyncio.start_server(Upstream().serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    sys.stdout.write(json.dumps({"event": "ready", "pid": os.getpid(), "listen": f"http://{host}:{port}"}) + "\n")
    sys.stdout.flush()
    await ending.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
