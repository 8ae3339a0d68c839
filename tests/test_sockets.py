"""Listening sockets: whom they let in."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

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
