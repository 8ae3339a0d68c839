"""Replies onto the client's connection: heads composed once, whole answers in one write, streams one write for each piece that arrived.

aiohttp's own response classes are not used: what they do for each request and each chunk costs more than all of the rest here.
"""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import HttpVersion10
from aiohttp.http import RawRequestMessage

from proxy.core.errors import ClientDisconnected
from proxy.core.recast import LINES
from proxy.core.sse import is_event_type
from proxy.http.outgoing import taken
from proxy.http.server import Connection

PING = b": ping\n\n"

#: The line before a chunk by its size, for the sizes that chunks of a stream have.
_LINES = {size: line for size, line in enumerate(LINES) if size}

#: The same of a body that is not chunked.
_NO_LINES: dict[int, bytes] = {}

#: Answers that have no body, and whose heads say nothing of one (RFC 9110, 8.6; RFC 9112, 6.1).
_BODILESS = frozenset({204, 304})

#: The end of a status line.
_WORDS = {status.value: f"{status.value} {status.phrase}\r\n" for status in HTTPStatus}
_WORDS[499] = "499 Client Closed Request\r\n"


def compose_head(status: int, headers: dict[str, str], lines: str = "", *, http10: bool = False) -> bytes:
    """A response's head, with `lines`, each ended by CRLF, as they are.

    Header names and values must hold no CR, LF or NUL: they come from parsed heads, constants and checked names.
    """
    rest = ""
    for name, value in headers.items():
        rest = f"{rest}{name}: {value}\r\n"
    words = _WORDS.get(status) or f"{status} Unknown\r\n"
    version = "HTTP/1.0" if http10 else "HTTP/1.1"
    return f"{version} {words}{lines}{rest}\r\n".encode("latin-1", "replace")


class Writer:
    """The answer to a request, one after the other of a connection. `begun` once its head is out: an error is told inside it then."""

    __slots__ = (
        "_connection",
        "_lines",
        "begun",
        "bytes_out",
        "cors",
        "head_only",
        "http10",
        "is_chunked",
        "is_event_stream",
        "keep_alive",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.renew(1.0, keep_alive=True)

    def renew(self, stall: float, *, keep_alive: bool) -> None:
        """Be the next answer of this connection. `stall`: how many seconds its client may take to read on. `keep_alive`: see `close_after`.

        `http10` is what the client speaks. `head_only`: no body goes out, whatever is written: the client asked for none (HEAD), or the
        answer has none. `cors` are lines of its head about pages in browsers.
        """
        self.keep_alive = keep_alive
        self.http10 = False
        self._connection.stall = stall
        self.is_chunked = False
        self._lines = _NO_LINES
        self.head_only = False
        self.begun = False
        self.is_event_stream = False
        self.bytes_out = 0
        self.cors = ""

    def fit(self, message: RawRequestMessage) -> None:
        """Answer as this request can be answered."""
        if message.should_close or not self._connection.keepalive_timeout or (message.upgrade and not self._connection.reads_on(message)):
            self.keep_alive = False
        self.http10 = message.version == HttpVersion10
        self.head_only = message.method == "HEAD"

    def close_after(self) -> None:
        """Close the connection once this answer is written."""
        self.keep_alive = False

    def whole(self, status: int, headers: dict[str, str], body: bytes, lines: str = "") -> None:
        """Head and body in one write. `lines`: further headers, as `compose_head` takes them."""
        if status in _BODILESS:
            self._start_bodiless(status, headers, lines)
            return
        size = len(body)
        headers.pop("content-length", None)
        head = self._head(status, headers, f"{lines}content-length: {size}\r\n")
        if self.head_only:
            self._connection.send(head)
        else:
            self._connection.send(head + body)
            self.bytes_out = size

    def start(self, status: int, headers: dict[str, str], piece: bytes = b"", lines: str = "") -> None:
        """Head and first piece of a body that goes on. Of an answer without a body the head is all. `lines` as for `whole`."""
        self.is_event_stream = is_event_type(headers.get("content-type", ""))
        if self.is_event_stream:
            headers["cache-control"] = "no-cache"
            headers["x-accel-buffering"] = "no"
        if self.head_only or status in _BODILESS:
            self._start_bodiless(status, headers, lines)
            return
        if self.http10:
            self.keep_alive = False
            if "content-length" not in headers:
                self._connection.ends_by_close, self._connection.is_whole = True, False
        elif "content-length" not in headers:
            headers["transfer-encoding"] = "chunked"
            self.is_chunked = True
            self._lines = _LINES
        self._connection.write(self._head(status, headers, lines) + self._framed(piece))
        self.bytes_out = len(piece)

    def _start_bodiless(self, status: int, headers: dict[str, str], lines: str) -> None:
        """The head alone: whatever followed it would be taken for the next answer. To HEAD it says the length, where that is known."""
        self.head_only = True
        if status in _BODILESS:
            headers.pop("content-length", None)
        self._connection.send(self._head(status, headers, lines))

    def _head(self, status: int, headers: dict[str, str], lines: str) -> bytes:
        if self._connection.body is not None and self._connection.leaves_rest():
            self.keep_alive = False
        if not self.keep_alive:
            headers["connection"] = "close"
        elif self.http10:
            headers["connection"] = "keep-alive"
        self.begun = True
        if self.cors:
            lines += self.cors
        return compose_head(status, headers, lines, http10=self.http10)

    def piece(self, data: bytes) -> bool:
        """One write for one piece. Says whether the client keeps up; where it does not, `drain`."""
        connection = self._connection
        transport = connection.transport
        size = len(data)
        line = self._lines.get(size)
        if line is None or transport is None:
            return self._odd_piece(data)
        self.bytes_out += size
        transport.write(b"".join((line, data, b"\r\n")))
        return not connection.lags

    def _odd_piece(self, data: bytes) -> bool:
        """The same for what is not chunked, or large."""
        if self.head_only:
            return True
        self._connection.write(self._framed(data))
        self.bytes_out += len(data)
        return not self._connection.lags

    def end(self) -> None:
        """The body is whole."""
        if self.is_chunked:
            self._connection.write(b"0\r\n\r\n")
        self._connection.is_whole = True

    def end_broken(self) -> None:
        """The body is not whole. Of an event stream the client has been told by an event; otherwise the missing end must tell it."""
        if self.is_event_stream:
            self.end()
            self._connection.leave_soon()
        else:
            self.keep_alive = False
            self._connection.abort_body()

    def _framed(self, data: bytes) -> bytes:
        line = self._lines.get(len(data))
        if line is not None:
            return b"".join((line, data, b"\r\n"))
        return b"%x\r\n%b\r\n" % (len(data), data) if self.is_chunked and data else data

    @property
    def outlet(self) -> Connection | None:
        """The connection, for who frames what he writes to it himself; see `proxy.core.protocols.Sink`."""
        return self._connection if self.is_chunked else None

    @property
    def is_full(self) -> bool:
        """Whether the client reads more slowly than we write."""
        return self._connection.lags

    async def drain(self) -> None:
        """Wait until the client has read. Raises ClientDisconnected when it takes nothing for `stall` seconds."""
        try:
            await taken(self._connection)
        except (TimeoutError, ConnectionError) as error:
            self._connection.abort_body()
            raise ClientDisconnected("The client does not read its answer.") from error
