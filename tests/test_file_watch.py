"""A configuration's file that changes is read again: once for each change, and not while it is being written."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.reload import FileWatch
from proxy.settings import mark_of

EVERY = 0.02


class Reloads:
    def __init__(self) -> None:
        self.count = 0
        self.happened = asyncio.Event()

    async def __call__(self) -> bool:
        self.count += 1
        self.happened.set()
        return True

    async def next(self) -> None:
        async with asyncio.timeout(10):
            await self.happened.wait()
        self.happened.clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "gateway.yaml"
    found.write_text("one")
    return found


@pytest.fixture
async def reloads(file: Path) -> AsyncIterator[Reloads]:
    found = Reloads()
    watch = FileWatch(file, mark_of(file), found, every=EVERY)
    watch.start()
    await asyncio.sleep(3 * EVERY)
    yield found
    watch.stop()


async def test_a_file_that_stays_as_it_is_is_not_read_again(reloads: Reloads):
    await asyncio.sleep(5 * EVERY)
    assert reloads.count == 0


async def test_a_change_is_read_once(file: Path, reloads: Reloads):
    file.write_text("another")
    await reloads.next()
    await asyncio.sleep(5 * EVERY)
    assert reloads.count == 1


async def test_a_file_that_takes_the_others_place_is_read(file: Path, reloads: Reloads, tmp_path: Path):
    fresh = tmp_path / "fresh"
    fresh.write_text("one")
    os.replace(fresh, file)
    await reloads.next()
    assert reloads.count == 1


async def test_a_file_that_is_away_for_a_while_is_waited_for(file: Path, reloads: Reloads):
    file.unlink()
    await asyncio.sleep(3 * EVERY)
    assert reloads.count == 0
    file.write_text("back")
    await reloads.next()
    assert reloads.count == 1


async def test_a_change_after_it_was_read_and_before_the_first_look_is_read(file: Path):
    known, found = mark_of(file), Reloads()
    file.write_text("another")
    watch = FileWatch(file, known, found, every=EVERY)
    watch.start()
    await found.next()
    watch.stop()
