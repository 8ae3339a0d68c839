"""The storage of a supervisor: opened for the first administrator who needs it, and for nobody any more once the gateway ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from proxy.app import Cabinet
from proxy.core.errors import CapacityError
from proxy.core.metrics import Registry
from proxy.settings import Settings, load
from proxy.supervisor import Supervisor

SIM = 'server: {listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0"}\nproviders:\n  sim: {kind: sim}\n'


class Workers:
    """As much of a supervisor as a cabinet sees: workers that take a configuration once `ready` is set, if there is no `refusal`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Registry()
        self.state = "ready"
        self.asked = asyncio.Event()
        self.ready = asyncio.Event()
        self.refusal: RuntimeError | None = None

    async def reload(self, settings: Settings) -> None:
        self.asked.set()
        await self.ready.wait()
        if self.refusal is not None:
            raise self.refusal
        self.settings = settings


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workers:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    file = tmp_path / "gateway.yaml"
    file.write_text(SIM)
    return Workers(load(file, {}, {}).settings)


@pytest.fixture
def cabinet(workers: Workers) -> Cabinet:
    return Cabinet(cast(Supervisor, workers))


async def test_workers_that_end_are_no_fault_of_the_storage(workers: Workers, cabinet: Cabinet):
    asking = asyncio.create_task(cabinet.keeper())
    await workers.asked.wait()
    workers.state, workers.refusal = "draining", RuntimeError("worker 0 refused it: no answer")
    workers.ready.set()
    with pytest.raises(CapacityError) as refused:
        await asking
    assert refused.value.code == "shutting_down"
    await cabinet.close()


async def test_a_worker_that_refuses_is_told_as_it_says(workers: Workers, cabinet: Cabinet):
    workers.refusal = RuntimeError("worker 0 refused it: no answer")
    workers.ready.set()
    with pytest.raises(RuntimeError, match="worker 0"):
        await cabinet.keeper()
    workers.refusal = None
    assert await (await cabinet.keeper()).database.answers(5.0)
    await cabinet.close()


async def test_the_end_waits_for_what_is_being_opened_and_closes_it(workers: Workers, cabinet: Cabinet):
    asking = asyncio.create_task(cabinet.keeper())
    await workers.asked.wait()
    closing = asyncio.create_task(cabinet.close())
    done, _ = await asyncio.wait({closing}, timeout=0.1)
    assert not done
    workers.ready.set()
    await closing
    assert not await (await asking).database.answers(5.0)


async def test_after_the_end_nothing_is_opened(tmp_path: Path, cabinet: Cabinet):
    await cabinet.close()
    with pytest.raises(CapacityError) as refused:
        await cabinet.keeper()
    assert refused.value.code == "shutting_down"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("state", "raised"), [("ready", RuntimeError), ("draining", CapacityError)])
async def test_workers_that_end_are_no_fault_of_a_configuration(workers: Workers, cabinet: Cabinet, state: str, raised: type[Exception]):
    workers.state, workers.refusal = state, RuntimeError("worker 0 refused it: no answer")
    workers.ready.set()
    with pytest.raises(raised):
        await cabinet.reload(workers.settings)
