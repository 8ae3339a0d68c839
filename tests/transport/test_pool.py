"""The pool: which connection serves next, which never again, and when a request is sent once more."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import uvloop

from proxy.core.call import Timeouts
from proxy.core.errors import ClientError, UpstreamError
from proxy.core.protocols import UpstreamRequest
from proxy.sweeper import TICK
from proxy.transport import PinnedResolver, PooledTransport
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
