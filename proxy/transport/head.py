"""Heads as nearly all servers write them, read without the parser: a line is judged once, and known when it comes again.

What is taken here is less than the parser takes, and comes to the same. Whatever is not plain is left to the parser.
"""

from __future__ import annotations

import re

#: So many lines are known, each of at most so many characters: what is remembered has a bound. Dates and identities that never come again
#: fill it soon; all are then forgotten, which costs the others a second look.
_MOST_LINES = 1024
_LONGEST = 256

_STATUS = re.compile(r"HTTP/1\.1 ([2-5][0-9]{2})(?: [ -~]{0,64})?")
_MOST_STATUSES = 64
_BODILESS = frozenset({204, 304})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: Names that say how a message is framed, what its body is coded in, or what follows it -> the values that are plain.
_FRAMING = {
    "connection": re.compile("keep-alive", re.IGNORECASE),
    "content-encoding": re.compile("(?!)"),
    "content-length": re.compile("0|[1-9][0-9]{0,11}"),
    "proxy-connection": re.compile("(?!)"),
    "transfer-encoding": re.compile("chunked"),
    "upgrade": re.compile("(?!)"),
}

#: What a line gives that is not plain. No header has this name.
_ODD = ("", "")

#: Names that say nothing of framing, as they came -> in lower case.
_NAMES: dict[str, str] = {}

#: Status, headers, and the length of the body; -1 is a body in chunks.
Head = tuple[int, dict[str, str], int]


class _Lines(dict[str, tuple[str, str]]):
    """A header's line -> its name in lower case, and its value. A line means the same whoever sends it."""

    __slots__ = ()

    def __missing__(self, line: str) -> tuple[str, str]:
        # Spelt out for the line that comes anew with each answer: its name is known.
        name, colon, value = line.partition(": ")
        key = _NAMES.get(name)
        found = (key, value) if key and colon and value.isprintable() and value.strip() is value else _judged(line)
        if len(line) <= _LONGEST:
            if len(self) >= _MOST_LINES:
                self.clear()
            self[line] = found
        return found


def _judged(line: str) -> tuple[str, str]:
    """Name and value: a token, a colon, at most one space, and text that can be printed, with no space around it; see RFC 9112, 5."""
    name, colon, value = line.partition(":")
    value = value.removeprefix(" ")
    if not colon or _TOKEN.fullmatch(name) is None or not value.isprintable() or value != value.strip():
        return _ODD
    key = name.lower()
    plain = _FRAMING.get(key)
    if plain is not None:
        return _ODD if plain.fullmatch(value) is None else (key, value)
    if len(name) <= _LONGEST:
        if len(_NAMES) >= _MOST_LINES:
            _NAMES.clear()
        _NAMES[name] = key
    return key, value


_pair_of = _Lines().__getitem__

_STATUSES: dict[str, int] = {}


def _status_of(line: str) -> int:
    """The status of an answer that has a body; 0 if the line is not plain."""
    found = _STATUS.fullmatch(line)
    status = 0 if found is None else int(found[1])
    if not status or status in _BODILESS:
        return 0
    if len(_STATUSES) >= _MOST_STATUSES:
        _STATUSES.clear()
    _STATUSES[line] = status
    return status


def read_head(head: bytes) -> Head | None:
    """A head from its first byte to the one before the empty line. None if it is not plain."""
    lines = head.decode("latin-1").split("\r\n")
    line = lines.pop(0)
    status = _STATUSES.get(line) or _status_of(line)
    if not status:
        return None
    pairs = list(map(_pair_of, lines))
    headers = dict(pairs)
    if len(headers) != len(pairs):
        headers = _joined(pairs, headers)
    if "" in headers:
        return None
    length = headers.get("content-length")
    if length is None:
        return (status, headers, -1) if "transfer-encoding" in headers else None
    return None if "transfer-encoding" in headers else (status, headers, int(length))


def _joined(pairs: list[tuple[str, str]], last: dict[str, str]) -> dict[str, str]:
    """Headers some of which are repeated; `last` holds the last value of each. What says how the message is framed is plain only once."""
    cookies = [value for name, value in pairs if name == "set-cookie"]
    if len(last) + len(cookies) - 1 == len(pairs):
        last["set-cookie"] = ", ".join(cookies)
        return last
    headers: dict[str, str] = {}
    for name, value in pairs:
        if name not in headers:
            headers[name] = value
        elif name in _FRAMING:
            headers[""] = value
        else:
            headers[name] = f"{headers[name]}, {value}"
    return headers
