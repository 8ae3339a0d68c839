"""Heads that are parsed and yet not to be trusted."""

from __future__ import annotations

import asyncio
import re

import pytest

from proxy.core.call import Call
from proxy.core.reply import Reply
from tests.core.doubles import HandClock, in_virtual_time
from tests.http.test_data_plane import Edge


async def _whole(_call: Call) -> Reply:
    return Reply(200, {"content-type": "application/json"}, b'{"a":1}')


def _statuses(head: bytes) -> list[bytes]:
    """Of three requests with `head` on one connection, so that it is known by the last."""
    found: list[bytes] = []

    async def main(clock: HandClock) -> None:
        line = Edge(clock, _whole).line()
        for _ in range(3):
            line.feed(head + b"\r\nContent-Length: 13\r\n\r\n" + b'{"model":"m"}')
            await asyncio.sleep(0.1)
        found.extend(re.findall(rb"HTTP/1\.[01] ([0-9]+)", line.text))

    in_virtual_time(main)
    return found


GOOD = [
    "",
    "a",
    "a.b:80",
    "a:",
    "127.0.0.1:8080",
    "[::1]",
    "[::1]:8080",
    "[fe80::1%25eth0]",
    "my_host",
    "%2Ftmp%2Fa.sock",
    "a.b.",
    "b\u00fccher.example",
]


@pytest.mark.parametrize("host", GOOD)
@pytest.mark.parametrize("target", ["/v1/responses", "http://elsewhere/v1/responses"])
def test_whoever_is_asked_is_this_gateway(target: str, host: str):
    assert _statuses(f"POST {target} HTTP/1.1\r\nHost: {host}".encode()) == [b"200"] * 3


BAD = [
    "a b",
    "x/y@z",
    "/tmp/a.sock",
    "u@a",
    "a,b",
    "a, b",
    "[::1",
    "::1",
    "[]",
    "[::1]a",
    "x:abc",
    "x:1:2",
    "x:-1",
    'a"b',
    "a?b",
    "a#b",
    "a\\b",
    "<a>",
]


@pytest.mark.parametrize("host", BAD)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_host_that_is_none_is_refused(version: str, host: str):
    assert _statuses(f"POST /v1/responses HTTP/{version}\r\nHost: {host}".encode()) == [b"400"]


def test_a_client_of_http_1_0_names_no_host():
    assert _statuses(b"POST /v1/responses HTTP/1.0") == [b"200"]
