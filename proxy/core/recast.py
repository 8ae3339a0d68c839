"""Chunks of a stream that differ in a short text alone, or in that and a padding: told by their length and what surrounds these.

A chunk is here what HTTP/1.1 frames: its line with its size, its data, which is one whole event, and its end.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

#: A text that this leaves as it is may stand in a string of JSON by itself.
PLAIN: Final = bytes(32 if byte < 32 or byte in b'"\\' else byte for byte in range(256))

#: The rest of a string that any JSON parser takes. What may be half of a surrogate pair is left to a parser.
STRING: Final = rb'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-cefA-CEF][0-9a-fA-F]{3})[^"\\\x00-\x1f]*)*'

#: Whether a text may stand in a string of JSON by itself.
is_text: Final = re.compile(STRING).fullmatch

#: Texts of fewer bytes than this are looked at byte by byte: most are a word.
SHORT: Final = 64

#: The line before a chunk by the size of its data, as most servers write it.
LINES: Final = tuple(b"%x\r\n" % size for size in range(0x1000))

#: The length of a chunk, its line and its end included -> the line, and the size of the data. A lone whole chunk is known by them. Given
#: as a function, since a method of an imported name is made anew for each call.
chunk_of: Final = {len(line) + size + 2: (line, size) for size, line in enumerate(LINES) if size}.get

#: The same of a length that no plain chunk has: no data is of that size.
NO_CHUNK: Final = (b"", -1)

#: What stands before a chunk's text (behind its line) and how long that is; what stands after it, and where that begins from the end; the
#: size of its data but for the text; how long a text may be with its padding. Then what stands between text and padding, or nothing, and
#: what of that and of what stands after is shown, and how many bytes are not.
Cast: TypeAlias = tuple[bytes, int, bytes, int, int, int, bytes, bytes, bytes, int]

#: That of no chunk.
NO_CAST: Final[Cast] = (b"", 0, b"", 0, 0, 0, b"", b"", b"", 0)

_END = b"\r\n"

#: What stands around the texts of many streams alike: there once, it is found in the processor's caches.
_COMMON: dict[bytes, bytes] = {}
_MOST_COMMON = 256
_LONGEST_COMMON = 256


def cast_of(before: bytes, after: bytes, shown_after: bytes, between: bytes = b"", shown_between: bytes = b"") -> Cast:
    """How chunks are told and shown whose event is `before`, a text and `after`; or `before`, a text, `between`, a padding and `after`."""
    hidden = len(between) - len(shown_between) + len(after) - len(shown_after)
    most = len(between) + 2 * SHORT if between else SHORT
    behind, shown = _common(after + _END), _common(shown_after + _END)
    return (
        before,
        len(before),
        behind,
        -len(behind),
        len(before) + len(after),
        most,
        _common(between),
        _common(shown_between),
        shown,
        hidden,
    )


def _common(data: bytes) -> bytes:
    if data not in _COMMON and len(_COMMON) < _MOST_COMMON and len(data) <= _LONGEST_COMMON:
        _COMMON[data] = data
    return _COMMON.get(data, data)
