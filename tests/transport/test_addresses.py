"""Names that are looked up: each on a thread of its own, so that no name waits for another one."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from proxy.transport import PinnedResolver
from proxy.transport.addresses import look_up

HEALTHY = "healthy.example"


class NameServer:
    """Answers for one name; whoever asks for another one is held until `released`."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.threads: list[threading.Thread] = []

    def __call__(self, host: str, port: int, **_options: Any) -> list[Any]:
        if host != HEALTHY:
            self.threads.append(threading.current_thread())
            assert self.released.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]


@pytest.fixture
def server() -> Iterator[NameServer]:
    made = NameServer()
    yield made
    made.released.set()
    for thread in made.threads:
        thread.join()


@pytest.fixture
def resolver(server: NameServer) -> PinnedResolver:
    return PinnedResolver(allow_private=True, lookup=partial(look_up, ask=server))


async def test_names_that_hang_keep_no_other_waiting(server: NameServer, resolver: PinnedResolver) -> None:
    hanging = [asyncio.ensure_future(resolver.resolve(f"{number}.example", 443)) for number in range(40)]
    async with asyncio.timeout(10):
        [found] = await resolver.resolve(HEALTHY, 443)
    assert (found["host"], found["port"]) == ("192.0.2.1", 443)
    assert not any(each.done() for each in hanging)
    server.released.set()
    failures = await asyncio.gather(*hanging, return_exceptions=True)
    assert {getattr(failure, "errno", None) for failure in failures} == {socket.EAI_AGAIN}


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
