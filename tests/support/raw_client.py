"""A client made of one blocking socket: sends exactly the bytes it is told, and reads an answer with all its warts.

Official clients hide what the tests are about: whether a body was ended or cut, which chunk came when, whether the connection stayed.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

LINGER_ZERO = struct.pack("ii", 1, 0)
SLICE_GAP = 0.00008  # seconds between slices
ENDS = 300  # bytes at either end of a long message that are sliced as asked; the rest goes 64 times faster


class Closed(Exception):
    """The other side closed, or reset, before the answer was whole. `received` is what came."""

    def __init__(self, received: bytes) -> None:
        super().__init__(f"closed after {received[:200]!r}")
        self.received = received


@dataclass(slots=True)
class Answer:
    """One response. `ended` says whether its body ended as its framing says it must; `pieces` are (monotonic time, bytes) as they came."""

    status: int
    version: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    ended: bool = False
    pieces: list[tuple[float, bytes]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        values = self.all(name)
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[str]:
        """The data of each event, by the text of the WHATWG (line ends of three kinds, comments dropped, lines joined)."""
        return sse_data(self.body)

    @property
    def values(self) -> list[Any]:
        return [json.loads(data) for data in self.events if data != "[DONE]"]


def sse_data(body: bytes) -> list[str]:
    text = body.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    events = []
    data: list[str] = []
    for line in text.split("\n"):
        if not line and data:
            events.append("\n".join(data))
            data = []
        name, _, value = line.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
    return events


class RawClient:
    """One connection. Every wait ends after `timeout` seconds with `TimeoutError`."""

    def __init__(self, url: str, timeout: float = 15.0) -> None:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self.authority = parts.netloc
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self.received = bytearray()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> float:
        """Closes and says when, as `time.monotonic()`."""
        now = time.monotonic()
        self.socket.close()
        return now

    def reset(self) -> float:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        return self.close()

    def request_bytes(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Sequence[tuple[str, str]] | Mapping[str, str] = (),
        *,
        version: str = "HTTP/1.1",
        chunks: Sequence[bytes] | None = None,
    ) -> bytes:
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        names = {name.lower() for name, _ in pairs}
        lines = [f"{method} {path} {version}", f"Host: {self.authority}"]
        if "authorization" not in names:
            lines.append("Authorization: Bearer sk-client-own-key")
        if body and "content-type" not in names:
            lines.append("Content-Type: application/json")
        lines += [f"{name}: {value}" for name, value in pairs]
        if chunks is not None:
            lines.append("Transfer-Encoding: chunked")
            body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks) + b"0\r\n\r\n"
        elif (body or method in ("POST", "PUT", "PATCH")) and "content-length" not in names:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def send(self, data: bytes, size: int = 0) -> bool:
        """All of it, or slices of `size`. False if the other side stopped reading before the end."""
        try:
            if not size:
                self.socket.sendall(data)
                return True
            for piece in slices(data, size):
                self.socket.sendall(piece)
                time.sleep(SLICE_GAP)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def ask(self, method: str, path: str, body: bytes = b"", *, size: int = 0, **how: Any) -> Answer:
        self.send(self.request_bytes(method, path, body, **how), size)
        return self.read(method)

    def read(self, method: str = "GET") -> Answer:
        """One answer, interim ones (1xx) included; for a body that was cut, `ended` is False."""
        answer = self.read_head()
        if answer.status < 200 or method == "HEAD" or answer.status in (204, 304):
            answer.ended = True
            return answer
        try:
            self._read_body(answer)
        except Closed:
            pass
        return answer

    def read_head(self) -> Answer:
        raw = self._until(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        version, status, *_ = first.split(" ", 2)
        headers = [(name, value.strip(" ")) for name, _, value in (line.partition(":") for line in lines)]
        return Answer(int(status), version, headers)

    def read_piece(self, answer: Answer) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        size = int(self._until(b"\r\n").split(b";")[0], 16)
        data = self._exactly(size + 2)[:-2]
        if size:
            answer.pieces.append((time.monotonic(), data))
            answer.body += data
        else:
            answer.ended = True
        return data

    def read_until(self, answer: Answer, mark: bytes) -> None:
        """Chunks, until the body holds `mark`."""
        while mark not in answer.body:
            assert self.read_piece(answer), f"the body ended without {mark!r}: {answer.body!r}"

    def is_closed(self, timeout: float = 1.0) -> bool:
        """Whether the other side closes within `timeout` seconds, sending nothing more."""
        self.socket.settimeout(timeout)
        try:
            return not self._buffer and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def _read_body(self, answer: Answer) -> None:
        if answer.header("transfer-encoding") == "chunked":
            while self.read_piece(answer):
                pass
        elif (length := answer.header("content-length")) is not None:
            answer.body = self._exactly(int(length))
            answer.pieces.append((time.monotonic(), answer.body))
            answer.ended = True
        else:
            self._read_to_end(answer)

    def _read_to_end(self, answer: Answer) -> None:
        while True:
            if self._buffer:
                answer.pieces.append((time.monotonic(), self._buffer))
                answer.body += self._buffer
                self._buffer = b""
            try:
                self._more()
            except Closed:
                answer.ended = True
                return

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._more()
        taken, mark, self._buffer = self._buffer.partition(mark)
        return taken + mark

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _more(self) -> None:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError as error:
            raise Closed(bytes(self.received)) from error
        if not data:
            raise Closed(bytes(self.received))
        self._buffer += data
        self.received += data


def slices(data: bytes, size: int) -> Iterator[bytes]:
    """`data` in pieces of `size` bytes; of what is long, the middle in larger ones, or a slow drip of 10 kB would take seconds."""
    start = 0
    while start < len(data):
        step = size if start < ENDS or start >= len(data) - ENDS else min(size * 64, len(data) - ENDS - start)
        yield data[start : start + step]
        start += step


def ask(url: str, method: str, path: str, body: bytes = b"", **how: Any) -> Answer:
    """One request on a connection of its own."""
    with RawClient(url) as client:
        return client.ask(method, path, body, **how)


def chat_body(model: str = "test-model", *, stream: bool = False, **more: Any) -> bytes:
    value: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Say hello to the three of us"}], **more}
    if stream:
        value["stream"] = True
    return json.dumps(value).encode()


def chat(url: str, model: str = "test-model", *, stream: bool = False, **how: Any) -> Answer:
    return ask(url, "POST", "/v1/chat/completions", chat_body(model, stream=stream), **how)
