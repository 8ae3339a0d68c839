"""Nobody needs a key, and the configuration says nothing of storage: what an administrator makes all the same is known to every worker."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway
from tests.support.raw_client import Answer, RawClient, ask, chat

OPEN = {"policies": {"authenticate": {"open": True}}}


def administer(gateway: Gateway, path: str, body: dict[str, Any]) -> dict[str, Any]:
    with RawClient(gateway.admin, timeout=20.0) as client:
        answer = client.ask("POST", path, json.dumps(body).encode())
    assert answer.status == 201, answer.body
    found: dict[str, Any] = answer.json()
    return found


def with_key(gateway: Gateway, key: str) -> Answer:
    return chat(gateway.url, "sim", headers={"Authorization": f"Bearer {key}"})


def check_known_to(gateway: Gateway, key: str, workers: int) -> None:
    """Every worker lets `key` in; one that is not known is refused, open or not."""
    seen: set[Any] = set()
    for _ in range(200):
        answer = with_key(gateway, key)
        assert answer.status == 200, (answer.body, seen)
        seen.add(gateway.record_of(answer).get("worker"))
        if len(seen) == workers:
            return
    raise AssertionError(f"only {seen} served")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_key_is_known_to_every_worker_after_a_reload_a_crash_and_a_restart(tmp_path: Path, workers: int):
    config = {**OPEN, "server": {"workers": workers}}
    home = {"XDG_DATA_HOME": str(tmp_path / "data")}
    with Gateway(config, tmp_path, home) as gateway:
        assert not (tmp_path / "data").exists(), "storage is opened where it is needed"
        administer(gateway, "/admin/users", {"id": "ada"})
        key = administer(gateway, "/admin/keys", {"user_id": "ada"})["key"]
        check_known_to(gateway, key, workers)
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_line("configuration_applied")
        if workers > 1:
            os.kill(ask(gateway.admin, "GET", "/readyz").json()["workers"][0]["pid"], signal.SIGKILL)
            gateway.wait_line("worker_ended")
        check_known_to(gateway, key, workers)
        assert chat(gateway.url, "sim").status == 200
    with Gateway(config, tmp_path, home) as gateway:
        check_known_to(gateway, key, workers)


def test_a_key_that_not_every_worker_could_look_up_is_not_made(tmp_path: Path):
    data = tmp_path / "data" / "comporta"
    data.mkdir(parents=True)
    (data / "comporta.pepper").write_text("too short")
    (data / "comporta.pepper").chmod(0o600)
    with Gateway({**OPEN, "server": {"workers": 2}}, tmp_path, {"XDG_DATA_HOME": str(tmp_path / "data")}) as gateway:
        answer = ask(gateway.admin, "POST", "/admin/users", b'{"id": "ada"}')
        assert (answer.status, answer.json()["error"]["code"]) == (503, "storage_unavailable")
        assert "fewer than 32 characters" in answer.json()["error"]["message"]
        assert chat(gateway.url, "sim").status == 200
