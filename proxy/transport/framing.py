"""How servers write what stands around an answer's body, and why it may be refused."""

from __future__ import annotations

import re

from proxy.core.errors import UpstreamError

#: Header names as they came -> in lower case. Servers use few spellings; what they are not asked for cannot fill memory.
NAMES: dict[bytes, str] = {}
name_of = NAMES.get
_MOST_NAMES = 1024
_LONGEST_NAME = 256

#: What ends a line, and where it stands in a chunk.
LINE_END = b"\r\n"
TAIL = slice(-2, None)

#: Heads that the parser is shown instead of a plain one: they frame the body alike.
IN_CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
OF_LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"

_LONG = re.compile(rb"[1-9a-f][0-9a-f]{3,6}")


class _Sizes(dict[bytes, int]):
    """A chunk's line as most servers write it -> the size of its data; -1 if it is written otherwise."""

    def __missing__(self, line: bytes) -> int:
        return int(line, 16) if _LONG.fullmatch(line) is not None else -1


_size_of = _Sizes({b"%x" % size: size for size in range(4096)}).__getitem__


def spelt(name: bytes) -> str:
    """The name of a header that is not in `NAMES` yet."""
    key = name.decode("latin-1").lower()
    if len(name) <= _LONGEST_NAME:
        if len(NAMES) >= _MOST_NAMES:
            NAMES.clear()
        NAMES[name] = key
    return key


def read_chunks(data: bytes) -> tuple[bytes, bool] | None:
    """What `data` carries, and whether the body ends with it; None if it is anything but whole plain chunks, and maybe the end.

    Data with a line's end in it is not told apart here: its sizes do not fit, or it is cut as it says.
    """
    lines = data.split(LINE_END)
    pieces = lines[1::2]
    sizes = list(map(len, pieces))
    if lines.pop() or len(lines) % 2 or not lines or sizes != list(map(_size_of, lines[::2])):
        return None
    ended = not sizes[-1]
    return None if sizes.count(0) > ended else (b"".join(pieces), ended)


def is_chunked_at_most(coding: str) -> bool:
    """Whether a `Transfer-Encoding` says `chunked` and names no other coding, which nobody here would undo.

    A body whose coding does not end so ends with its connection, which its sender may not mean: so httptools takes `chunked` with a tab
    behind it.
    """
    *others, last = coding.lower().split(",")
    return last.lstrip(" \t").rstrip(" ") == "chunked" and all(other.strip(" \t") in ("chunked", "identity", "") for other in others)


class Refused(Exception):
    """Raised inside httptools' callbacks, which hand it on as the context of their own error."""

    def __init__(self, reason: UpstreamError) -> None:
        super().__init__(reason.message)
        self.reason = reason
