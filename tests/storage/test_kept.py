"""Answers in memory: how long, for whom, and what happens while the database is away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.core.errors import CapacityError
from proxy.storage.kept import Keeping, Kept
from tests.core.doubles import HandClock


class Source:
    """A database in one dictionary."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.asked = 0
        self.is_away = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def look_up(self, key: str) -> str:
        self.asked += 1
        await self.answers.wait()
        if self.is_away:
            raise CapacityError("away")
        return self.values.get(key, "")


class Desk:
    """A `Kept` that asks a `Source`."""

    def __init__(self, **keeping: Any) -> None:
        self.clock = HandClock()
        self.source = Source()
        self.kept: Kept[str, str] = Kept(self.clock, Keeping(**keeping), lambda answer: answer == "")

    async def find(self, key: str) -> str:
        return await self.kept.find(key, lambda: self.source.look_up(key))


async def _turns() -> None:
    """Let whatever can go on do so: a task starts in the next turn of the loop."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_answer_is_used_while_it_is_fresh_and_then_asked_for_again() -> None:
    desk = Desk()
    desk.source.values["k"] = "old"
    assert desk.kept.recall("k") is None
    assert await desk.find("k") == "old"
    desk.source.values["k"] = "new"
    desk.clock.move(9.9)
    assert desk.kept.recall("k") == await desk.find("k") == "old"
    desk.clock.move(0.1)
    assert desk.kept.recall("k") is None
    assert await desk.find("k") == "new"
    assert desk.source.asked == 2


async def test_what_many_ask_for_is_looked_up_once() -> None:
    desk = Desk()
    desk.source.values["k"] = "v"
    assert await asyncio.gather(*(desk.find("k") for _ in range(50))) == ["v"] * 50
    assert desk.source.asked == 1


async def test_one_who_leaves_takes_nothing_from_the_others() -> None:
    desk = Desk()
    desk.source.values["k"] = "v"
    desk.source.answers.clear()
    leader, follower = asyncio.create_task(desk.find("k")), asyncio.create_task(desk.find("k"))
    await _turns()
    leader.cancel()
    await _turns()
    desk.source.answers.set()
    assert await follower == "v"
    assert leader.cancelled()
    assert desk.source.asked == 1


async def test_while_the_database_is_away_what_is_known_serves_for_a_bounded_time() -> None:
    desk = Desk()
    desk.source.values["k"] = "v"
    await desk.find("k")
    desk.source.is_away = True
    desk.clock.move(299.0)
    assert await desk.find("k") == "v"
    desk.clock.move(1.0)
    with pytest.raises(CapacityError):
        await desk.find("k")


async def test_a_database_that_is_away_is_left_alone_for_a_while() -> None:
    desk = Desk()
    desk.source.values["k"] = "v"
    await desk.find("k")
    desk.source.is_away = True
    desk.clock.move(11.0)
    assert await desk.find("k") == "v"
    assert desk.kept.recall("k") == "v"
    with pytest.raises(CapacityError) as refused:
        await desk.find("unknown")
    assert (refused.value.status, refused.value.code) == (503, "storage_unavailable")
    assert desk.source.asked == 2
    desk.clock.move(1.0)
    assert desk.kept.recall("k") is None
    desk.source.is_away, desk.source.values["k"] = False, "new"
    assert await desk.find("k") == "new"


async def test_a_slow_database_does_not_hold_up_who_has_an_old_answer() -> None:
    desk = Desk(patience=0.01)
    desk.source.values["k"] = "old"
    await desk.find("k")
    desk.clock.move(11.0)
    desk.source.answers.clear()
    assert await desk.find("k") == "old"
    desk.source.values["k"] = "new"
    desk.source.answers.set()
    assert await desk.find("k") == "new"
    assert desk.source.asked == 2


async def test_what_is_forgotten_is_asked_for_again_also_if_its_answer_was_on_the_way() -> None:
    desk = Desk()
    desk.source.values["k"] = "v"
    desk.source.answers.clear()
    before = asyncio.create_task(desk.find("k"))
    await _turns()
    desk.kept.forget(lambda key, _: key == "k")
    after = asyncio.create_task(desk.find("k"))
    await _turns()
    assert desk.source.asked == 2
    desk.source.answers.set()
    assert await before == await after == "v"
    desk.kept.forget(lambda key, _: key == "k")
    assert desk.kept.recall("k") is None


async def test_the_one_not_asked_for_longest_goes_first() -> None:
    desk = Desk(size=2)
    desk.source.values.update(a="1", b="2", c="3")
    for key in ("a", "b"):
        await desk.find(key)
    desk.kept.recall("a")
    await desk.find("c")
    assert [desk.kept.recall(key) for key in ("a", "b", "c")] == ["1", None, "3"]
    assert len(desk.kept) == 2


async def test_strangers_are_remembered_shortly_and_push_out_nobody() -> None:
    desk = Desk(size=2)
    desk.source.values["a"] = "1"
    await desk.find("a")
    for number in range(100):
        assert await desk.find(f"stranger-{number}") == ""
    assert desk.kept.recall("a") == "1"
    asked = desk.source.asked
    assert await desk.find("stranger-99") == ""
    assert desk.source.asked == asked
    desk.clock.move(2.0)
    desk.source.values["stranger-99"] = "known now"
    assert await desk.find("stranger-99") == "known now"


async def test_strangers_are_remembered_in_bounded_number() -> None:
    desk = Desk(size=10, guesses=10_000)
    for number in range(1000):
        await desk.find(f"stranger-{number}")
    asked = desk.source.asked
    for number in range(1000):
        await desk.find(f"stranger-{number}")
    assert desk.source.asked == 2 * asked, "the oldest of them are asked for again: they were not remembered"
    for number in range(990, 1000):
        await desk.find(f"stranger-{number}")
    assert desk.source.asked == 2 * asked


async def test_of_what_is_unknown_only_so_much_is_asked_and_more_after_a_while() -> None:
    desk = Desk(guesses=3, per_second=2.0)
    for number in range(3):
        assert await desk.find(f"stranger-{number}") == ""
    with pytest.raises(CapacityError):
        await desk.find("stranger-3")
    assert desk.source.asked == 3
    assert await desk.find("stranger-0") == "", "what is remembered costs nothing"
    desk.clock.move(0.5)
    assert await desk.find("stranger-3") == ""
    with pytest.raises(CapacityError):
        await desk.find("stranger-4")


async def test_those_who_are_known_are_asked_for_without_bound_and_again_whoever_guesses() -> None:
    desk = Desk(guesses=3, per_second=0.001)
    desk.source.values.update({f"k{number}": "v" for number in range(50)})
    for number in range(50):
        assert await desk.find(f"k{number}") == "v"
    for number in range(3):
        await desk.find(f"stranger-{number}")
    desk.clock.move(11.0)
    assert await desk.find("k0") == "v"
    assert desk.source.asked == 54


async def test_a_database_that_is_away_does_not_use_up_what_may_be_asked() -> None:
    desk = Desk(guesses=2, per_second=0.001, pause=0.0)
    desk.source.is_away = True
    for number in range(10):
        with pytest.raises(CapacityError):
            await desk.find(f"k{number}")
    assert desk.source.asked == 10
    desk.source.is_away = False
    assert await desk.find("stranger") == ""


async def test_one_who_is_unknown_now_is_not_known_from_before() -> None:
    desk = Desk()
    desk.source.values["k"] = "v"
    await desk.find("k")
    del desk.source.values["k"]
    desk.clock.move(11.0)
    assert await desk.find("k") == ""
    desk.source.is_away = True
    desk.clock.move(3.0)
    with pytest.raises(CapacityError):
        await desk.find("k")


async def test_closing_gives_up_what_is_on_its_way() -> None:
    desk = Desk()
    desk.source.answers.clear()
    waiting = asyncio.create_task(desk.find("k"))
    await _turns()
    await desk.kept.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
