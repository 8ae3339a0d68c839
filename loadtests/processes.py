"""The processes of a load: gateway, upstream, locust. Each is started here, on loopback, and ended by its own id."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.servers import clean_environment

ROOT = Path(__file__).resolve().parent.parent
_READY_SECONDS = 20.0
_STOP_SECONDS = 15.0


class ProcessFailed(RuntimeError):
    """A process did not start, did not end, or ended badly; the message holds what it said."""


@dataclass(frozen=True, slots=True)
class Server:
    """A gateway or an upstream that listens; `log` is what it writes to standard error."""

    pid: int
    url: str
    admin: str
    log: Path


@contextmanager
def gateway(config: Mapping[str, Any], folder: Path) -> Iterator[Server]:
    """`comporta serve` with this configuration, on free ports; drained by SIGTERM at the end."""
    path = folder / "comporta.yaml"
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "comporta", "serve", "--json", "--config", str(path)]
    command += ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    with _server(command, folder / "gateway.log") as server:
        yield server


@contextmanager
def upstream(folder: Path) -> Iterator[Server]:
    """The rough upstream (loadtests/upstream.py), on a free port."""
    with _server([sys.executable, "-m", "loadtests.upstream"], folder / "upstream.log") as server:
        yield server


@contextmanager
def _server(command: Sequence[str], log: Path) -> Iterator[Server]:
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=clean_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    with _ended(process, log):
        ready = _ready(process, log)
        yield Server(int(ready["pid"]), ready["listen"], ready.get("admin", ""), log)


@contextmanager
def _ended(process: subprocess.Popen[str], log: Path) -> Iterator[None]:
    """Raises ProcessFailed when it does not end well after SIGTERM, unless something else has gone wrong already."""
    try:
        yield
    except BaseException:
        stop(process)
        raise
    if (code := stop(process)) != 0:
        raise ProcessFailed(f"{_command(process)} ended with status {code}\n{tail(log)}")


def stop(process: subprocess.Popen[str]) -> int:
    """SIGTERM, and SIGKILL to what does not heed it. Returns the exit status."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
    return process.returncode


def _ready(process: subprocess.Popen[str], log: Path) -> dict[str, Any]:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], _READY_SECONDS)
    line = process.stdout.readline() if readable else ""
    try:
        found = json.loads(line)
    except ValueError:
        raise ProcessFailed(f"{_command(process)} did not say that it is ready but {line.strip()!r}\n{tail(log)}") from None
    assert isinstance(found, dict)
    return found


def tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _command(process: subprocess.Popen[str]) -> str:
    return " ".join(process.args) if isinstance(process.args, list) else str(process.args)


class Locust:
    """One locust run, of one process or of a master and workers; the first process is the one whose end ends the run."""

    def __init__(self, commands: Sequence[Sequence[str]], environment: Mapping[str, str], folder: Path) -> None:
        self.logs = [folder / f"locust-{number}.log" for number in range(len(commands))]
        self.processes: list[subprocess.Popen[str]] = []
        with ExitStack() as files:
            for command, log in zip(commands, self.logs, strict=True):
                output = files.enter_context(log.open("w"))
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "locust", *command],
                        cwd=ROOT,
                        env={**clean_environment(os.environ), **environment},
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        text=True,
                    )
                )

    @property
    def has_ended(self) -> bool:
        return self.processes[0].poll() is not None

    def wait(self, seconds: float) -> None:
        """Until it has ended by itself. Raises ProcessFailed when it does not, or with another status than 0."""
        try:
            for process, log in zip(self.processes, self.logs, strict=True):
                code = process.wait(seconds)
                if code != 0:
                    raise ProcessFailed(f"locust ended with status {code}\n{tail(log)}")
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"locust did not end within {seconds:g} s of its time\n{tail(self.logs[0])}") from None
        finally:
            self.stop()

    def stop(self) -> None:
        """End whatever still runs."""
        for process in self.processes:
            if process.poll() is None:
                stop(process)
