"""Chunks of a stream that differ in a short text alone, or in that and a padding: told by their length and what surrounds these, and made
into the client's in one step.

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

_END = b"\r\n"


#: What stands before a chunk's text and after it, and how many bytes are in between; the same of the client's chunk, and its data's size.
#: None for what stands before it, if the client's chunk is the provider's.
Cast: TypeAlias = tuple[bytes, bytes, int, bytes | None, bytes, int]

#: Of lengths of chunks that are not told this way: nothing in between is of that size.
NEVER: Final = (b"", b"", -1, b"", b"", 0)

#: Chunks from this length on have three digits in their line, shorter ones two. No chunk is of this length itself.
_THREE_DIGITS = 0x100 + 2 + 4


class Casts(dict[int, Cast]):
    """The length of a chunk -> its cast. They are made when they are wanted, and go with the frame that they were made for.

    Where events have a padding, too, it follows their text after `between`, which is `shown_between` to the client.
    """

    __slots__ = ("_after", "_around", "_before", "_hidden", "_least", "_most", "_shown_after", "between", "shown_between")

    def __init__(self, before: bytes, after: bytes, shown_after: bytes, between: bytes = b"", shown_between: bytes = b"") -> None:
        """What stands before an event's text, what after it (or after its padding), and what of that is shown."""
        self._before, self._after, self._shown_after = before, after, shown_after
        self.between, self.shown_between = between, shown_between
        self._around = len(before) + len(after)
        self._least = len(between)
        self._most = len(between) + (2 * SHORT if between else SHORT)
        self._hidden = len(between) - len(shown_between) + len(after) - len(shown_after)

    def __missing__(self, length: int) -> Cast:
        data = length - (6 if length < _THREE_DIGITS else 7)
        size = data - self._around
        if not (self._least < size < self._most and 0x10 <= data < 0x1000):
            return NEVER
        before, shown = self._before, data - self._hidden
        shown_before = b"%x\r\n%b" % (shown, before) if self._hidden else None
        self[length] = cast = (b"%x\r\n%b" % (data, before), self._after + _END, size, shown_before, self._shown_after + _END, shown)
        return cast


class _NoCasts(Casts):
    __slots__ = ()

    def __missing__(self, length: int) -> Cast:
        return NEVER


#: Those of no frame.
NO_CASTS: Final = _NoCasts(b"", b"", b"")
