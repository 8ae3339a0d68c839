"""Server-sent events, read from bytes as the WHATWG text says: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream

Pure: bytes in, events out, the same events wherever the bytes are split. Lines are found before UTF-8 is decoded, so a character
cut in two does no harm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r")

#: What says its type twice has both in one value, with a comma; some servers forget the semicolon before the charset.
_TYPE = re.compile(r"text/event-stream(?:[ \t]*(?:[;,]|\Z)|[ \t]+charset=)")

#: A byte order mark, as some put it before text.
BOM = b"\xef\xbb\xbf"


def is_event_type(content_type: str) -> bool:
    """Whether a content type, in lower case, is that of events."""
    return _TYPE.match(content_type) is not None


class ProtocolError(ValueError):
    """The only thing that decoding may raise: an event larger than the limit. `events` are those that were complete before it."""

    def __init__(self, limit: int, events: list[Event]) -> None:
        super().__init__(f"an event is larger than {limit} bytes")
        self.events = events


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `data` has its lines joined by `\\n`; `name` is the `event:` field, empty where there is none."""

    data: bytes
    name: bytes = b""


class EventDecoder:
    """Feed it bytes, take events. `limit` bounds one event, its unfinished lines included, in bytes."""

    def __init__(self, limit: int = 8 * 2**20) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._scanned = 0
        self._data: list[bytes] = []
        self._size = 0
        self._name = b""
        self._skip_newline = False
        self._at_start = True

    @property
    def is_clean(self) -> bool:
        """Whether no part of an unfinished event is held."""
        return not self._buffer and not self._data and not self._name and not self._skip_newline and not self._at_start

    def start(self) -> None:
        """Say that the stream has begun without a byte order mark, for a caller that looked at its first bytes itself."""
        self._at_start = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completed. Raises ProtocolError."""
        buffer = self._buffer
        buffer += data
        if self._at_start and not self._strip_mark():
            return []
        if self._skip_newline and buffer:
            self._skip_newline = False
            if buffer[0] == 0x0A:
                del buffer[0]
        events: list[Event] = []
        start = 0
        for end in _LINE_END.finditer(buffer, self._scanned):
            if end[0] == b"\r" and end.end() == len(buffer):
                self._skip_newline = True
            self._line(bytes(buffer[start : end.start()]), events)
            start = end.end()
        del buffer[:start]
        self._scanned = len(buffer)
        if self._size + len(buffer) > self.limit:
            raise ProtocolError(self.limit, events)
        return events

    def eof(self) -> bytes:
        """The data of the event that was left unfinished. The specification discards it; whether that matters is the caller's to say."""
        events: list[Event] = []
        if self._buffer:
            self._line(bytes(self._buffer), events)
            self._buffer.clear()
        self._line(b"", events)
        return events[0].data if events else b""

    def _strip_mark(self) -> bool:
        head = bytes(self._buffer[:3])
        if len(head) < len(BOM) and BOM.startswith(head):
            return False
        if head == BOM:
            del self._buffer[:3]
        self._at_start = False
        return True

    def _line(self, line: bytes, events: list[Event]) -> None:
        if not line:
            if self._data:
                events.append(Event(b"\n".join(self._data), self._name))
            self._data, self._name, self._size = [], b"", 0
            return
        if self._size + len(line) > self.limit:
            # The same sum as of a line that is not finished yet: whether a stream is refused must not hang on where it was cut.
            raise ProtocolError(self.limit, events)
        field, _, value = line.partition(b":")
        if field == b"data":
            value = value.removeprefix(b" ")
            self._size += len(value) + 1
            self._data.append(value)
        elif field == b"event":
            self._name = value.removeprefix(b" ")
