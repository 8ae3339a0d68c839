"""How many connections there may be, in all and from one address."""

from __future__ import annotations

import gc
import inspect
from typing import Any

import pytest

from proxy.http.forwarded import Proxies
from proxy.http.listener import Listener
from proxy.http.server import Answer, Connection
from proxy.sockets import bind


def _handled(_connection: Connection) -> Answer:
    raise AssertionError("nothing is answered here")


def _refused(*_args: Any) -> None:
    """Nothing is answered here."""


def listener(most: int, most_per_address: int) -> Listener:
    return Listener(_handled, _refused, most=most, most_per_address=most_per_address, options={})


async def test_connections_are_bounded_in_all():
    found = listener(2, 10)
    assert [found.admit(address) for address in ("a", "b", "c")] == [True, True, False]
    found.leave("a")
    assert found.admit("c")


async def test_connections_are_bounded_by_address():
    found = listener(10, 2)
    assert [found.admit(address) for address in ("a", "a", "a", "b")] == [True, True, False, True]
    found.leave("a")
    assert found.admit("a")


async def test_a_trusted_proxy_is_bounded_only_with_all_others():
    found = listener(4, 1)
    found.proxies = Proxies(["10.0.0.0/8"])
    assert [found.admit(address) for address in ("10.0.0.1", "10.0.0.1", "192.0.2.1", "192.0.2.1")] == [True, True, True, False]
    assert [found.admit("10.0.0.1") for _ in range(2)] == [True, False]


async def test_a_refused_connection_counts_for_nothing():
    found = listener(2, 1)
    assert found.admit("a")
    for _ in range(5):
        assert not found.admit("a")
    assert found.admit("b")
    assert not found.admit("c")


async def test_addresses_that_have_left_are_forgotten():
    found = listener(10, 10)
    for address in map(str, range(1000)):
        assert found.admit(address)
        found.leave(address)
    assert not found._addresses


@pytest.mark.parametrize("host", ["127.0.0.1"])
def test_port_0_is_any_free_port(host: str):
    with bind(host, 0) as one, bind(host, 0) as other:
        assert one.getsockname()[1] != other.getsockname()[1] != 0
        assert not one.getblocking()


def test_a_port_that_is_taken_is_refused():
    with bind("127.0.0.1", 0) as one:
        with pytest.raises(OSError, match="in use"):
            bind("127.0.0.1", one.getsockname()[1])
        gc.collect()


def test_the_listener_says_what_bounds_it():
    assert {"most", "most_per_address"} <= set(inspect.signature(Listener).parameters)
