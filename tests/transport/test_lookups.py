"""Names that are looked up: each on a thread of its own, and so many at once that none of them waits for those that hang."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.transport import PinnedResolver
from proxy.transport.lookups import Lookups

HEALTHY = "healthy.example"


class NameServer:
    """Answers for one name; whoever asks for another one is held until `released`."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.threads: list[threading.Thread] = []
        self.most = 0
        self._held = 0
        self._lock = threading.Lock()

    def __call__(self, host: str, port: int, **_options: Any) -> list[Any]:
        if host != HEALTHY:
            self._hold(1)
            assert self.released.wait(30)
            self._hold(-1)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]

    def _hold(self, change: int) -> None:
        with self._lock:
            if change > 0:
                self.threads.append(threading.current_thread())
            self._held += change
            self.most = max(self.most, self._held)


@pytest.fixture
def server() -> Iterator[NameServer]:
    made = NameServer()
    yield made
    made.released.set()
    for thread in made.threads:
        thread.join()


@pytest.fixture
def resolver(server: NameServer) -> PinnedResolver:
    return PinnedResolver(allow_private=True, lookup=Lookups(server))


def asked(resolver: PinnedResolver, names: int) -> list[asyncio.Future[Any]]:
    return [asyncio.ensure_future(resolver.resolve(f"{number}.example", 443)) for number in range(names)]


async def failures(asked: list[asyncio.Future[Any]]) -> list[int | None]:
    return [getattr(failure, "errno", None) for failure in await asyncio.gather(*asked, return_exceptions=True)]


async def test_names_that_hang_keep_no_other_waiting(server: NameServer, resolver: PinnedResolver) -> None:
    hanging = asked(resolver, 20)
    async with asyncio.timeout(10):
        [found] = await resolver.resolve(HEALTHY, 443)
    assert (found["host"], found["port"]) == ("192.0.2.1", 443)
    assert not any(each.done() for each in hanging)
    server.released.set()
    assert await failures(hanging) == [socket.EAI_AGAIN] * 20


async def test_so_many_names_are_looked_up_at_once_and_the_others_after_them(server: NameServer, resolver: PinnedResolver) -> None:
    hanging = asked(resolver, 100)
    await asyncio.sleep(0)
    server.released.set()
    async with asyncio.timeout(10):
        assert await failures(hanging) == [socket.EAI_AGAIN] * 100
    assert (len(server.threads), server.most <= 32) == (100, True)


async def test_names_that_were_not_found_leave_places_to_the_others(server: NameServer, resolver: PinnedResolver) -> None:
    server.released.set()
    await failures(asked(resolver, 40))
    server.released.clear()
    hanging = asked(resolver, 40)
    async with asyncio.timeout(10):
        assert await resolver.resolve(HEALTHY, 443)
    assert not any(each.done() for each in hanging)
    server.released.set()
    assert await failures(hanging) == [socket.EAI_AGAIN] * 40


async def test_who_asks_for_a_name_that_is_being_looked_up_waits_for_the_same_answer(server: NameServer, resolver: PinnedResolver) -> None:
    hanging = [*asked(resolver, 1), *asked(resolver, 1), *asked(resolver, 1)]
    await asyncio.sleep(0)
    hanging[0].cancel()
    server.released.set()
    async with asyncio.timeout(10):
        assert (await failures(hanging))[1:] == [socket.EAI_AGAIN] * 2
        assert await failures(asked(resolver, 1)) == [socket.EAI_AGAIN]
    assert len(server.threads) == 2


async def test_who_leaves_waits_for_no_name_and_neither_does_the_processs_end(server: NameServer, resolver: PinnedResolver) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(resolver.resolve("hangs.example", 443), 0.01)
    assert [thread.daemon for thread in server.threads] == [True]
    server.released.set()
    assert await resolver.resolve(HEALTHY, 443), "the answer that came too late harms nothing"


@pytest.mark.parametrize("literal", ["192.0.2.7", "2001:db8::7"])
async def test_a_literal_address_is_not_looked_up(server: NameServer, resolver: PinnedResolver, literal: str) -> None:
    [found] = await resolver.resolve(literal, 443)
    assert (found["host"], server.threads) == (literal, [])
