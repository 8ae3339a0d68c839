"""What a request leaves behind: nothing that only the garbage collector would find.

A circle in each request keeps its body in memory, and the processor's caches cold.
"""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path

import pytest

from proxy.gateway import Gateway
from proxy.settings import load
from proxy.sockets import bind

BODY = json.dumps({"model": "sim", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3})
STREAM = json.dumps({"model": "sim", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3, "stream": True})
REQUESTS = 50


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: str) -> None:
    writer.write(f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
    await reader.readuntil(b"\r\n\r\n")
    await reader.readuntil(b"0\r\n\r\n" if "stream" in body else b"}}}")


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
async def test_a_request_leaves_no_circles(body: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("server: {listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0'}\nproviders: {}\n", encoding="utf-8")
    gateway = Gateway(load(file, {}, {}).settings, environ={}, emit=lambda _event: None)
    listening = bind("127.0.0.1", 0)
    port = listening.getsockname()[1]
    await gateway.start(listening)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await _ask(reader, writer, body)
        gc.collect()
        gc.disable()
        for _ in range(REQUESTS):
            await _ask(reader, writer, body)
        assert gc.collect() < REQUESTS, "each request leaves a circle of objects"
    finally:
        gc.enable()
        writer.close()
        await gateway.stop()
