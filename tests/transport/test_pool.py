"""The pool: which connection serves next, which never again, and when a request is sent once more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.core.errors import ClientError
from tests.transport.wired import WiredLoop, answer, ask, on_wires, pool, turns

# -- bodies that are passed on as they arrive --


class Broken:
    """A body that ends with `ending` instead of its end once `gate` is open."""

    def __init__(self, gate: asyncio.Future[None], ending: BaseException, length: int | None) -> None:
        self._gate = gate
        self._ending = ending
        self.length = length

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"half a body"
        await self._gate
        raise self._ending

    def named(self, model: str) -> Broken:
        return self


ENDINGS = {
    "too large": ClientError("The request's body is larger than it may be.", status=413),
    "cancelled": asyncio.CancelledError(),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
@pytest.mark.parametrize("length", [1000, None], ids=["of known length", "chunked"])
def test_a_connection_with_half_a_request_on_it_never_serves_another(ending: BaseException, length: int | None) -> None:
    """The provider's answer comes in the turn in which the client's body breaks off: what was announced was not sent."""

    async def main(loop: WiredLoop) -> None:
        transport, gate = pool(), loop.create_future()
        first = asyncio.ensure_future(ask(transport, Broken(gate, ending, length)))
        await turns()
        loop.wires[0].feed(answer(b"no", 400))
        gate.set_result(None)
        assert await first == (400, b"no")
        second = asyncio.ensure_future(ask(transport, b"another tenant's"))
        await turns()
        assert len(loop.wires) == 2
        assert b"tenant" not in loop.wires[0].written
        loop.wires[1].feed(answer(b"yes"))
        assert await second == (200, b"yes")

    on_wires(main)
