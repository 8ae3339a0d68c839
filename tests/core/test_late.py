"""What is made for the first who asks for it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from proxy.core.late import Late


async def test_it_is_made_once_for_all_who_ask_at_the_same_time():
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    late = Late(make)
    assert made == []
    found = await asyncio.gather(late(), late(), late())
    assert list(found) == made * 3
    assert await late() is made[0]


async def test_requests_go_on_while_it_is_made():
    loops_turn = threading.Event()

    def make() -> bool:
        return loops_turn.wait(10)

    late = Late(make)
    asked = asyncio.ensure_future(late())
    await asyncio.sleep(0)
    loops_turn.set()
    assert await asked


async def test_where_it_could_not_be_made_the_next_who_asks_has_it_tried_again():
    reasons = ["not now"]

    def make() -> str:
        if reasons:
            raise RuntimeError(reasons.pop())
        return "made"

    late = Late(make)
    with pytest.raises(RuntimeError, match="not now"):
        await late()
    assert await late() == "made"


async def test_who_leaves_while_it_is_made_spoils_it_for_nobody():
    left = threading.Event()

    def make() -> str:
        left.wait(10)
        return "made"

    late = Late(make)
    first = asyncio.ensure_future(late())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    left.set()
    assert await late() == "made"
