"""Requests that are parsed and yet not to be trusted, and what those earn that are none."""

from __future__ import annotations

import re

from aiohttp import HttpVersion10, HttpVersion11, hdrs
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import _ErrInfo

#: A length of more digits than this is nobody's: 18 of them are an exabyte.
_MOST_DIGITS = 18

#: Who is asked (RFC 9110, 7.2), with letters of any script. No comma: two that somebody has joined.
_HOST = re.compile(r"(\[[\w.:%~-]+\]|[\w.%~!$&'()*+;=-]*)(:[0-9]*)?")


#: The page that asks, in a head that cannot be parsed.
_ORIGIN = re.compile(rb"^origin:[ \t]*([!-~]+)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


def is_doubtful(message: RawRequestMessage) -> bool:
    """Whether somebody in front of us may have seen this request end, or go, elsewhere: what follows could be anybody's.

    Source: RFC 9112, 3.2, 6.1 and 6.3.
    """
    version, headers = message.version, message.headers
    if version not in (HttpVersion11, HttpVersion10):
        return True
    coding, length = headers.get(hdrs.TRANSFER_ENCODING), headers.get(hdrs.CONTENT_LENGTH)
    if coding is not None and (length is not None or version == HttpVersion10 or coding.lower() != "chunked"):
        return True
    return (length is not None and len(length) > _MOST_DIGITS) or _HOST.fullmatch(headers.get(hdrs.HOST, "")) is None


def status_of(message: RawRequestMessage | _ErrInfo) -> int:
    """The status that a request earns which is not answered otherwise."""
    return 431 if isinstance(message, _ErrInfo) and isinstance(message.exc, LineTooLong) else 400


def origin_in(data: bytes) -> str | None:
    """The origin of a page that is named in bytes which are no HTTP request."""
    found = _ORIGIN.search(data)
    return None if found is None else found[1].decode("ascii")
