"""An event loop whose connections lead nowhere: bytes go straight from the harness into the server's protocols, and back.

Only asyncio's own interfaces are stood in for (`loop.create_connection`, `loop.create_server`, a transport), so that whatever the server
makes of them runs as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import uvloop

from bench.timeline import Timeline

#: Told of what was written; for the harness to react to.
Written = Callable[["Wire", bytes], None]


class Wire(asyncio.Transport):
    """A connection of the server. Its reads and writes are marks: `NAME.in`, `NAME.out`, `NAME.write`, `NAME.written`."""

    def __init__(self, name: str, timeline: Timeline | None, written: Written) -> None:
        super().__init__({"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 8080)})
        self.protocol: Any = None
        self.closed = False
        self._mark = _ignored if timeline is None else timeline.mark
        self._marks = (f"{name}.in", f"{name}.out", f"{name}.write", f"{name}.written")
        self._written = written

    def deliver(self, data: bytes) -> None:
        """The server reads `data`."""
        self._mark(self._marks[0])
        protocol = self.protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            _into_buffer(protocol, data)
        else:
            protocol.data_received(data)
        self._mark(self._marks[1])

    def lose(self) -> None:
        """The other side closes the connection."""
        self.abort()

    # -- asyncio.Transport --

    def write(self, data: Any) -> None:
        self._mark(self._marks[2])
        self._written(self, data)
        self._mark(self._marks[3])

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self.protocol
        return protocol

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return not self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 16384, 65536

    def can_write_eof(self) -> bool:
        return False


def _ignored(_name: str) -> None: ...


def _into_buffer(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    view = memoryview(data)
    while view:
        buffer = memoryview(protocol.get_buffer(len(view)))
        size = min(len(buffer), len(view))
        buffer[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]


class Loop(uvloop.Loop):
    """Remembers what would serve each listening socket, and connects nobody: `dialled` makes the other end of each connection."""

    def __init__(self) -> None:
        super().__init__()
        self.factories: list[Callable[[], Any]] = []
        self.dialled: Callable[[], Wire] | None = None

    async def create_server(self, protocol_factory: Any, *arguments: Any, **options: Any) -> Any:
        self.factories.append(protocol_factory)
        return await super().create_server(protocol_factory, *arguments, **options)

    async def create_connection(self, protocol_factory: Any, *_arguments: Any, **_options: Any) -> Any:
        if self.dialled is None:
            raise ConnectionRefusedError("nobody is there")
        return plug(self.dialled(), protocol_factory)


def plug(wire: Wire, factory: Callable[[], Any]) -> tuple[Wire, Any]:
    """A new connection over `wire`, as an event loop makes it."""
    wire.protocol = factory()
    wire.protocol.connection_made(wire)
    return wire, wire.protocol
