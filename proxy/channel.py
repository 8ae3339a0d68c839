"""Between the supervisor and a worker: one JSON object a line, over a socket pair that the worker inherits."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import orjson

#: A worker's numbers are the longest message: some hundred bytes for each series.
_MOST = 64 * 2**20


class Channel:
    """One end. A message is an object with one key, its name."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        return cls(*await asyncio.open_unix_connection(sock=end, limit=_MOST))

    def send(self, name: str, value: Any = None) -> None:
        """Never blocks; what cannot be delivered is lost, and `receive` at the other end has told why."""
        if not self._writer.is_closing():
            self._writer.write(orjson.dumps({name: value}, option=orjson.OPT_APPEND_NEWLINE))

    async def receive(self) -> tuple[str, Any] | None:
        """The next message; None when the other end has gone."""
        try:
            line = await self._reader.readline()
            if not line.endswith(b"\n"):
                return None
            message: dict[str, Any] = orjson.loads(line)
            return next(iter(message.items()))
        except (OSError, ValueError):
            return None

    async def close(self) -> None:
        """Deliver what was sent, for at most a second, and close."""
        try:
            async with asyncio.timeout(1.0):
                await self._writer.drain()
                self._writer.close()
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()
