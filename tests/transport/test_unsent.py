"""A request that is given up: whether any of it was sent is told with the cancellation, for nothing unsent can have been charged."""

from __future__ import annotations

import asyncio

import pytest

from proxy.core.protocols import UNSENT
from proxy.transport import PooledTransport
from tests.transport.wired import WiredLoop, ask, on_wires, pool, turns


async def given_up(transport: PooledTransport) -> tuple[object, ...]:
    """What the cancellation of a request tells."""
    asking = asyncio.ensure_future(ask(transport))
    await turns()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await asking
    return caught.value.args


def test_who_waited_for_a_connection_has_sent_nothing() -> None:
    async def main(loop: WiredLoop) -> None:
        transport = pool(connections=1)
        first = asyncio.ensure_future(ask(transport))
        await turns()
        assert await given_up(transport) == (UNSENT,)
        assert len(loop.wires) == 1
        first.cancel()
        await turns()

    on_wires(main)


def test_who_waited_for_an_address_has_sent_nothing() -> None:
    async def main(loop: WiredLoop) -> None:
        assert await given_up(pool(lookup=loop.create_future())) == (UNSENT,)
        assert not loop.wires

    on_wires(main)


def test_who_waited_for_an_answer_has_sent_a_request() -> None:
    async def main(loop: WiredLoop) -> None:
        assert UNSENT not in await given_up(pool())
        assert loop.wires[0].written

    on_wires(main)
