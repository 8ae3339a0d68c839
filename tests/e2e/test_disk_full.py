"""The disk fills up under a running gateway: a small file system of its own, and a file that takes what is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.test_administration import administer, chat, until
from tests.support.gateway import ROOT, Gateway
from tests.support.raw_client import ask

_BYTES = 4 * 2**20


class Disk:
    """A file system of 4 MiB. A write of one byte too many is refused by the kernel with ENOSPC."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while file.write(b"x" * size) == size:
                        pass
                except OSError:
                    continue

        room = os.statvfs(self.path)
        assert room.f_bavail == 0, "it is not full"

    def exhaust(self, log: Path) -> None:
        """Use up what is left of a file's last block too."""
        with log.open("ab", buffering=0) as file:
            file.write(b"\n" * (-log.stat().st_size % 4096))

    def clear(self) -> None:
        self._ballast.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_BYTES}", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system needs the right to mount one: {mounted.stderr.strip()}")
    try:
        yield Disk(place)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def configured(**more: Any) -> dict[str, Any]:
    return {"providers": {"sim": {"kind": "sim"}}, "default_provider": "sim", **more}


@pytest.mark.slow
def test_with_the_database_s_disk_full_what_is_there_serves_and_changes_are_refused_whole(disk: Disk, tmp_path: Path):
    config = configured(
        storage={"url": f"sqlite:///{disk.path}/comporta.db"},
        policies={"authenticate": {"open": False, "staleness": "100ms"}},
    )
    with Gateway(config, tmp_path) as gateway:
        known, unseen = (administered(gateway, user) for user in ("ada", "bob"))
        assert chat(gateway, known) == 200
        disk.fill()

        refusals = [administer(gateway, "POST", "/admin/users", {"id": f"user-{number}", "name": "n" * 200}) for number in range(60)]
        codes = {(status, answer["error"]["code"]) for status, answer in refusals if status != 201}
        assert codes == {(507, "insufficient_storage")}
        assert refusals[-1][0] == 507
        for _, answer in refusals[-1:]:
            assert set(answer["error"]) == {"message", "type", "param", "code"}
        assert [chat(gateway, key) for key in (known, unseen, known)] == [200, 200, 200], "what is there is read, in hand or not"
        stored = {user["id"] for user in administer(gateway, "GET", "/admin/users?limit=1000")[1]["data"]}
        made = {f"user-{number}" for number, (status, _) in enumerate(refusals) if status == 201}
        assert stored == {"ada", "bob"} | made, "each is there as it was answered, and nothing by half"
        rows = administer(gateway, "GET", "/admin/audit?limit=1000")[1]["data"]
        assert sum(row["action"] == "user.create" for row in rows) == 2 + len(made)
        assert administer(gateway, "GET", "/admin/audit/verify")[1] == {"whole": True, "first_broken": None}

        disk.clear()
        assert chat(gateway, administered(gateway, "eve")) == 200
        assert administer(gateway, "GET", "/admin/audit/verify")[1]["whole"] is True
        assert [line["event"] for line in gateway.lines if line.get("level") == "error"] == []


def administered(gateway: Gateway, user: str) -> str:
    """A new user's key."""
    assert administer(gateway, "POST", "/admin/users", {"id": user})[0] == 201
    return str(administer(gateway, "POST", "/admin/keys", {"user_id": user})[1]["key"])


def test_a_log_whose_disk_is_full_neither_stops_the_gateway_nor_makes_anybody_wait(disk: Disk, tmp_path: Path):
    file, log = tmp_path / "comporta.yaml", disk.path / "log"
    file.write_text(yaml.safe_dump(configured(server={"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"})))
    command = [sys.executable, "-m", "comporta", "serve", "--json", "--config", str(file)]
    with log.open("ab") as stderr, subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert asked(ready["listen"]) == 200
            until(lambda: events(log) == 1)
            disk.fill()
            full = log.stat().st_size
            assert [asked(ready["listen"]) for _ in range(100)] == [200] * 100
            assert ask(ready["listen"], "GET", "/readyz").status == 200
            assert log.stat().st_size - full < 4096, "there was no room for more"
            disk.clear()
            before = events(log)

            def is_written_again() -> bool:
                asked(ready["listen"])
                return events(log) > before

            until(is_written_again)
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
        finally:
            process.kill()
    assert json.loads(log.read_text().splitlines()[-1])["event"] == "stopped"


def events(log: Path) -> int:
    """Whole lines about requests."""
    return sum(line.startswith('{"timestamp"') and '"event":"request"' in line for line in log.read_text().splitlines())


def asked(url: str) -> int:
    body = json.dumps({"model": "sim", "messages": [{"role": "user", "content": "hello"}]}).encode()
    return ask(url, "POST", "/v1/chat/completions", body, headers={"Content-Type": "application/json"}).status


def test_a_gateway_that_is_stopped_on_a_full_disk_ends_as_ever(disk: Disk, tmp_path: Path):
    file, log = tmp_path / "comporta.yaml", disk.path / "log"
    file.write_text(yaml.safe_dump(configured(server={"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"})))
    command = [sys.executable, "-m", "comporta", "serve", "--json", "--config", str(file)]
    with log.open("ab") as stderr, subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            disk.fill()
            disk.exhaust(log)
            full = log.stat().st_size
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
        finally:
            process.kill()
    assert log.stat().st_size == full, "there was no room for a last word"
