"""Writes that go out together: in which order, when, and which of them do not wait."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from proxy.outbox import Outbox


class Wire:
    """A transport of a shared line, which remembers what it was given."""

    def __init__(self, line: list[tuple[str, bytes]], name: str) -> None:
        self._line, self._name = line, name
        self.unsent = 0
        self.fails = self.aborted = False

    def write(self, data: bytes) -> None:
        if self.fails:
            raise RuntimeError
        self._line.append((self._name, data))

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def line() -> list[tuple[str, bytes]]:
    return []


def wires(line: list[tuple[str, bytes]], count: int) -> list[asyncio.Transport]:
    return [cast(Any, Wire(line, str(number))) for number in range(count)]


async def turn() -> None:
    await asyncio.sleep(0)


async def test_what_is_sent_in_one_turn_is_written_at_its_end_in_order(line: list[tuple[str, bytes]]):
    outbox = Outbox()
    a, b = wires(line, 2)
    for transport, data in ((b, b"1"), (a, b"2")):
        outbox.send(transport, data)
    assert not line
    await turn()
    assert line == [("1", b"1"), ("0", b"2")]


async def test_the_second_to_a_transport_does_not_wait_so_that_it_says_when_it_has_enough(line: list[tuple[str, bytes]]):
    outbox = Outbox()
    a, b = wires(line, 2)
    outbox.send(a, b"1")
    outbox.send(b, b"2")
    outbox.send(a, b"3")
    assert line == [("0", b"1"), ("1", b"2"), ("0", b"3")]
    cast(Any, b).unsent = 1
    outbox.send(b, b"4")
    assert line[3:] == [("1", b"4")], "its client has not read all yet"


async def test_a_transport_that_fails_is_cut_and_the_others_get_theirs(line: list[tuple[str, bytes]]):
    outbox = Outbox()
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    transports = wires(line, 3)
    failing = cast(Any, transports[1])
    failing.fails = True
    for transport in transports:
        outbox.send(transport, b"x")
    await turn()
    assert line == [("0", b"x"), ("2", b"x")]
    assert failing.aborted
    assert isinstance(told[0]["exception"], RuntimeError)
    outbox.send(transports[0], b"y")
    await turn()
    assert line[-1] == ("0", b"y"), "and it goes on"


async def test_a_flush_writes_what_waits_and_the_order_goes_on(line: list[tuple[str, bytes]]):
    outbox = Outbox()
    (a,) = wires(line, 1)
    outbox.send(a, b"1")
    outbox.flush()
    a.write(b"2")
    outbox.send(a, b"3")
    await turn()
    assert [data for _, data in line] == [b"1", b"2", b"3"]


async def test_nobody_waits_for_more_than_sixteen(line: list[tuple[str, bytes]]):
    outbox = Outbox()
    for transport in wires(line, 20):
        outbox.send(transport, b"x")
    assert len(line) == 16
    await turn()
    assert len(line) == 20


async def test_where_turns_have_few_writes_the_next_do_not_wait(line: list[tuple[str, bytes]]):
    outbox = Outbox()
    (a,) = wires(line, 1)
    outbox.send(a, b"first")
    await turn()
    line.clear()
    for count in range(1, 65):
        outbox.send(a, b"x")
        assert len(line) == count, "written at once"
    outbox.send(a, b"tried again")
    assert len(line) == 64
    await turn()
    assert line[-1] == ("0", b"tried again")


async def test_where_turns_have_many_writes_they_wait_for_each_other_turn_after_turn(line: list[tuple[str, bytes]]):
    outbox = Outbox()
    for number in range(1, 10):
        for transport in wires(line, 5):
            outbox.send(transport, b"x")
        assert len(line) == 5 * (number - 1)
        await turn()


async def test_a_turn_that_was_flushed_midway_counts_as_a_whole(line: list[tuple[str, bytes]]):
    outbox = Outbox()
    for transport in wires(line, 17):
        outbox.send(transport, b"x")
    await turn()
    line.clear()
    outbox.send(wires(line, 1)[0], b"x")
    assert not line, "the turn before had seventeen writes, of which one was left"
    await turn()
    assert len(line) == 1


async def test_what_may_fill_a_transport_is_written_at_once_and_after_what_came_before(line: list[tuple[str, bytes]]):
    outbox = Outbox()
    a, b = wires(line, 2)
    large = b"x" * 65536
    outbox.send(a, b"1")
    outbox.send(b, large)
    assert line == [("0", b"1"), ("1", large)]
    await turn()
    assert len(line) == 2


async def test_a_transport_that_is_lost_gets_nothing_and_the_others_get_theirs(line: list[tuple[str, bytes]]):
    outbox = Outbox()
    a, b = wires(line, 2)
    outbox.send(a, b"1")
    outbox.send(b, b"2")
    outbox.drop(a)
    await turn()
    assert line == [("1", b"2")]
