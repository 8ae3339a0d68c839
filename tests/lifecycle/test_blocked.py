"""Row 55 in a real process: an installed policy that waits without `await` is told with its place, and counted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.lifecycle.conftest import configured
from tests.support.gateway import Gateway
from tests.support.raw_client import chat
from tests.support.script import CHAT, script
from tests.support.upstream import Upstream

POLICY = """
import time

from proxy.fields import Section


class Sleepy:
    class Settings(Section):
        seconds: float = 0.6

    def __init__(self, settings, services):
        self._seconds = settings.seconds

    async def __call__(self, call, call_next):
        if call.model == "sleepy":
            self.stand_still()
        return await call_next(call)

    def stand_still(self):
        time.sleep(self._seconds)
"""


SLEEPING = next(number for number, line in enumerate(POLICY.splitlines(), 1) if line.strip() == "time.sleep(self._seconds)")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder as an installer would leave it: the policy's module, and what says that it is there."""
    folder = tmp_path / "site"
    about = folder / "comporta_sleepy-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "comporta_sleepy.py").write_text(POLICY)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: comporta-sleepy\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[comporta.policies]\nsleepy = comporta_sleepy:Sleepy\n")
    return folder


@pytest.mark.parametrize("workers", [1, 2])
def test_a_blocked_loop_is_told_with_its_place_and_counted(upstream: Upstream, site: Path, tmp_path: Path, workers: int):
    upstream.otherwise = script(CHAT)
    config = {**configured(upstream, {"workers": workers}), "policies": {"sleepy": {}}}
    config["models"]["sleepy"] = "up"
    folder = tmp_path / "gateway"
    folder.mkdir()
    with Gateway(config, folder, {"PYTHONPATH": str(site)}) as gateway:
        assert chat(gateway.url).status == 200
        answer = chat(gateway.url, "sleepy")
        assert answer.status == 200
        gateway.record_of(answer)  # by then the loop has moved again, and said so
        # The innermost frame in Python: what sleeps below it is C. A busy machine may have held the loop up before, elsewhere.
        line = gateway.wait_line("event_loop_blocked", place=f"{site / 'comporta_sleepy.py'}:{SLEEPING}:stand_still")
        assert line["seconds"] >= 0.25
        assert max(again["seconds"] for again in lines(gateway, "event_loop_moves_again")) >= 0.5
        until = time.monotonic() + 5
        while gateway.metric("comporta_event_loop_blocked_total") != len(lines(gateway, "event_loop_blocked")):
            assert time.monotonic() < until, "what is told is not what is counted"
            time.sleep(0.05)


def lines(gateway: Gateway, event: str) -> list[dict[str, Any]]:
    """What the log says of `event`."""
    return [line for line in gateway.lines if line.get("event") == event]
