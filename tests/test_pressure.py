"""Memory: when requests are shed, when they are taken again, and what is counted meanwhile."""

from __future__ import annotations

import resource

import pytest

from proxy.core.metrics import Registry
from proxy.pressure import Pressure, Resident, descriptors


@pytest.fixture
def shed() -> list[str | None]:
    return []


def test_above_the_limit_it_sheds_and_below_most_of_it_no_more(shed: list[str | None]):
    now = {"resident": 0}
    registry = Registry()
    pressure = Pressure(registry, shed.append, most=100, resident=lambda: now["resident"])
    seen = []
    for now["resident"] in (90, 101, 110, 99, 96, 94, 101):
        pressure.look()
        seen.append(registry.gauges["comporta_memory_shedding"].labels().value)
    assert seen == [0, 1, 1, 1, 1, 0, 1]
    assert [reason is not None for reason in shed] == [True, False, True]
    assert registry.gauges["comporta_resident_memory_bytes"].labels().value == 101


class Circle:
    """Garbage that only the collector finds, and what it weighs."""

    weight = 0

    def __init__(self) -> None:
        self.itself = self
        Circle.weight += 50

    def __del__(self) -> None:
        Circle.weight -= 50


def test_garbage_is_collected_before_anything_is_shed_and_while_it_is(shed: list[str | None]):
    Circle()
    pressure = Pressure(Registry(), shed.append, most=100, resident=lambda: 60 + Circle.weight)
    pressure.look()
    assert (shed, Circle.weight) == ([], 0)
    held = Circle()
    pressure.look()
    assert len(shed) == 1
    del held
    for _ in range(20):
        pressure.look()
    assert (shed[-1], Circle.weight) == (None, 0)


def test_without_a_limit_it_only_tells(shed: list[str | None]):
    pressure = Pressure(Registry(), shed.append, resident=lambda: 10**12)
    pressure.look()
    assert shed == []


def test_a_limit_that_is_taken_away_ends_the_shedding(shed: list[str | None]):
    pressure = Pressure(Registry(), shed.append, most=100, resident=lambda: 200)
    pressure.look()
    pressure.most = None
    pressure.look()
    assert shed[-1] is None and len(shed) == 2


def test_the_kernel_says_how_much_it_is():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 2**20 < Resident()() <= peak * 1.1


def test_as_many_descriptors_as_the_hard_limit_allows():
    assert descriptors() == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
