"""Who leaves while nothing is read from its connection, and who only ends its own side."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest

from proxy.http.departures import Departures
from proxy.http.server import Connection
from proxy.ticks import TICK
from tests.support.raw_client import LINGER_ZERO


class Paused:
    """A connection whose reading is paused, as much as is asked of one. `missing`: bytes that its request still needs."""

    def __init__(self, missing: int = 0, *, is_secure: bool = False) -> None:
        self.client, self.socket = _pair()
        self.is_secure = is_secure
        self.told: list[str] = []
        self._missing = missing

    def get_extra_info(self, name: str) -> Any:
        return {"socket": self.socket}.get(name)

    def abort_body(self) -> None:
        self.told.append("cut")

    def end(self) -> None:
        self.told.append("ended")

    def ends_after(self, unread: int) -> bool:
        return Connection.ends_after(cast(Connection, self), unread)

    def reset(self) -> None:
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        self.client.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        return client, listening.accept()[0]


@pytest.fixture
def kept() -> Iterator[list[Paused]]:
    """What is put here is closed at the end."""
    found: list[Paused] = []
    yield found
    for each in found:
        each.client.close()
        each.socket.close()


def watch(departures: Departures, paused: Paused, kept: list[Paused]) -> None:
    kept.append(paused)
    departures.watch(cast(Connection, paused), cast(asyncio.Transport, paused))


async def looked() -> None:
    await asyncio.sleep(TICK * 2.5)


async def test_a_reset_is_seen_behind_whatever_is_unread(kept: list[Paused]) -> None:
    departures, paused = Departures(), Paused()
    watch(departures, paused, kept)
    paused.client.sendall(b"x" * 1000)
    await looked()
    assert paused.told == []
    paused.reset()
    await looked()
    assert paused.told == ["cut"]
    assert not len(departures)


@pytest.mark.parametrize(
    ("missing", "unread", "told"),
    [(0, 0, ["ended"]), (2000, 1000, ["ended"]), (0, 1000, []), (1000, 1000, []), (-1, 1000, [])],
    ids=["all was read", "the rest never comes", "more requests are unread", "the rest is unread", "who knows what is unread"],
)
async def test_an_end_is_a_departure_where_it_is_certain(kept: list[Paused], missing: int, unread: int, told: list[str]) -> None:
    departures, paused = Departures(), Paused(missing)
    watch(departures, paused, kept)
    paused.client.sendall(b"x" * unread)
    paused.client.shutdown(socket.SHUT_WR)
    await looked()
    assert paused.told == told
    assert len(departures) == (not told), "who may still read is looked after further"


async def test_an_end_below_tls_is_a_departure(kept: list[Paused]) -> None:
    departures, paused = Departures(), Paused(is_secure=True)
    watch(departures, paused, kept)
    paused.client.sendall(b"x" * 1000)
    paused.client.close()
    await looked()
    assert paused.told == ["cut"]


async def test_whose_reading_goes_on_is_not_looked_after(kept: list[Paused]) -> None:
    departures, reads, stays = Departures(), Paused(), Paused()
    for each in (reads, stays):
        watch(departures, each, kept)
    departures.forget(cast(Connection, reads))
    departures.forget(cast(Connection, reads))
    reads.reset()
    await looked()
    assert (reads.told, stays.told, len(departures)) == ([], [], 1)


async def test_a_descriptor_that_is_anothers_now_stays_watched(kept: list[Paused]) -> None:
    departures, before, after = Departures(), Paused(), Paused()
    watch(departures, before, kept)
    after.socket.close()
    after.socket = before.socket
    watch(departures, after, kept)
    departures.forget(cast(Connection, before))
    before.reset()
    await looked()
    assert (before.told, after.told) == ([], ["cut"])
