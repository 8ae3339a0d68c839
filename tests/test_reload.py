"""Reading the configuration again: what is queued or under way when the gateway stops is no fault of the configuration."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import PrivateAttr

from proxy.app import Signals
from proxy.core.errors import CapacityError
from proxy.core.metrics import Registry
from proxy.reload import Reload
from proxy.settings import Loaded, Settings, load
from tests.support.log import logged


class Noticed(Settings):
    """Settings that note the threads in which all their values are gone through."""

    _threads: list[threading.Thread] = PrivateAttr(default_factory=list)

    def model_dump(self, **how: Any) -> dict[str, Any]:
        self._threads.append(threading.current_thread())
        return super().model_dump(**how)


class Place:
    """A configuration that is read again, and cannot be put in force."""

    def __init__(self, file: Path) -> None:
        self.is_over = False
        self.error: Exception | None = OSError()
        self._file = file
        self.metrics = Registry()
        self.reload = Reload(self._load(), load=self._load, put=self._put, metrics=self.metrics, is_over=lambda: self.is_over)

    def _load(self) -> Loaded:
        loaded = load(self._file, {}, {})
        return replace(loaded, settings=Noticed.model_construct(**dict(loaded.settings)))

    async def _put(self, _settings: Settings) -> None:
        if self.error is not None:
            raise self.error

    @property
    def refused(self) -> float:
        return self.metrics.counter("comporta_config_reloads_total", "", "outcome").labels("refused").value


@pytest.fixture
def place(tmp_path: Path) -> Place:
    file = tmp_path / "gateway.yaml"
    file.write_text("providers:\n  sim: {kind: sim}\n")
    return Place(file)


@pytest.mark.parametrize(
    ("is_over", "error", "refused"),
    [
        (False, OSError(9, "Bad file descriptor"), 1),
        (False, CapacityError("no room", code="overloaded"), 1),
        (False, CapacityError("The gateway is shutting down.", code="shutting_down"), 0),
        (True, OSError(9, "Bad file descriptor"), 0),
    ],
    ids=str,
)
async def test_what_fails_because_the_gateway_stops_is_no_refusal(place: Place, is_over: bool, error: Exception, refused: int):
    place.is_over, place.error = is_over, error
    assert not await place.reload()
    assert place.refused == refused


async def test_a_pipe_is_not_read_again(place: Place, tmp_path: Path):
    """It was empty by now, or whoever reads it would wait."""
    place.error = None
    (tmp_path / "gateway.yaml").unlink()
    os.mkfifo(tmp_path / "gateway.yaml")
    with logged() as lines:
        async with asyncio.timeout(10):
            assert not await place.reload()
    assert "is a pipe" in lines[0]["problems"][0]["message"]
    assert place.refused == 1


async def test_a_digest_is_made_once_for_each_configuration_and_in_a_thread(place: Place):
    place.error = None
    first = place.reload.described
    assert await place.reload()
    assert place.reload.described == place.reload.described == {"digest": first["digest"], "generation": 2}
    settings = place.reload.loaded.settings
    assert isinstance(settings, Noticed)
    assert [thread is threading.main_thread() for thread in settings._threads] == [False]


async def test_signals_that_wait_for_a_turn_until_the_gateway_stops_are_dropped():
    signals, begun, ready = Signals(), [0], asyncio.Event()

    async def reload() -> bool:
        begun[0] += 1
        await ready.wait()
        return True

    try:
        signals.obey(reload)
        for _ in range(3):
            signals._again()
        await asyncio.sleep(0.01)
        signals._stop()
        ready.set()
        await asyncio.gather(*signals._reloads)
    finally:
        for number in Signals.NUMBERS:
            asyncio.get_running_loop().remove_signal_handler(number)
    assert begun == [1]
