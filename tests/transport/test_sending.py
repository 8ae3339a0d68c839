"""A body that is passed on to a provider which does not wait for its end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any

import pytest
import uvloop

from proxy.core.call import Timeouts
from proxy.core.protocols import UpstreamRequest
from proxy.transport import PinnedResolver, PooledTransport

PATIENCE = Timeouts(connect=5, first_token=5, idle=5, total=10)
SAID = b'{"error":{"message":"too large"}}' + b" " * 20_000
REFUSAL = b"HTTP/1.1 413 Too Large\r\ncontent-length: %d\r\n\r\n%b" % (len(SAID), SAID)


class Answered:
    """A body of two pieces; before the `last` is sent, the provider at `door` answers, and closes over what it has not read: a reset."""

    def __init__(self, door: socket.socket, *, length: int | None, last: bytes = b"def") -> None:
        self.length = length
        self._door = door
        self._last = last

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"abc"
        peer, _ = self._door.accept()
        with peer:
            peer.recv(1)
            peer.sendall(REFUSAL)
        if self._last:
            yield self._last

    def named(self, _model: str) -> Answered:
        return self


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize(("length", "last"), [(6, b"def"), (None, b"def"), (None, b"")], ids=["known length", "chunks", "last chunk"])
def test_an_answer_is_read_whose_provider_has_closed_before_the_bodys_end(
    run: Callable[[Any], None], length: int | None, last: bytes
) -> None:
    async def main() -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as door:
            url = f"http://127.0.0.1:{door.getsockname()[1]}"
            transport = PooledTransport(url, connections=1, keep_alive=5, resolver=PinnedResolver(allow_private=True))
            body = Answered(door, length=length, last=last)
            response = await transport.send(UpstreamRequest("POST", f"{url}/v1/x", {}, body), PATIENCE)
            found = b""
            while data := await response.receive():
                found += data
            assert (response.status, found) == (413, SAID)
            response.close(reuse=True)
            assert not transport._idle, "a connection is used again on which a body was not sent to its end"
            await transport.close()

    run(main())
