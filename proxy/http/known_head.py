"""A client says the same head again and again: what aiohttp's parser made of it once holds for the next one, byte for byte.

Nothing of HTTP is decided here. A request takes this way only where it is one whole segment, begins where the last one ended, and its head
equals one that was parsed before in all but the digits of its Content-Length. Everything else is parsed.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import msgspec
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


class WholeBody(msgspec.Struct, eq=False):
    """A request's body that came whole with its head: as much of aiohttp's StreamReader as is used of one.

    `message` and `memo`: of the head that it came with; see `proxy.core.call.Call`. A struct, because one is made for each request.
    """

    data: bytes
    message: RawRequestMessage
    memo: dict[Any, Any]
    _is_read: bool = False

    def is_eof(self) -> bool:
        return True

    def at_eof(self) -> bool:
        return self._is_read

    def exception(self) -> BaseException | None:
        return None

    async def readany(self) -> bytes:
        self._is_read = True
        return self.data


#: Where a request's body is read from.
Payload: TypeAlias = StreamReader | WholeBody


class KnownHead:
    """One head, around its length, and the message that it is. That message's headers are without the length, which changes."""

    __slots__ = ("_end", "_expected", "_memo", "_message", "_prefix", "_size", "_suffix")

    def __init__(self, message: RawRequestMessage, head: bytes, digits: tuple[int, int]) -> None:
        """`digits`: where the length stands in `head`."""
        headers = CIMultiDict(message.headers)
        del headers[hdrs.CONTENT_LENGTH]
        self._message = message._replace(headers=CIMultiDictProxy(headers), raw_headers=())
        self._prefix, self._suffix = head[: digits[0]], head[digits[1] :]
        self._memo: dict[Any, Any] = {}
        self._expect(0)

    def match(self, data: bytes) -> WholeBody | None:
        """The body of the request that `data` is, if it has this head and its whole body and nothing more."""
        size = len(data)
        if size != self._size:
            self._expect(size)
        end = self._end
        if data[:end] != self._expected:
            return None
        memo = self._memo
        if len(memo) > _MOST_FACTS:
            memo.clear()
        return WholeBody(data[end:], self._message, memo)

    def _expect(self, size: int) -> None:
        """How a request of `size` bytes in all must begin: the length that its head tells follows from them."""
        self._size, self._end, self._expected = size, 0, b"-"  # which no first 0 bytes are: there is no such request
        around = len(self._prefix) + len(self._suffix)
        for digits in range(1, _MOST_DIGITS + 1):
            length = size - around - digits
            if length > 0 and len(told := b"%d" % length) == digits:
                self._expected = self._prefix + told + self._suffix
                self._end = len(self._expected)


def end_of(message: RawRequestMessage, payload: StreamReader, data: bytes) -> int:
    """How many bytes are missing of a message that begins `data`: negative where more follows it, or where that cannot be said."""
    end = data.find(b"\r\n\r\n")
    if end < 0 or message.chunked or data[0] in b"\r\n":
        return -1
    length = message.headers.get(hdrs.CONTENT_LENGTH, "0")
    missing = end + 4 + int(length) - len(data) if len(length) <= _MOST_DIGITS and length.isdecimal() else -1
    if missing > 0 and hdrs.EXPECT in message.headers:
        return -1  # who has its answer without being asked for the rest may keep it
    return missing if (missing == 0) == payload.is_eof() else -1


def learnt(message: RawRequestMessage, payload: StreamReader, data: bytes) -> KnownHead | None:
    """The head of a message that is the whole of `data`, where it may be taken for known when it comes again."""
    if message.version != HttpVersion11 or message.method != "POST" or message.should_close or message.upgrade:
        return None
    if message.compression is not None:
        return None
    end = data.find(b"\r\n\r\n") + 4
    if end > _MOST_KEPT or hdrs.TRANSFER_ENCODING in message.headers or len(message.headers.getall(hdrs.CONTENT_LENGTH, ())) != 1:
        return None
    found = _LENGTH.search(data, 0, end)
    if found is None or b"".join(payload._buffer) != data[end:]:
        return None
    return KnownHead(message, data[:end], found.span(1))
