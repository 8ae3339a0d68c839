"""A pool whose connections are wires in the test's hand: what comes when is the test's to say, to the turn of the loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from proxy.core.call import Content, Timeouts
from proxy.core.protocols import UpstreamRequest
from proxy.transport import PinnedResolver, PooledTransport
from tests.fuzz.wires import Wire

ORIGIN = "http://up.example:1001"
PATIENCE = Timeouts(connect=5, first_token=60, idle=60, total=60)


def answer(body: bytes, status: int = 200, *more: bytes) -> bytes:
    lines = (b"HTTP/1.1 %d Whatever" % status, b"content-length: %d" % len(body), *more)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def pool(*, connections: int = 4, addresses: Sequence[str] = ("192.0.2.1",), lookup: asyncio.Future[None] | None = None) -> PooledTransport:
    """A pool whose provider has these addresses, once `lookup` is done."""

    async def look_up(_host: str, port: int, **_options: Any) -> list[Any]:
        if lookup is not None:
            await lookup
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    resolver = PinnedResolver(allow_private=True, lookup=look_up)
    return PooledTransport(ORIGIN, connections=connections, keep_alive=60, resolver=resolver)


async def ask(transport: PooledTransport, body: bytes | Content = b"{}", *, method: str = "POST") -> tuple[int, bytes]:
    """One exchange, whole."""
    response = await transport.send(UpstreamRequest(method, f"{ORIGIN}/v1/x", {}, body), PATIENCE)
    found = b""
    while data := await response.receive():
        found += data
    response.close(reuse=True)
    return response.status, found


async def turns(count: int = 25) -> None:
    """Let all that is ready go on."""
    for _ in range(count):
        await asyncio.sleep(0)


class WiredLoop(asyncio.SelectorEventLoop):
    """Connecting takes a turn and gives a wire; `greet` is called with it before who dialled goes on.

    `deaf` addresses swallow whoever dials them, `slow` ones take until their future is done. Time passes by `pass_time`, and on
    its own unless it `stands_still`: then no machine is too slow for what is due later.
    """

    def __init__(self, *, stands_still: bool = False) -> None:
        super().__init__()
        self._still = super().time() if stands_still else None
        self.wires: list[Wire] = []
        self.greet: Callable[[Wire], None] = lambda _: None
        self.dialled: list[str] = []
        self.deaf: set[str] = set()
        self.slow: dict[str, asyncio.Future[None]] = {}
        self.refusing: set[str] = set()
        self._passed = 0.0

    def time(self) -> float:
        return (super().time() if self._still is None else self._still) + self._passed

    async def pass_time(self, seconds: float) -> None:
        """Let so much time pass, and all go on that waited for it."""
        self._passed += seconds
        if self._still is None:
            await asyncio.sleep(0.001)
        await turns()

    async def create_connection(self, protocol_factory: Any, *where: Any, **_options: Any) -> Any:
        address = where[0]
        self.dialled.append(address)
        await asyncio.sleep(0)
        if address in self.refusing:
            raise ConnectionRefusedError(111, "refused")
        if address in self.slow:
            await self.slow[address]
        elif address in self.deaf:
            await self.create_future()
        protocol = protocol_factory()
        wire = Wire(protocol)
        self.wires.append(wire)
        self.greet(wire)
        return wire, protocol


def on_wires(main: Callable[[WiredLoop], Coroutine[Any, Any, None]], *, stands_still: bool = False) -> None:
    """Run `main` on such a loop."""
    loop = WiredLoop(stands_still=stands_still)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main(loop))
