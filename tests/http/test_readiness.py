"""Health checks of the data plane, however their target is written."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.core.doubles import HandClock, in_virtual_time
from tests.http.test_data_plane import Edge


async def _never(_call: Any) -> Any:
    raise AssertionError


async def _told() -> dict[str, Any]:
    return {"providers": {}}


def _answered(line: bytes) -> bytes:
    """The answer to a request with this line."""
    found: list[bytes] = []

    async def main(clock: HandClock) -> None:
        client = Edge(clock, _never, told=_told).line()
        for _ in range(2):
            client.feed(line + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
            await asyncio.sleep(0.1)
        first, again = client.text.split(b"HTTP/1.1 ")[1:]
        assert first[:3] == again[:3], "and again, where it is remembered"
        found.append(first)

    in_virtual_time(main)
    return found[0]


@pytest.mark.parametrize("target", ["/healthz", "/healthz?", "/healthz?x=1", "http://a/healthz", "http://a:8080/healthz?x=1"])
def test_health_is_told_with_a_query_and_in_absolute_form_too(target: str):
    answer = _answered(f"GET {target}".encode())
    assert answer.startswith(b"200")
    assert answer.endswith(b'{"status":"ok"}')


@pytest.mark.parametrize(
    ("target", "is_verbose"),
    [
        ("/readyz", False),
        ("/readyz?x=1", False),
        ("http://a/readyz", False),
        ("/readyz?verbose", True),
        ("/readyz?verbose=1", True),
        ("/readyz?verbose=true", True),
        ("/readyz?x=1&verbose", True),
        ("http://a/readyz?verbose", True),
        ("/readyz?verbose=false", False),
        ("/healthz?verbose", False),
    ],
)
def test_what_stands_behind_readiness_is_told_to_who_asks(target: str, is_verbose: bool):
    answer = _answered(f"GET {target}".encode())
    assert answer.startswith(b"200")
    assert (b'"providers"' in answer) is is_verbose


@pytest.mark.parametrize("target", ["/healthz", "/readyz?verbose", "http://a/readyz"])
def test_it_is_only_looked_at(target: str):
    assert _answered(f"HEAD {target}".encode()).partition(b"\r\n\r\n")[2] == b""
    answer = _answered(f"POST {target}".encode())
    assert answer.startswith(b"405")
    assert b"\r\nallow: GET, HEAD\r\n" in answer


@pytest.mark.parametrize("target", ["/healthz/x", "/v1/healthz", "/healthzz"])
def test_other_paths_are_none(target: str):
    assert _answered(f"GET {target}".encode()).startswith(b"404")
