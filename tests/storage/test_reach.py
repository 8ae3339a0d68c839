"""What is said of a database that comes and goes."""

from __future__ import annotations

import pytest

from proxy.core.errors import CapacityError
from proxy.core.metrics import Registry
from proxy.storage.reach import Reach
from tests.support.log import logged


async def test_that_the_database_is_away_is_said_once_and_that_it_is_back_too():
    reach = Reach(metrics := Registry())
    gauge = metrics.gauge("comporta_storage_degraded", "").labels()
    is_away = True

    async def find(id: str) -> str:
        if is_away:
            raise CapacityError("away", detail="refused")
        return id

    asked = reach.noted(find)
    with logged() as lines:
        for _ in range(3):
            with pytest.raises(CapacityError):
                await asked("x")
        assert gauge.value == 1
        is_away = False
        assert [await asked("x"), await asked("y")] == ["x", "y"]
    assert gauge.value == 0
    assert [line["event"] for line in lines] == ["storage_unreachable", "storage_reachable"]
