"""To which of a name's addresses a connection is made, and when another one is tried."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from proxy.core.errors import UpstreamError
from proxy.transport import PinnedResolver, PooledTransport
from proxy.transport.dialler import interleaved
from tests.fuzz.wires import Wire
from tests.transport.wired import ORIGIN, WiredLoop, answer, ask, on_wires, pool, turns

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


class Names:
    """A name server whose answers are the test's to give, in `asked`; `fresh` asks a provider on a connection that is made for it."""

    def __init__(self, loop: WiredLoop) -> None:
        self._loop = loop
        self.asked: list[asyncio.Future[str]] = []
        resolver = PinnedResolver(allow_private=False, lookup=self._look_up)
        self._transport = PooledTransport(ORIGIN, connections=4, keep_alive=60, resolver=resolver)

    async def _look_up(self, _host: str, port: int, **_options: Any) -> list[Any]:
        self.asked.append(self._loop.create_future())
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (await self.asked[-1], port))]

    async def fresh(self) -> str:
        """Where the connection leads to. Raises UpstreamError."""
        begun = len(self._loop.wires)
        asked = asyncio.ensure_future(ask(self._transport))
        await turns()
        if len(self._loop.wires) == begun and not asked.done():
            self.asked[-1].set_result(PUBLIC)
            await turns()
        if len(self._loop.wires) > begun:
            serve(self._loop)
        await asked
        self._loop.wires[-1].lose()
        return self._loop.dialled[-1]


PUBLIC, MOVED = "93.184.216.34", "93.184.216.35"


def test_the_last_address_serves_until_the_next_is_known() -> None:
    async def main(loop: WiredLoop) -> None:
        names = Names(loop)
        assert (await names.fresh(), len(names.asked)) == (PUBLIC, 1)
        await loop.pass_time(9)
        assert (await names.fresh(), len(names.asked)) == (PUBLIC, 1)
        await loop.pass_time(2)
        assert [await names.fresh(), await names.fresh()] == [PUBLIC] * 2
        assert (len(names.asked), names.asked[1].done()) == (2, False), "one is asked for all, and nobody waits for it"
        names.asked[1].set_result(MOVED)
        await turns()
        assert (await names.fresh(), len(names.asked)) == (MOVED, 2)

    on_wires(main, stands_still=True)


def test_an_address_serves_for_a_minute_at_most() -> None:
    async def main(loop: WiredLoop) -> None:
        names = Names(loop)
        await names.fresh()
        await loop.pass_time(59)
        await names.fresh()
        assert not names.asked[1].done()
        await loop.pass_time(2)
        assert await names.fresh() == PUBLIC
        assert names.asked[1].done(), "it was waited for"

    on_wires(main, stands_still=True)


@pytest.mark.parametrize(
    ("outcome", "goes_on"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "no answer"), True),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), False),
        ("10.0.0.1", False),
    ],
)
def test_an_address_outlives_silence_of_the_name_server_and_no_other_answer(outcome: str | OSError, goes_on: bool) -> None:
    async def main(loop: WiredLoop) -> None:
        names = Names(loop)
        await names.fresh()
        await loop.pass_time(11)
        await names.fresh()
        if isinstance(outcome, str):
            names.asked[1].set_result(outcome)
        else:
            names.asked[1].set_exception(outcome)
        await turns()
        if goes_on:
            assert await names.fresh() == PUBLIC
        else:
            with pytest.raises(UpstreamError) as caught:
                await names.fresh()
            assert caught.value.kind == "dns"
        assert len(names.asked) == 2
        await loop.pass_time(3)
        assert (await names.fresh(), len(names.asked)) == (PUBLIC, 3)

    on_wires(main, stands_still=True)


def test_families_take_turns() -> None:
    six, four = int(socket.AF_INET6), int(socket.AF_INET)
    found = interleaved([("::1", six), ("::2", six), ("::3", six), ("192.0.2.1", four)])
    assert found == [("::1", six), ("192.0.2.1", four), ("::2", six), ("::3", six)]
