"""`comporta serve`: what it says when it is ready, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from comporta.cli.serve import announcement, curl, working_model
from proxy.app import Ready
from proxy.settings import Loaded, load
from tests.cli.conftest import Command

ANY_PORTS = ("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(environment: dict[str, str | None]) -> Iterator[Start]:
    """Start the command as a process of its own; it is stopped when the test ends."""
    started: list[subprocess.Popen[str]] = []
    environ = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "comporta", "serve", *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


def test_a_script_gets_one_line_when_it_is_ready(start: Start):
    process = start("--json", *ANY_PORTS)
    assert process.stdout
    ready = json.loads(process.stdout.readline())
    assert ready.keys() == {"event", "pid", "listen", "admin", "providers", "models"}
    assert (ready["event"], ready["pid"], ready["providers"]) == ("ready", process.pid, ["sim"])
    for url in (f"{ready['listen']}/healthz", f"{ready['admin']}/metrics"):
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.status == 200
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=30)
    assert (process.returncode, rest) == (0, "")


def test_people_get_a_line_to_paste_that_works(start: Start):
    process = start(*ANY_PORTS)
    assert process.stdout
    lines = iter(process.stdout.readline, "")
    line = next(line for line in lines if line.lstrip().startswith("curl "))
    pasted = subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=30, check=True)
    assert pasted.stdout.startswith("data: {")
    assert pasted.stdout.rstrip().endswith("data: [DONE]")
    assert "sim is simulated" in next(lines)


@pytest.mark.parametrize(("flag", "other"), [("--listen", "--admin-listen"), ("--admin-listen", "--listen")])
def test_an_address_that_is_taken_ends_with_status_1_and_is_named(start: Start, flag: str, other: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = start(flag, address, other, "127.0.0.1:0")
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said == f"Error: cannot listen on {address}: Address already in use; {flag} chooses another address\n"


@pytest.mark.parametrize(
    ("streams", "workers"), [(">&-", 1), ("2>&-", 1), ("<&- >&- 2>&-", 1), ("2>&-", 2), (">/dev/full", 1), (">/dev/full 2>&1", 1)]
)
def test_it_serves_where_nobody_reads_what_it_says(environment: dict[str, str | None], streams: str, workers: int):
    named = {**os.environ, **environment, "COMPORTA_SERVER__WORKERS": str(workers)}
    environ = {name: value for name, value in named.items() if value is not None}
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    line = f'exec "$0" -m comporta serve --listen {address} --admin-listen 127.0.0.1:0 {streams}'
    with subprocess.Popen(["/bin/sh", "-c", line, sys.executable], env=environ) as process:
        try:
            until = time.monotonic() + 30
            while not _answers(address):
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.05)
        finally:
            process.terminate()
    assert process.returncode == 0


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/healthz", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_wrong_address_ends_with_status_2(command: Command):
    result = command("serve", "--listen", "8080")
    assert result.exit_code == 2
    assert "flag --listen: server.listen: wants HOST:PORT" in result.stderr


# ------------------------------------------------------------------------------------------------------------------------ announcement
def _loaded(tmp_path, text: str) -> Loaded:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    return load(path, {}, {})


def _ready(models: list[str]) -> Ready:
    return Ready("http://127.0.0.1:8080", "http://127.0.0.1:8081", [], models)


PROVIDERS = """\
providers:
  my.ai: {kind: openai, base_url: "https://a.example/v1", api_key: "env:A"}
  other: {kind: openai, base_url: "https://b.example/v1"}
"""


def test_the_announcement_says_what_there_is_and_from_where(tmp_path):
    said = announcement(_loaded(tmp_path, PROVIDERS), set(), _ready(["sim"]))
    assert "OpenAI API   http://127.0.0.1:8080/v1" in said
    assert "http://127.0.0.1:8081/metrics" in said
    assert f"my.ai (https://a.example/v1; {tmp_path}/gateway.yaml line 2)" in said
    assert "sim (simulated)" in said
    assert "any other name is asked of my.ai" in said


def test_a_long_table_is_shortened(tmp_path):
    assert "m11 and 8 more" in announcement(_loaded(tmp_path, PROVIDERS), set(), _ready([f"m{n}" for n in range(20)]))


@pytest.mark.parametrize(
    ("models", "doubtful", "model"),
    [
        ("models: {x: my.ai, y: other}", set(), "x"),
        ("models: {x: my.ai, y: other}", {'providers."my.ai".api_key'}, "y"),
        ("models: {x: my.ai}", {'providers."my.ai".api_key'}, "sim"),
        ("models: {x: my.ai}\nsim: false", {'providers."my.ai".api_key'}, None),
        ("", set(), "sim"),
    ],
)
def test_the_line_to_paste_asks_a_model_that_works(tmp_path, models: str, doubtful: set[str], model: str | None):
    loaded = _loaded(tmp_path, PROVIDERS + models)
    assert working_model(loaded, doubtful) == model
    assert ("Try it:" in announcement(loaded, doubtful, _ready([]))) == (model is not None)
    assert ("is simulated:" in announcement(loaded, doubtful, _ready([]))) == (model == "sim")


def test_where_a_key_is_needed_the_lines_to_paste_make_one_and_show_it(tmp_path):
    path = tmp_path / "my gateway.yaml"
    path.write_text("server: {listen: 0.0.0.0:8080}\n" + PROVIDERS)
    said = announcement(load(path, {}, {}), set(), _ready(["sim"]))
    assert "Try it, with a key:" in said
    assert f"\n  comporta users add ana --config '{path}'\n" in said, "on a line of its own: the second time there is one already"
    assert f"\n  COMPORTA_KEY=$(comporta keys create ana --config '{path}')\n" in said
    assert '-H "authorization: Bearer $COMPORTA_KEY"' in said
    assert "$COMPORTA_KEY" not in announcement(_loaded(tmp_path, PROVIDERS), set(), _ready(["sim"]))


def test_a_name_with_quotes_survives_the_shell():
    body = json.loads(shlex.split(curl("http://127.0.0.1:1", 'it\'s "x"'))[-1])
    assert (body["model"], body["stream"]) == ('it\'s "x"', True)
