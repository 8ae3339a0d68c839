"""Sockets that were opened by whoever started the process: a restart refuses nobody."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.sockets import bind, bind_several, handed_over
from tests.support.gateway import ROOT
from tests.support.raw_client import Closed, RawClient, ask, chat_body

#: Seconds. Who comes between two gateways waits for the second, and on a busy machine that takes its time to start.
_STARTING = 60.0

SIM = "providers: {sim: {kind: sim, length: 3}}\nserver: {workers: WORKERS}\n"


class Parent:
    """`tests.lifecycle.activation` with the gateway's command."""

    def __init__(self, folder: Path, workers: int) -> None:
        config = folder / "comporta.yaml"
        config.write_text(SIM.replace("WORKERS", str(workers)))
        command = [sys.executable, "-m", "comporta", "serve", "--json", "--config", str(config)]
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.lifecycle.activation", *command],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        assert self.process.stdout is not None
        self.url, self.admin = (f"http://127.0.0.1:{int(self.process.stdout.readline())}" for _ in range(2))

    def start(self) -> dict[str, str]:
        """Start the gateway, the running one first stopped. Returns what it says when it is ready."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        found: dict[str, str] = json.loads(self.process.stdout.readline())
        return found

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.log.close()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(params=[1, 2])
def parent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Parent]:
    found = Parent(tmp_path, request.param)
    yield found
    found.stop()


_EXPOSED = """
import os, socket, sys
sockets = [socket.create_server((address, 0)) for address in ("127.0.0.1", "0.0.0.0")]
copies = [os.dup2(each.fileno(), 100 + place) for place, each in enumerate(sockets)]
for place, copy in enumerate(copies):
    os.dup2(copy, 3 + place, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", **dict(item.split("=", 1) for item in sys.argv[1:]))
os.execv(sys.executable, [sys.executable, "-m", "comporta", "serve", "--json"])
"""


@pytest.mark.parametrize(("key", "status"), [({}, 1), ({"COMPORTA_SERVER__ADMIN_KEY": "env:ADMIN", "ADMIN": "k" * 32}, 0)])
def test_an_admin_plane_that_others_can_reach_is_refused_without_a_key(key: dict[str, str], status: int, tmp_path: Path):
    """The configuration says loopback; whoever hands the socket over may have bound it elsewhere."""
    command = [sys.executable, "-c", _EXPOSED, *(f"{name}={value}" for name, value in key.items()), f"XDG_DATA_HOME={tmp_path}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        is_ready = bool(process.stdout.readline())
        assert is_ready is (status == 0)
        process.terminate()
        assert process.wait(20) == status
        assert is_ready or "server.admin_key" in process.stderr.read()


def test_a_reload_does_not_take_the_key_from_an_admin_plane_that_others_can_reach(tmp_path: Path):
    config = tmp_path / "comporta.yaml"
    config.write_text('server: {admin_key: "env:ADMIN"}\n')
    environ = {"ADMIN": "k" * 32, "COMPORTA_CONFIG": str(config), "XDG_DATA_HOME": str(tmp_path)}
    command = [sys.executable, "-c", _EXPOSED, *(f"{name}={value}" for name, value in environ.items())]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        port = int(json.loads(process.stdout.readline())["admin"].rpartition(":")[2])
        config.write_text("server: {grace: 1s}\n")
        process.send_signal(signal.SIGHUP)
        line = next(line for line in map(json.loads, process.stderr) if line["event"].startswith("configuration_"))
        status = ask(f"http://127.0.0.1:{port}", "GET", "/metrics").status
        process.terminate()
        process.communicate(timeout=20)
    assert (line["event"], status) == ("configuration_refused", 401)
    assert "server.admin_key" in line["reason"]


def test_the_sockets_that_are_handed_over_are_the_ones_that_are_used(parent: Parent):
    ready = parent.start()
    assert (ready["listen"], ready["admin"]) == (parent.url, parent.admin)
    with urllib.request.urlopen(f"{parent.admin}/metrics", timeout=5) as answer:
        assert answer.status == 200


def test_a_restart_refuses_no_connection_and_loses_no_request(parent: Parent):
    parent.start()
    statuses: list[int] = []
    failures: list[str] = []
    ending = threading.Event()

    def hammer() -> None:
        while not ending.is_set():
            try:
                with RawClient(parent.url, timeout=_STARTING) as client:
                    answer = client.ask("POST", "/v1/chat/completions", chat_body("sim"))
                statuses.append(answer.status if answer.ended else 0)
            except (OSError, Closed) as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    first = parent.start()["pid"]
    assert parent.start()["pid"] != first
    ending.set()
    for thread in threads:
        thread.join(_STARTING)
    assert not failures
    assert set(statuses) == {200}
    assert len(statuses) >= 8


# ------------------------------------------------------------------------------------------------------------------------ the protocol
@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def _environ(pid: int, **more: str) -> dict[str, str]:
    return {"LISTEN_PID": str(pid), "LISTEN_FDS": "1", **more}


def test_a_socket_is_taken_and_its_variables_are_gone(listening: socket.socket):
    environ = _environ(7, LISTEN_FDNAMES="connections")
    found = handed_over(environ, pid=7, first=os.dup(listening.fileno()))
    with found["data"] as taken:
        assert taken.getsockname() == listening.getsockname()
        assert not taken.get_inheritable() and not taken.getblocking()
    assert not environ and list(found) == ["data"]


def test_a_name_says_what_it_is_for(listening: socket.socket):
    found = handed_over(_environ(7, LISTEN_FDNAMES="admin"), pid=7, first=os.dup(listening.fileno()))
    with found["admin"]:
        assert list(found) == ["admin"]


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        ("", ["data", "admin"]),
        ("comporta.socket:comporta.socket", ["data", "admin"]),
        ("admin:comporta.socket", ["admin", "data"]),
        ("comporta.socket:data", ["admin", "data"]),
        ("admin:data", ["admin", "data"]),
    ],
)
def test_a_name_goes_before_the_order(names: str, roles: list[str]):
    ports, first = _descriptors(2)
    found = handed_over(_environ(7, LISTEN_FDS="2", LISTEN_FDNAMES=names), pid=7, first=first)
    assert [found[role].getsockname()[1] for role in roles] == ports
    for each in found.values():
        each.close()


@pytest.mark.parametrize(("names", "count"), [("data:data", 2), ("", 3), ("data:admin:comporta.socket", 3)])
def test_a_socket_that_nothing_is_for_is_refused(names: str, count: int):
    with pytest.raises(OSError, match="one is for each of data, admin"):
        handed_over(_environ(7, LISTEN_FDS=str(count), LISTEN_FDNAMES=names), pid=7, first=9999)


def _descriptors(count: int) -> tuple[list[int], int]:
    """Ports of sockets that listen, and the first of their descriptors, which follow each other."""
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    first = 700
    for index, each in enumerate(made):
        os.dup2(each.fileno(), first + index)
    ports = [each.getsockname()[1] for each in made]
    for each in made:
        each.close()
    return ports, first


@pytest.mark.parametrize("environ", [{}, {"LISTEN_PID": "8", "LISTEN_FDS": "1"}, {"LISTEN_PID": "7", "LISTEN_FDS": "x"}])
def test_what_is_meant_for_another_process_is_left_alone(environ: dict[str, str]):
    assert handed_over(environ, pid=7, first=9999) == {}


def test_a_descriptor_that_does_not_listen_is_refused():
    with socket.socket() as deaf, pytest.raises(OSError, match="no listening socket"):
        handed_over(_environ(7), pid=7, first=os.dup(deaf.fileno()))


def test_several_sockets_share_one_address_that_was_free():
    found = bind_several("127.0.0.1", 0, 3)
    assert len({each.getsockname() for each in found}) == 1
    with pytest.raises(OSError, match="in use"):
        bind_several("127.0.0.1", found[0].getsockname()[1], 2)
    with pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", found[0].getsockname()[1])
    for each in found:
        each.close()
