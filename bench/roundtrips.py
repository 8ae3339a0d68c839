"""How long one request takes where nothing queues: one connection to each server, asked in turn.

Turn by turn, what disturbs the machine disturbs all alike; wrk would not do, for it adds samples of its own to its percentiles after every
stall. Upstream and client share a core, so a direct request wakes no other core, and a proxied one does: on a virtual machine much of what
even nginx adds is that.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench import payload
from bench.streams import http_request

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_READ = 1 << 16


@dataclass(slots=True)
class Trips:
    """Seconds of every right answer, and how many were wrong."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0


def response_length(data: bytes | bytearray) -> int | None:
    """Bytes of the response that begins `data`; None while its head is incomplete. Raises ValueError when it does not say its length."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return None
    length = _LENGTH.search(data, 0, head + 2)
    if length is None:
        raise ValueError(f"response without content-length: {bytes(data[:200])!r}")
    return head + 4 + int(length[1])


def is_right(response: bytes) -> bool:
    """Whether a whole response is the upstream's answer: the same bytes, or at least the same JSON."""
    head, _, body = response.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        return False
    return body == payload.answer() or json.loads(body) == json.loads(payload.answer())


def offer(ports: Mapping[str, int], body: bytes, seconds: float) -> dict[str, Trips]:
    """Ask each server in turn until the time is up. Raises OSError when one closes the connection, ValueError when it frames wrongly."""
    found = {name: Trips() for name in ports}
    with ExitStack() as stack:
        sockets = {name: stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for name, port in ports.items()}
        for connection in sockets.values():
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        requests = {name: http_request(port, body) for name, port in ports.items()}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, connection in sockets.items():
                began = time.perf_counter()
                response = _ask(connection, requests[name])
                took = time.perf_counter() - began
                if is_right(response):
                    found[name].seconds.append(took)
                else:
                    found[name].failed += 1
    return found


def _ask(connection: socket.socket, request: bytes) -> bytes:
    connection.sendall(request)
    data = bytearray()
    length = None
    while length is None or len(data) < length:
        piece = connection.recv(_READ)
        if not piece:
            raise ConnectionError("closed in the middle of an answer")
        data += piece
        length = length or response_length(data)
    return bytes(data)
