"""Row 55 in a real process: an installed policy that waits without `await` is told with its place, and counted."""

from __future__ import annotations

from pathlib import Path

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
        assert gateway.metric("comporta_event_loop_blocked_total") == 0
        assert chat(gateway.url, "sleepy").status == 200
        line = gateway.wait_line("event_loop_blocked")
        file, number, function = line["place"].rsplit(":", 2)
        # The innermost frame in Python: what sleeps below it is C.
        assert (file, function) == (str(site / "comporta_sleepy.py"), "stand_still")
        assert POLICY.splitlines()[int(number) - 1].strip() == "time.sleep(self._seconds)"
        assert line["seconds"] >= 0.25
        assert gateway.wait_line("event_loop_moves_again")["seconds"] >= 0.5
        assert gateway.metric("comporta_event_loop_blocked_total") == 1
