"""A client says the same head again and again: what aiohttp's parser made of it once holds for the next one, byte for byte.

Nothing of HTTP is decided here. A request takes this way only where it is one whole segment, begins where the last one ended, and its head
equals one that was parsed before in all but the digits of its Content-Length. Everything else is parsed.
"""

from __future__ import annotations

import re
from typing import Any

from aiohttp import HttpVersion11, StreamReader, hdrs
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

#: Lengths of more digits than this are parsed.
_MOST_DIGITS = 9

#: A head larger than this is not kept, in bytes: each connection keeps one.
_MOST_KEPT = 4096

#: So many facts are remembered of a head: those that hold them change when the configuration does.
_MOST_FACTS = 32

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([1-9][0-9]{0,%d})\r\n" % (_MOST_DIGITS - 1), re.IGNORECASE)


class WholeBody:
    """A request's body that came whole with its head: as much of aiohttp's StreamReader as is used of one."""

    __slots__ = ("_buffer", "_buffer_offset", "memo")

    def __init__(self, data: bytes, memo: dict[Any, Any]) -> None:
        """`memo`: of the head that it came with; see `proxy.core.call.Call`."""
        self._buffer = [data]
        self._buffer_offset = 0
        self.memo = memo

    def is_eof(self) -> bool:
        return True

    def at_eof(self) -> bool:
        return not self._buffer

    def exception(self) -> BaseException | None:
        return None

    def read_nowait(self, _size: int = -1) -> bytes:
        return self._buffer.pop() if self._buffer else b""

    async def readany(self) -> bytes:
        return self.read_nowait()


class KnownHead:
    """One head, around its length, and the message that it is."""

    __slots__ = ("_digits", "_memo", "_message", "_prefix", "_start", "_suffix")

    def __init__(self, message: RawRequestMessage, head: bytes, digits: tuple[int, int]) -> None:
        """`digits`: where the length stands in `head`."""
        self._message = message
        self._start, end = digits
        self._prefix = head[: self._start]
        self._digits = head[self._start : end]
        self._suffix = head[end:]
        self._memo: dict[Any, Any] = {}

    def match(self, data: bytes) -> tuple[RawRequestMessage, WholeBody] | None:
        """The request that `data` is, if it has this head and its whole body and nothing more."""
        start, suffix = self._start, self._suffix
        if not data.startswith(self._prefix):
            return None
        end = data.find(b"\r", start, start + _MOST_DIGITS + 1)
        if end < 0 or not data.startswith(suffix, end):
            return None
        digits = data[start:end]
        if not digits.isdigit() or digits[0] == 48:
            return None
        body = data[end + len(suffix) :]
        if len(body) != int(digits):
            return None
        if len(self._memo) > _MOST_FACTS:
            self._memo.clear()
        return (self._message if digits == self._digits else self._resized(digits)), WholeBody(body, self._memo)

    def _resized(self, digits: bytes) -> RawRequestMessage:
        """The same message with another length."""
        headers = CIMultiDict(self._message.headers)
        headers[hdrs.CONTENT_LENGTH] = digits.decode()
        raw = tuple((name, digits if name.lower() == b"content-length" else value) for name, value in self._message.raw_headers)
        return self._message._replace(headers=CIMultiDictProxy(headers), raw_headers=raw)


def end_of(message: RawRequestMessage, payload: StreamReader, data: bytes) -> int:
    """How many bytes are missing of a message that begins `data`: negative where more follows it, or where that cannot be said."""
    end = data.find(b"\r\n\r\n")
    if end < 0 or message.chunked or message.upgrade or data[0] in b"\r\n":
        return -1
    length = message.headers.get(hdrs.CONTENT_LENGTH, "0")
    missing = end + 4 + int(length) - len(data) if len(length) <= _MOST_DIGITS and length.isdecimal() else -1
    return missing if (missing == 0) == payload.is_eof() else -1


def learnt(message: RawRequestMessage, payload: StreamReader, data: bytes) -> KnownHead | None:
    """The head of a message that is the whole of `data`, where it may be taken for known when it comes again."""
    if message.version != HttpVersion11 or message.method != "POST" or message.should_close or message.compression is not None:
        return None
    end = data.find(b"\r\n\r\n") + 4
    if end > _MOST_KEPT or hdrs.TRANSFER_ENCODING in message.headers or len(message.headers.getall(hdrs.CONTENT_LENGTH, ())) != 1:
        return None
    found = _LENGTH.search(data, 0, end)
    if found is None or b"".join(payload._buffer) != data[end:]:
        return None
    return KnownHead(message, data[:end], found.span(1))
