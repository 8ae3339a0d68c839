"""The watchdog: a loop that stands still is seen, with the place where it stands."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator

import pytest

from proxy.core.metrics import Registry
from proxy.loop import BLOCKED, LagMeter, Watchdog, stack_of

Told = list[tuple[float, list[str]]]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
async def meter(registry: Registry, told: Told) -> AsyncIterator[LagMeter]:
    found = LagMeter(registry)
    watchdog = Watchdog(found, registry, tell=lambda seconds, stack: told.append((seconds, stack)))
    found.start()
    watchdog.start()
    yield found
    watchdog.stop()
    found.stop()


def _blocked(registry: Registry) -> float:
    return registry.counters["comporta_event_loop_blocked_total"].labels().value


def _stand_still(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_loop_that_stands_still_is_told_with_its_place(meter: LagMeter, registry: Registry, told: Told):
    await asyncio.sleep(0.15)
    _stand_still(BLOCKED + 0.2)
    await asyncio.sleep(0.15)
    assert _blocked(registry) == 1
    ((seconds, stack),) = told
    assert seconds >= BLOCKED
    file, line, function = stack[-1].rsplit(":", 2)
    assert (file, function) == (__file__, "_stand_still")
    assert int(line) == _stand_still.__code__.co_firstlineno + 1
    lag = registry.histograms["comporta_event_loop_lag_seconds"].labels()
    assert lag.total > BLOCKED


async def test_a_loop_that_moves_is_left_alone(meter: LagMeter, registry: Registry, told: Told):
    for _ in range(4):
        _stand_still(0.08)
        await asyncio.sleep(0.15)
    assert (_blocked(registry), told) == (0, [])


async def test_what_hid_the_loop_from_the_thread_is_counted_afterwards(registry: Registry, told: Told):
    meter = LagMeter(registry)
    watchdog = Watchdog(meter, registry, tell=lambda seconds, stack: told.append((seconds, stack)))
    watchdog._was_late(1.0, 0.4)
    assert (_blocked(registry), told) == (1, [(0.4, [])])


async def test_the_same_stand_is_counted_once(registry: Registry, told: Told):
    meter = LagMeter(registry)
    watchdog = Watchdog(meter, registry, tell=lambda seconds, stack: told.append((seconds, stack)))
    watchdog._note(1.0, 0.3, ["here"])
    watchdog._was_late(1.0, 0.4)
    assert _blocked(registry) == 1


async def test_tasks_that_have_not_ended_are_counted(meter: LagMeter, registry: Registry):
    gauge, before = registry.gauges["comporta_tasks"].labels(), len(asyncio.all_tasks())
    waiting = [asyncio.create_task(asyncio.sleep(60)) for _ in range(7)]
    await asyncio.sleep(0.15)  # the first beat counts them
    assert gauge.value == before + 7
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    await asyncio.sleep(1.1)
    assert gauge.value == before


def test_a_stack_holds_names_and_no_values():
    secret = "not-to-be-told"
    stack = stack_of(inspect.currentframe())
    assert stack[-1].rsplit(":", 2)[2] == "test_a_stack_holds_names_and_no_values"
    assert secret not in "".join(stack)
    assert stack_of(None) == []
