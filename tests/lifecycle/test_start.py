"""What a start loads: what a plain gateway has no use for costs it neither time nor memory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import ROOT

PLAIN = """\
server: {listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0"}
providers: {up: {kind: openai, base_url: "http://127.0.0.1:9/v1"}}
"""

#: What a gateway of one process, with one provider and no storage, serves its first requests without, and who needs it.
UNUSED = {
    "structlog": "lines of the log that people read",
    "rich": "tables of commands",
    "pygments": "rich",
    "prometheus_client": "who asks for /metrics",
    "proxy.administration": "who administers it",
    "proxy.http.api": "who administers it",
    "providers.sim.transport": "who asks the simulated provider",
    "providers.sim.engine": "who asks the simulated provider",
    "proxy.supervisor": "several workers",
    "proxy.keeping": "storage",
    "proxy.storage": "storage",
    "sqlalchemy": "storage",
    "alembic": "storage",
    "aiosqlite": "storage",
    "asyncpg": "storage",
    "proxy.state": "storage that several gateways share",
    "redis": "storage that several gateways share",
    "proxy.vault": "credentials that the gateway keeps itself",
    "cryptography": "credentials that the gateway keeps itself",
    "keyring": "references to a keyring",
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """The modules that a gateway has loaded from its exec to its end, when it was only started."""
    folder = tmp_path_factory.mktemp("start")
    config, log = folder / "comporta.yaml", folder / "log"
    config.write_text(PLAIN)
    command = [sys.executable, "-m", "comporta", "serve", "--json", "--config", str(config)]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, cwd=ROOT, env=_environ(folder), stdout=subprocess.PIPE, stderr=stderr) as process,
    ):
        assert process.stdout is not None
        try:
            assert b'"event":"ready"' in process.stdout.readline(), log.read_text()[-2000:]
        finally:
            process.terminate()
    return frozenset(_modules(log))


def _environ(folder: Path) -> dict[str, str]:
    """Has a process say what it loads, and find nothing that is not ours."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("COMPORTA_", "COVERAGE_", "OPENAI_", "OLLAMA_"))}
    return {**ours, "XDG_DATA_HOME": str(folder), "PYTHONPROFILEIMPORTTIME": "1"}


def _modules(log: Path) -> list[str]:
    """The names in lines such as `import time:       210 |        210 |   proxy.app`."""
    return [line.rpartition("|")[2].strip() for line in log.read_text().splitlines() if line.startswith("import time:")]


def test_a_start_loads_what_serves(loaded: frozenset[str]):
    assert {"proxy.http.data_plane", "proxy.transport.pool", "providers.openai.provider", "aiohttp", "uvloop"} <= loaded


@pytest.mark.parametrize("module", UNUSED)
def test_a_start_loads_nothing_that_others_need(loaded: frozenset[str], module: str):
    assert [name for name in loaded if name == module or name.startswith(f"{module}.")] == [], f"it is for {UNUSED[module]}"


def _started(arguments: list[str], folder: Path, log: Path, **how: Any) -> subprocess.Popen[bytes]:
    """A process that says in `log` what it loads, and that has not loaded the half of it yet."""
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=_environ(folder), stdout=subprocess.PIPE, stderr=stderr, **how
        )
    until = time.monotonic() + 30
    while "proxy.core.errors\n" not in (written := log.read_text()) or "yaml\n" not in written:
        assert time.monotonic() < until and process.poll() is None, written[-2000:]
        time.sleep(0.002)
    assert "proxy.gateway\n" not in written, "it has loaded too much for this to be a start"
    return process


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sighup_while_it_starts_is_obeyed_once_it_serves(tmp_path: Path, workers: int):
    config, log = tmp_path / "comporta.yaml", tmp_path / "log"
    config.write_text(PLAIN.replace("server: {", f"server: {{workers: {workers}, "))
    with _started(["-m", "comporta", "serve", "--json", "--config", str(config)], tmp_path, log) as process:
        try:
            process.send_signal(signal.SIGHUP)
            assert process.stdout is not None
            assert b'"event":"ready"' in process.stdout.readline(), log.read_text()[-2000:]
            until = time.monotonic() + 10
            while '"event":"configuration_applied"' not in log.read_text():
                assert time.monotonic() < until and process.poll() is None, log.read_text()[-2000:]
                time.sleep(0.01)
        finally:
            process.terminate()
    assert process.returncode == 0


def test_a_start_that_fails_says_why_whatever_signal_has_come(tmp_path: Path):
    config, log = tmp_path / "comporta.yaml", tmp_path / "log"
    config.write_text("server: {grace: never}\n")
    with _started(["-m", "comporta", "serve", "--config", str(config)], tmp_path, log) as process:
        process.send_signal(signal.SIGHUP)
    assert process.returncode == 2
    assert "server.grace" in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_what_a_terminal_sends_does_no_harm_to_a_worker_that_starts(tmp_path: Path, number: signal.Signals):
    """They are the supervisor's, which has sent nothing here: its end is what ends the worker. So is what a service manager sends."""
    log = tmp_path / "log"
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as listening:
        descriptors = (theirs.fileno(), listening.fileno())
        with _started(["-P", "-m", "proxy", "0", *map(str, descriptors)], tmp_path, log, pass_fds=descriptors) as process:
            process.send_signal(number)
            theirs.close()
            ours.close()
    assert process.returncode == 0, log.read_text()[-2000:]


@pytest.mark.parametrize("to", [os.kill, os.killpg], ids=["the supervisor", "the group"])
def test_a_stop_while_workers_start_is_no_failure(tmp_path: Path, to: Callable[[int, int], None]):
    config, log = tmp_path / "comporta.yaml", tmp_path / "log"
    config.write_text(PLAIN.replace("server: {", "server: {workers: 2, "))
    with _started(["-m", "comporta", "serve", "--json", "--config", str(config)], tmp_path, log, start_new_session=True) as process:
        until = time.monotonic() + 30
        while log.read_text().count("proxy.core.errors\n") < 2:
            assert time.monotonic() < until and process.poll() is None, log.read_text()[-2000:]
            time.sleep(0.002)
        to(process.pid, signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.read() == b""
    assert process.returncode == 0, log.read_text()[-2000:]
    assert "did not start" not in log.read_text()


def test_a_worker_that_is_stopped_alone_while_it_starts_is_started_again(tmp_path: Path):
    config, log = tmp_path / "comporta.yaml", tmp_path / "log"
    config.write_text(PLAIN.replace("server: {", "server: {workers: 2, "))
    with _started(["-m", "comporta", "serve", "--json", "--config", str(config)], tmp_path, log) as process:
        until = time.monotonic() + 30
        while not (found := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()):
            assert time.monotonic() < until and process.poll() is None, log.read_text()[-2000:]
            time.sleep(0.002)
        os.kill(int(found[0]), signal.SIGTERM)
        assert process.stdout is not None
        assert b'"event":"ready"' in process.stdout.readline(), log.read_text()[-2000:]
        process.terminate()
    assert process.returncode == 0
