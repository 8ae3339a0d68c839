"""What the supervisor asks of a worker, over a channel whose other end the test holds."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.channel import Channel
from proxy.sockets import bind
from proxy.supervisor import Slot


class Place:
    """A slot, and the end of its channel that a worker would have."""

    def __init__(self, slot: Slot, worker: Channel) -> None:
        self.slot = slot
        self.worker = worker

    async def asked(self) -> tuple[str, Any] | None:
        async with asyncio.timeout(5.0):
            return await self.worker.receive()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    slot = Slot(0, bind("127.0.0.1", 0), given=False, heard=lambda _slot, _name, _value: None)
    ours, theirs = socket.socketpair()
    slot.channel, worker = await Channel.over(ours), await Channel.over(theirs)
    yield Place(slot, worker)
    await slot.channel.close()
    await worker.close()
    slot.close()


async def test_what_was_not_answered_in_time_is_asked_again(place: Place):
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await place.slot.ask("standing", None, "standing", 0.01)
        assert await place.asked() == ("standing", None)


async def test_what_many_want_to_know_at_once_is_asked_once(place: Place):
    many = await asyncio.gather(*(place.slot.ask("standing", None, "standing", 0.01) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in many] == [TimeoutError] * 3
    place.slot.tell("end")
    assert [await place.asked() for _ in range(2)] == [("standing", None), ("end", None)]


async def test_an_answer_that_is_too_late_for_the_first_who_asked_is_there_for_those_who_wait_on(place: Place):
    impatient = asyncio.create_task(place.slot.ask("standing", None, "standing", 0.01))
    await asyncio.sleep(0)
    patient = asyncio.create_task(place.slot.ask("standing", None, "standing", 5.0))
    with pytest.raises(TimeoutError):
        await impatient
    place.slot._heard("standing", {"pressure": 1})
    assert await patient == {"pressure": 1}
    assert await place.asked() == ("standing", None)


async def test_who_asks_after_one_who_gave_up_asks_once_more_and_only_once(place: Place):
    with pytest.raises(TimeoutError):
        await place.slot.ask("standing", None, "standing", 0.01)
    many = [asyncio.create_task(place.slot.ask("standing", None, "standing", 5.0)) for _ in range(3)]
    await asyncio.sleep(0)
    place.slot._heard("standing", {"pressure": 1})
    assert await asyncio.gather(*many) == [{"pressure": 1}] * 3
    again = asyncio.create_task(place.slot.ask("standing", None, "standing", 5.0))
    await asyncio.sleep(0)
    place.slot._heard("standing", {"pressure": 2})
    assert await again == {"pressure": 2}
    place.slot.tell("end")
    assert [await place.asked() for _ in range(4)] == [("standing", None)] * 3 + [("end", None)]
