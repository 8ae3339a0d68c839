"""The processes of a measurement: the upstream, nginx and the gateway; each started from nothing, pinned to a core, stopped by its id."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_READY_SECONDS = 20.0
_STOP_SECONDS = 10.0
_NGINX = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid nginx.pid;
error_log error.log warn;
{user}
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    client_max_body_size 64m;
    client_body_buffer_size 1m;             # a 32 KiB body stays in memory, as it does in the gateway
    keepalive_requests 100000000;
    tcp_nodelay on;
    upstream model {{
        server 127.0.0.1:{upstream};
        keepalive 512;
        keepalive_requests 100000000;
    }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://model; }} }}
    # A body's `stream` is nothing that nginx can choose by, so streams have a port of their own.
    server {{ listen 127.0.0.1:{stream_port} backlog=4096; location / {{ proxy_pass http://model; proxy_buffering off; }} }}
}}
"""


class ServerFailed(RuntimeError):
    """A process did not start, or ended too early; the message holds what it said."""


class ToolMissing(RuntimeError):
    """A program that the measurement needs is not installed."""

    def __init__(self, program: str, package: str) -> None:
        super().__init__(f"{program} is not installed, and the measurement needs it: on Debian and Ubuntu, `apt-get install {package}`")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its process id, and its ports for requests with a JSON answer, streams (the same but for nginx), metrics."""

    name: str
    pid: int
    port: int
    stream_port: int
    admin_port: int | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """Where servers run: a temporary directory, the core of the upstream (and of the load), the core of the server under test."""

    directory: Path
    load_core: int
    server_core: int


@contextmanager
def upstream(bench: Bench) -> Iterator[Server]:
    """The upstream, on the load's core."""
    command = [sys.executable, "-m", "bench.upstream", "--port", "0"]
    with _process(command, bench.load_core, bench.directory / "upstream.log") as process:
        port = int(_ready(process, bench.directory / "upstream.log")["port"])
        yield Server("direct", process.pid, port, port)


@contextmanager
def nginx(bench: Bench, upstream_port: int) -> Iterator[Server]:
    """nginx with one worker process in front of the upstream, on the server's core."""
    prefix = bench.directory / "nginx"
    prefix.mkdir(exist_ok=True)
    port, stream_port = free_port(), free_port()
    user = "user root;" if os.geteuid() == 0 else ""  # the worker must reach the temporary directory
    text = _NGINX.format(files=20000, user=user, connections=16384, upstream=upstream_port, port=port, stream_port=stream_port)
    (prefix / "nginx.conf").write_text(text)
    command = [nginx_executable(), "-p", f"{prefix}/", "-c", "nginx.conf", "-e", "error.log"]
    with _process(command, bench.server_core, bench.directory / "nginx.log") as process:
        _wait_for_port(process, stream_port, bench.directory / "nginx.log")
        yield Server("nginx", process.pid, port, stream_port)


@contextmanager
def gateway(bench: Bench, upstream_port: int, *, pool: int | None = None) -> Iterator[Server]:
    """comporta with one provider, everything else by default (`pool`: more upstream connections), on the server's core."""
    config, log = bench.directory / "comporta.yaml", bench.directory / "comporta.log"
    config.write_text(gateway_config(upstream_port, pool))
    command = [sys.executable, "-m", "comporta", "serve", "--config", str(config), "--json"]
    with _process(command, bench.server_core, log) as process:
        ready = _ready(process, log)
        port, admin = (int(str(ready[name]).rsplit(":", 1)[1]) for name in ("listen", "admin"))
        yield Server("comporta", int(ready["pid"]), port, port, admin)


def gateway_config(upstream_port: int, pool: int | None) -> str:
    """The gateway's configuration file."""
    lines = [
        'server: {listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0"}',
        "providers:",
        "  upstream:",
        "    kind: openai",
        f'    base_url: "http://127.0.0.1:{upstream_port}/v1"',
    ]
    if pool is not None:
        lines.append(f"    pool: {{connections: {pool}}}")
    return "\n".join(lines) + "\n"


def nginx_executable() -> str:
    """Where nginx is. Raises ToolMissing."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ToolMissing("nginx", "nginx-light")
    return found


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would configure a gateway: a measurement's configuration is its file alone, and it has no data.

    Its bytecode is kept, as that of an installed one is: else each start would compile what has changed since the last time.
    """
    configuring = ("COMPORTA_", "OPENAI_", "OLLAMA_", "PYTHONDONTWRITEBYTECODE")
    clean = {name: value for name, value in environment.items() if not name.startswith(configuring)}
    return {**clean, "XDG_DATA_HOME": os.devnull}  # nothing was ever stored there


@contextmanager
def _process(command: list[str], core: int, log: Path) -> Iterator[subprocess.Popen[str]]:
    mine = os.sched_getaffinity(0)
    with log.open("w") as stderr:
        os.sched_setaffinity(0, {core})  # the child inherits it, and its own children after it
        try:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=clean_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        finally:
            os.sched_setaffinity(0, mine)
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _ready(process: subprocess.Popen[str], log: Path) -> dict[str, Any]:
    """The one JSON line that says the process listens. Raises ServerFailed."""
    if process.stdout is None:
        raise ServerFailed("the process has no standard output")
    readable, _, _ = select.select([process.stdout], [], [], _READY_SECONDS)
    line = process.stdout.readline() if readable else ""
    try:
        ready = json.loads(line)
    except ValueError:
        raise ServerFailed(f"{_command(process)} said nothing of being ready: {line.strip()!r}\n{_tail(log)}") from None
    if not isinstance(ready, dict) or ready.get("event") != "ready":
        raise ServerFailed(f"{_command(process)} said something else than ready: {line.strip()!r}")
    return ready


def _wait_for_port(process: subprocess.Popen[str], port: int, log: Path) -> None:
    end = time.monotonic() + _READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise ServerFailed(f"{_command(process)} does not listen\n{_tail(log)}")


def _command(process: subprocess.Popen[str]) -> str:
    return " ".join(process.args) if isinstance(process.args, list) else str(process.args)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
