"""The pool: which connection serves next, which never again, and when a request is sent once more."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
import uvloop

from proxy.core.call import Timeouts
from proxy.core.errors import ClientError, UpstreamError
from proxy.core.protocols import UpstreamRequest
from proxy.ticks import TICK
from proxy.transport import Connection, PinnedResolver, PooledTransport
from tests.fuzz.wires import Wire
from tests.transport.wired import ORIGIN, PATIENCE, WiredLoop, answer, ask, on_wires, pool, turns

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


# -- providers that speak first --

BUSY = answer(b"", 503, b"connection: close")


@pytest.mark.parametrize("words", [BUSY, b"220 hello\r\n", b""], ids=["an answer", "no HTTP", "a close"])
def test_a_provider_that_speaks_before_it_is_asked_costs_no_place(words: bytes) -> None:
    """What it says may come before who dialled goes on: as a connection that failed, it is counted no more, and nothing was asked."""

    def speak(wire: Wire) -> None:
        if words:
            wire.feed(words)
        wire.lose()

    async def main(loop: WiredLoop) -> None:
        transport, loop.greet = pool(connections=1), speak
        for _ in range(3):
            with pytest.raises(UpstreamError) as caught:
                await ask(transport)
            assert (caught.value.kind, caught.value.reached) == ("connect_failed", False)
        assert not any(wire.written for wire in loop.wires)
        loop.greet = lambda _: None
        healthy = asyncio.ensure_future(ask(transport))
        await turns()
        loop.wires[-1].feed(answer(b"yes"))
        assert await healthy == (200, b"yes")

    on_wires(main)


def test_an_address_that_speaks_before_it_is_asked_gives_way_to_the_next() -> None:
    async def main(loop: WiredLoop) -> None:
        transport = pool(addresses=("192.0.2.1", "192.0.2.2"))
        loop.greet = lambda wire: wire.feed(BUSY) if len(loop.wires) == 1 else None
        task = asyncio.ensure_future(ask(transport))
        await turns()
        loop.wires[1].feed(answer(b"yes"))
        assert await task == (200, b"yes")

    on_wires(main)


class Door:
    """A real server, which speaks as it accepts until it is `well`."""

    def __init__(self, words: bytes) -> None:
        self._words = words
        self.well = False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self.listener.accept()
                with peer, suppress(OSError):
                    if self.well:
                        peer.recv(65536)
                    peer.sendall(answer(b"yes", 200, b"connection: close") if self.well else self._words)

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(5)


def test_a_provider_that_has_spoken_first_for_a_while_is_reached_once_it_does_not() -> None:
    """On the loop that serves, which may deliver bytes before it says that a connection is made."""
    door = Door(BUSY)

    async def main() -> None:
        transport = PooledTransport(door.url, connections=2, keep_alive=60, resolver=PinnedResolver(allow_private=True))
        request = UpstreamRequest("POST", f"{door.url}/v1/x", {}, b"{}")
        brief = Timeouts(connect=2, first_token=2, idle=2, total=2)
        for _ in range(20):
            with suppress(UpstreamError):
                (await transport.send(request, brief)).close()
        door.well = True
        assert (await transport.send(request, brief)).status == 200
        await transport.close()

    try:
        uvloop.run(main())
    finally:
        door.stop()


# -- kept connections that were closed --


def test_a_connection_that_was_waited_for_is_replaced_too_where_it_had_been_closed() -> None:
    async def main(loop: WiredLoop) -> None:
        transport = pool(connections=1)
        first, second = (asyncio.ensure_future(ask(transport, body)) for body in (b"1", b"2"))
        await turns()
        loop.wires[0].feed(answer(b"one"))
        assert await first == (200, b"one")
        await turns()
        assert loop.wires[0].written.endswith(b"2"), "it has its turn on the same connection"
        loop.wires[0].lose(ConnectionResetError())
        await turns()
        loop.wires[1].feed(answer(b"two"))
        assert await second == (200, b"two")

    on_wires(main)


def test_what_is_sent_again_is_sent_on_a_connection_that_nobody_has_used_and_only_once() -> None:
    """Also where all places are taken: a second one that had been closed would be no better than the first."""

    async def main(loop: WiredLoop) -> None:
        transport, stale = pool(connections=1), 0

        def count() -> None:
            nonlocal stale
            stale += 1

        transport.stale = count
        first, again, third = (asyncio.ensure_future(ask(transport, body)) for body in (b"1", b"2", b"3"))
        await turns()
        loop.wires[0].feed(answer(b"one"))
        await turns()
        loop.wires[0].lose()
        await turns()
        taken = loop.wires[1]
        assert taken.written.endswith(b"3"), "who waited has the place"
        taken.feed(answer(b"three"))
        await turns()
        assert loop.wires[2].written.endswith(b"2") and taken.is_closing()
        loop.wires[2].lose()
        with pytest.raises(UpstreamError) as caught:
            await again
        assert (caught.value.kind, len(loop.wires), stale) == ("reset", 3, 1)
        assert (await first, await third) == ((200, b"one"), (200, b"three"))

    on_wires(main)


# -- what is late --


def is_sweeping(transport: PooledTransport) -> bool:
    return transport._sweeping is not None


def test_only_what_is_late_is_ended_and_nothing_is_looked_over_while_nothing_can_be_late() -> None:
    async def main(loop: WiredLoop) -> None:
        transport = pool()
        late, early = Timeouts(first_token=0.05, total=60), Timeouts(first_token=30, total=60)
        request = UpstreamRequest("POST", f"{ORIGIN}/v1/x", {}, b"{}")
        asked = [asyncio.ensure_future(transport.send(request, timeouts)) for timeouts in (late, early)]
        with pytest.raises(UpstreamError) as caught:
            await asked[0]
        assert caught.value.kind == "upstream_timeout"
        assert loop.wires[0].is_closing() and not loop.wires[1].is_closing()
        loop.wires[1].feed(answer(b"yes"))
        response = await asked[1]
        assert is_sweeping(transport)
        await asyncio.sleep(3 * TICK)
        assert not is_sweeping(transport), "nothing waits for a head any more"
        assert response.ready() == b"yes"
        response.close(reuse=True)
        again = asyncio.ensure_future(transport.send(request, late))
        with pytest.raises(UpstreamError):
            await again
        assert len(loop.wires) == 2 and loop.wires[1].is_closing()

    on_wires(main)


def test_an_end_that_does_not_come_is_not_waited_for_long() -> None:
    """What matters of the answer was read; the rest of its body has a second, also when nothing else has an end."""

    async def main(loop: WiredLoop) -> None:
        transport = pool()
        request = UpstreamRequest("POST", f"{ORIGIN}/v1/x", {}, b"{}")
        asking = asyncio.ensure_future(transport.send(request, PATIENCE))
        await turns()
        loop.wires[0].feed(answer(b"yes")[:-1])
        response = await asking
        await asyncio.sleep(3 * TICK)
        assert not is_sweeping(transport)
        response.close(reuse=True)
        assert not loop.wires[0].is_closing()
        async with asyncio.timeout(5):
            while not loop.wires[0].is_closing():
                await asyncio.sleep(TICK)

    on_wires(main)


class Slow:
    """A body that takes longer than a look at what is late does."""

    length: int | None = 4

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await asyncio.sleep(3 * TICK)
        yield b"body"

    def named(self, model: str) -> Slow:
        return self


def test_an_answer_to_an_upload_is_waited_for_as_long_as_any_also_where_the_whole_has_no_limit() -> None:
    async def main(loop: WiredLoop) -> None:
        request = UpstreamRequest("POST", f"{ORIGIN}/v1/x", {}, Slow())
        async with asyncio.timeout(10):
            with pytest.raises(UpstreamError) as caught:
                await pool().send(request, Timeouts(first_token=2 * TICK, total=None))
        assert caught.value.kind == "upstream_timeout"

    on_wires(main)


# -- closing --


def test_who_waits_for_an_answer_while_the_pool_is_closed_is_told_and_gets_no_other_ones() -> None:
    async def main(loop: WiredLoop) -> None:
        transport = pool()
        first = asyncio.ensure_future(ask(transport))
        await turns()
        loop.wires[0].feed(answer(b"yes"))
        assert await first == (200, b"yes")
        second = asyncio.ensure_future(ask(transport))
        await turns()
        await transport.close()
        with pytest.raises(UpstreamError) as caught:
            await asyncio.wait_for(second, 5)
        assert caught.value.kind == "reset"

    on_wires(main)


def test_who_waits_for_an_address_while_the_pool_is_closed_is_served_and_leaves_nothing() -> None:
    """Closing cancels no request, so none may find itself cancelled."""

    async def main(loop: WiredLoop) -> None:
        found = loop.create_future()
        transport = pool(lookup=found)
        waiting = [asyncio.ensure_future(ask(transport)) for _ in range(2)]
        await turns()
        await transport.close()
        found.set_result(None)
        await turns()
        for wire in loop.wires:
            wire.feed(answer(b"yes"))
        assert await asyncio.gather(*waiting) == [(200, b"yes")] * 2
        assert [wire.is_closing() for wire in loop.wires] == [True, True]

    on_wires(main)


# -- who waits --


def is_busy(wire: Wire) -> bool:
    connection = wire.protocol
    assert isinstance(connection, Connection)
    return connection.busy


async def served(loop: WiredLoop, order: list[int]) -> None:
    """Let the connection that was asked last answer."""
    before = len(order)
    for wire in loop.wires:
        if is_busy(wire) and not wire.is_closing():
            wire.feed(answer(b"{}"))
            break
    await turns()
    assert len(order) == before + 1


def numbered(transport: PooledTransport, order: list[int]) -> Callable[[int], asyncio.Future[None]]:
    """Requests by number; each is put into `order` when it has been answered."""

    async def one(number: int) -> None:
        await ask(transport)
        order.append(number)

    return lambda number: asyncio.ensure_future(one(number))


def test_who_has_waited_longest_is_served_next_and_nobody_who_comes_later() -> None:
    async def main(loop: WiredLoop) -> None:
        order: list[int] = []
        asking = numbered(pool(connections=1), order)
        asked = [asking(number) for number in range(3)]
        await turns()
        for number in range(3, 8):
            loop.wires[0].feed(answer(b"{}"))
            # Who comes in the turn in which a connection is free finds it taken.
            asked.append(asking(number))
            await asyncio.sleep(0)
            asked.append(asking(number + 100))
            await turns()
        while len(order) < len(asked):
            await served(loop, order)
        assert order == [0, 1, 2, 3, 103, 4, 104, 5, 105, 6, 106, 7, 107]
        assert len(loop.wires) == 1

    on_wires(main)


def test_a_place_that_is_free_is_that_of_who_has_waited_longest() -> None:
    async def main(loop: WiredLoop) -> None:
        order: list[int] = []
        asking = numbered(pool(connections=1), order)
        first, asked = asking(0), [asking(1), asking(2)]
        await turns()
        first.cancel()
        await asyncio.sleep(0)
        asked.append(asking(3))
        await turns()
        while len(order) < len(asked):
            await served(loop, order)
        assert order == [1, 2, 3]
        assert len(loop.wires) == 2, "one at a time"

    on_wires(main)


@pytest.mark.parametrize("gone", [False, True], ids=["a connection", "a place"])
def test_what_somebody_was_handed_who_has_left_goes_to_the_next(gone: bool) -> None:
    async def main(loop: WiredLoop) -> None:
        order: list[int] = []
        asking = numbered(pool(connections=1), order)
        first, leaving, last = (asking(number) for number in range(3))
        await turns()
        if gone:
            loop.wires[0].lose()
        else:
            loop.wires[0].feed(answer(b"{}"))
            while is_busy(loop.wires[0]):  # until it has been given back
                await asyncio.sleep(0)
        leaving.cancel()
        await turns()
        loop.wires[-1].feed(answer(b"{}"))
        await last
        assert leaving.cancelled() and order == ([2] if gone else [0, 2])
        assert len(loop.wires) == (2 if gone else 1)
        if gone:
            with pytest.raises(UpstreamError):
                await first

    on_wires(main)


def test_who_was_handed_a_connection_that_is_lost_in_that_moment_has_the_next_one() -> None:
    async def main(loop: WiredLoop) -> None:
        order: list[int] = []
        asking = numbered(pool(connections=1), order)
        asked = [asking(number) for number in range(3)]
        await turns()
        loop.wires[0].feed(answer(b"{}"))
        while is_busy(loop.wires[0]):  # until it has been given back
            await asyncio.sleep(0)
        loop.wires[0].lose()
        await turns()
        while len(order) < len(asked):
            await served(loop, order)
        assert sorted(order) == [0, 1, 2] and len(loop.wires) == 2

    on_wires(main)


def test_who_may_use_only_a_fresh_connection_takes_the_place_of_one_that_lies_idle() -> None:
    """It does not wait until somebody else has been served."""

    async def main(loop: WiredLoop) -> None:
        transport = pool(connections=2)
        both = [asyncio.ensure_future(ask(transport)) for _ in range(2)]
        await turns()
        for wire in loop.wires:
            wire.feed(answer(b"{}"))
        await asyncio.gather(*both)
        again = asyncio.ensure_future(ask(transport))
        await turns()
        asked = next(wire for wire in loop.wires if is_busy(wire))
        taking = asyncio.ensure_future(ask(transport))
        await turns()
        other = next(wire for wire in loop.wires if wire is not asked)
        # In one turn: another one takes the place that is left, and a connection comes back, before the lost one's request goes on.
        third = asyncio.ensure_future(ask(transport))
        other.feed(answer(b"{}"))
        asked.lose()
        await turns()
        assert (await taking, other.is_closing(), len(loop.wires)) == ((200, b"{}"), True, 4)
        for wire in loop.wires[2:]:
            wire.feed(answer(b"yes"))
        assert [await again, await third] == [(200, b"yes")] * 2

    on_wires(main)


def open_wires(loop: WiredLoop) -> list[Wire]:
    return [wire for wire in loop.wires if not wire.is_closing()]


def answer_all(loop: WiredLoop, dice: random.Random | None = None) -> None:
    """Answer what is asked, or some of it."""
    for wire in open_wires(loop):
        if is_busy(wire) and (dice is None or dice.random() < 0.5):
            wire.feed(answer(b"{}"))


def test_nobody_is_lost_and_no_place_whoever_comes_leaves_or_breaks() -> None:
    """By chance, but each time the same: requests that are asked, given up, answered and cut, more than there are connections."""

    async def main(loop: WiredLoop) -> None:
        dice, transport = random.Random(4), pool(connections=3)
        asked: list[asyncio.Future[tuple[int, bytes]]] = []
        moves: list[Callable[[], object]] = [
            lambda: asked.append(asyncio.ensure_future(ask(transport))),
            lambda: dice.choice(asked).cancel() if asked else None,
            lambda: dice.choice(open_wires(loop)).lose() if open_wires(loop) else None,
            lambda: answer_all(loop, dice),
        ]
        for _ in range(600):
            dice.choices(moves, weights=(5, 1, 1, 3))[0]()
            await turns(dice.choice((0, 0, 1, 2, 5)))
            assert len(open_wires(loop)) <= 3
        while not all(task.done() for task in asked):
            answer_all(loop)
            await asyncio.sleep(0)
        await turns()
        assert transport._open == len(transport._live) == len(open_wires(loop))
        assert not transport._waiting

    on_wires(main)
