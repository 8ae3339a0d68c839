"""Listening sockets: whom they let in."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import pytest

from proxy.door import Door
from proxy.sockets import bind, is_exposed


@pytest.mark.parametrize(("host", "exposed"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), ("::", True)])  # noqa: S104 - to be told apart
def test_a_socket_is_exposed_where_other_machines_reach_it(host: str, exposed: bool):
    try:
        listening = bind(host, 0)
    except OSError:
        pytest.skip(f"{host} cannot be had here")
    with listening:
        assert is_exposed(listening) is exposed


def test_a_socket_in_the_file_system_is_of_this_machine(tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        assert not is_exposed(listening)


@pytest.mark.skipif(sys.platform != "linux", reason="the length of the queue is told by Linux alone")
async def test_who_is_let_in_may_wait_as_long_as_the_socket_was_made_for():
    """Whoever serves a socket listens on it anew, asyncio's servers with a queue of 100."""
    listening = bind("127.0.0.1", 0)
    asked = queue_of(listening)
    door = Door(listening, asyncio.Protocol)
    await door.open()
    assert queue_of(listening) == asked > 100
    door.close()


def queue_of(listening: socket.socket) -> int:
    """How many may wait: of a socket that listens, `tcpi_sacked` (linux/tcp.h)."""
    return int.from_bytes(listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[28:32], sys.byteorder)
