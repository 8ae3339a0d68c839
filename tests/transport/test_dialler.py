"""To which of a name's addresses a connection is made, and when another one is tried."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxy.core.errors import UpstreamError
from proxy.transport.dialler import interleaved
from tests.fuzz.wires import Wire
from tests.transport.wired import WiredLoop, answer, ask, on_wires, pool, turns

ONE, OTHER, THIRD = ADDRESSES = ("192.0.2.1", "192.0.2.2", "192.0.2.3")


def serve(loop: WiredLoop) -> None:
    """Answer whatever is asked on the last connection."""
    loop.wires[-1].feed(answer(b"yes"))


def test_an_address_that_swallows_what_is_sent_to_it_gives_way_to_the_next_and_goes_last() -> None:
    async def main(loop: WiredLoop) -> None:
        transport, loop.deaf = pool(addresses=ADDRESSES), {ONE}
        asked = [asyncio.ensure_future(ask(transport)) for _ in range(2)]
        await turns()
        assert (loop.dialled, loop.wires) == ([ONE] * 2, [])
        await loop.pass_time(0.6)
        assert loop.dialled == [ONE, ONE, OTHER, OTHER]
        for wire in loop.wires:
            wire.feed(answer(b"yes"))
        assert await asyncio.gather(*asked) == [(200, b"yes")] * 2
        for wire in loop.wires:
            wire.lose()
        again = asyncio.ensure_future(ask(transport))
        await turns()
        assert loop.dialled[4:] == [OTHER], "the one that answered is dialled first"
        serve(loop)
        assert await again == (200, b"yes")

    on_wires(main, stands_still=True)


def test_an_address_that_refuses_gives_way_at_once_and_goes_last() -> None:
    async def main(loop: WiredLoop) -> None:
        transport, loop.refusing = pool(addresses=ADDRESSES), {ONE, OTHER}
        asked = asyncio.ensure_future(ask(transport))
        await turns()
        assert loop.dialled == [ONE, OTHER, THIRD]
        serve(loop)
        assert await asked == (200, b"yes")
        loop.wires[0].lose()
        again = asyncio.ensure_future(ask(transport))
        await turns()
        assert loop.dialled[3:] == [THIRD]
        serve(loop)
        assert await again == (200, b"yes")

    on_wires(main, stands_still=True)


def test_an_address_that_is_slow_is_not_given_up_for_the_next() -> None:
    """It has all the time that a connection may take."""

    async def main(loop: WiredLoop) -> None:
        transport, loop.deaf = pool(addresses=(ONE, OTHER)), {ONE, OTHER}
        ready = loop.create_future()
        loop.slow[ONE] = ready
        asked = asyncio.ensure_future(ask(transport))
        await turns()
        await loop.pass_time(3)
        assert loop.dialled == [ONE, OTHER]
        ready.set_result(None)
        await turns()
        serve(loop)
        assert await asked == (200, b"yes")

    on_wires(main, stands_still=True)


def test_where_all_are_deaf_the_time_for_a_connection_ends_it() -> None:
    async def main(loop: WiredLoop) -> None:
        transport, loop.deaf = pool(addresses=ADDRESSES, connections=1), set(ADDRESSES)
        for _ in range(2):
            asked = asyncio.ensure_future(ask(transport))
            await turns()
            await loop.pass_time(5)
            with pytest.raises(UpstreamError) as caught:
                await asked
            assert (caught.value.kind, caught.value.reached) == ("connect_timeout", False)
        loop.deaf = set()
        healthy = asyncio.ensure_future(ask(transport))
        await turns()
        serve(loop)
        assert await healthy == (200, b"yes"), "those that were dialled hold no place"

    on_wires(main, stands_still=True)


def test_the_last_failure_is_told_where_all_fail() -> None:
    async def main(loop: WiredLoop) -> None:
        transport, loop.refusing = pool(addresses=ADDRESSES), set(ADDRESSES)
        with pytest.raises(UpstreamError) as caught:
            await ask(transport)
        assert (caught.value.kind, caught.value.reached) == ("connect_failed", False)
        assert loop.dialled == [*ADDRESSES]

    on_wires(main, stands_still=True)


def test_connections_that_come_too_late_are_closed() -> None:
    """Two that are made in one turn of the loop, and one that its provider closes in that turn."""

    async def main(loop: WiredLoop) -> None:
        transport = pool(addresses=ADDRESSES, connections=1)
        made = [loop.create_future() for _ in ADDRESSES]
        loop.slow = dict(zip(ADDRESSES, made, strict=True))
        asked = asyncio.ensure_future(ask(transport))
        for _ in ADDRESSES:
            await turns()
            await loop.pass_time(0.6)
        loop.greet = lambda wire: wire.lose() if len(loop.wires) == 1 else None
        for each in made:
            each.set_result(None)
        await turns()
        assert [wire.is_closing() for wire in loop.wires] == [True, False, True]
        loop.wires[1].feed(answer(b"yes"))
        assert await asked == (200, b"yes")

    on_wires(main, stands_still=True)


def test_a_connection_that_is_closed_before_who_dialled_goes_on_costs_no_place() -> None:
    async def main(loop: WiredLoop) -> None:
        def close_soon(wire: Wire) -> None:
            loop.call_soon(wire.lose)

        transport, loop.greet = pool(addresses=(ONE, OTHER), connections=1), close_soon
        for _ in range(3):
            with pytest.raises(UpstreamError) as caught:
                await ask(transport)
            assert caught.value.kind in ("connect_failed", "reset")
        loop.greet = lambda _: None
        healthy = asyncio.ensure_future(ask(transport))
        await turns()
        serve(loop)
        assert await healthy == (200, b"yes")

    on_wires(main, stands_still=True)


def test_who_leaves_while_addresses_are_dialled_leaves_nothing() -> None:
    async def main(loop: WiredLoop) -> None:
        transport, loop.deaf = pool(addresses=(ONE, OTHER), connections=1), {ONE}
        leaving = asyncio.ensure_future(ask(transport))
        await turns()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        loop.deaf = set()
        await loop.pass_time(1)
        assert loop.dialled == [ONE] and not loop.wires
        healthy = asyncio.ensure_future(ask(transport))
        await turns()
        serve(loop)
        assert await healthy == (200, b"yes")

    on_wires(main, stands_still=True)


def test_families_take_turns() -> None:
    six, four = int(socket.AF_INET6), int(socket.AF_INET)
    found = interleaved([("::1", six), ("::2", six), ("::3", six), ("192.0.2.1", four)])
    assert found == [("::1", six), ("192.0.2.1", four), ("::2", six), ("::3", six)]
