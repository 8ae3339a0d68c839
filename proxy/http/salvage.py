"""The requests that came whole in one piece with bytes that are no HTTP: aiohttp's parser throws them away when it meets those.

A client may send request after request without waiting. What it sent well is answered, and only then the rest refused, where it is known
that a request begins with the piece; of a piece that goes on with a request nothing is found. None of this runs while what comes is HTTP.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError

Requests = list[tuple[RawRequestMessage, StreamReader]]


#: It is found out to so many bytes what is wrong, and then byte by byte.
_STEP = 512

#: More than one read of a socket brings.
_NO_PAUSE = 2**30


class _Nowhere(BaseProtocol):
    """No connection: what is read here has come already, and nobody is asked to pause."""

    def pause_reading(self) -> None: ...

    def resume_reading(self, resume_parser: bool = True) -> None: ...


def requests_before(data: bytes, limits: dict[str, Any]) -> Requests:
    """The requests that `data` begins with, as far as it is HTTP; the last one's body may break off there.

    `data` begins where a request may begin, and is not what aiohttp's parser takes with `limits` (its arguments). It is read twice more.
    """
    _, wrong = _feed(_parser(limits), data, 0, _STEP)
    if wrong >= len(data):
        return []
    parser = _parser(limits)
    found, _ = _feed(parser, data[:wrong], 0, len(data))
    more, _ = _feed(parser, data, wrong, 1)
    return found + more


def _parser(limits: dict[str, Any]) -> HttpRequestParser:
    loop = asyncio.get_running_loop()
    return HttpRequestParser(_Nowhere(loop), loop, _NO_PAUSE, auto_decompress=False, **limits)


def _feed(parser: HttpRequestParser, data: bytes, at: int, step: int) -> tuple[Requests, int]:
    """The requests that `data` holds from `at` on, and which step of it is no HTTP."""
    found: Requests = []
    while at < len(data):
        try:
            found += parser.feed_data(data[at : at + step])[0]
        except HttpProcessingError:
            break
        at += step
    return found, at
