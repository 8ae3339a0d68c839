"""What several workers know of the last requests is one list; one that says nothing in time leaves the others' words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.core.recent import Recent
from proxy.recollection import Recollection, Recollections
from tests.core.doubles import HandClock, make_call


class Fake:
    """A worker that answers out of its own memory, or not at all."""

    def __init__(self, number: int, *requests: tuple[str, float], state: str = "ready", is_silent: bool = False) -> None:
        recent = Recent(10)
        for id, started in requests:
            recent.note(make_call(id=id, started=started), 200, "ok", None, started + 1.0)
        self.number = number
        self.state = state
        self.waiting: set[str] = set()
        self._is_silent = is_silent
        self._knows = Recollection(recent, HandClock(1000.0))

    async def ask(self, name: str, value: Any, answer: str, patience: float) -> Any:
        assert (name, value[0], patience) == ("recent", answer, 1.0)
        self.waiting.add(answer)
        if self._is_silent:
            raise TimeoutError
        await asyncio.sleep(0)
        return await self._knows.answer(*value[1:])

    def forget(self, answer: str) -> None:
        self.waiting.remove(answer)


@pytest.fixture
def workers() -> list[Fake]:
    return [
        Fake(0, ("a", 1001.0), ("c", 1003.0)),
        Fake(1, ("b", 1002.0), ("d", 1004.0)),
        Fake(2, ("e", 1005.0), is_silent=True),
        Fake(3, ("f", 1006.0), state="starting"),
    ]


async def test_the_newest_of_all_workers_come_first(workers: list[Fake]):
    found = await Recollections(workers).requests(3)
    assert [(each["id"], each["worker"]) for each in found] == [("d", 1), ("c", 0), ("b", 1)]


async def test_a_request_is_explained_by_the_worker_that_served_it(workers: list[Fake]):
    known = Recollections(workers)
    told = await asyncio.gather(*(known.explain(id) for id in ("a", "b", "x")))
    assert [None if each is None else (each["id"], each["worker"]) for each in told] == [("a", 0), ("b", 1), None]


async def test_who_asks_leaves_nothing_behind(workers: list[Fake]):
    known = Recollections(workers)
    await asyncio.gather(known.explain("a"), known.explain("e"), known.requests(5))
    assert [worker.waiting for worker in workers] == [set()] * 4


async def test_times_are_told_since_1970():
    worker = Fake(0, ("a", 1001.0))
    [told] = await Recollections([worker]).requests(1)
    assert told["at"] == 1_700_000_000.0 + 1001.0
