"""Chunks of a stream that differ in a short text alone: told by their length and their two ends, and made into the client's in one step.

A chunk is here what HTTP/1.1 frames: its line with its size, its data, which is one whole event, and its end.
"""

from __future__ import annotations

from typing import Final, TypeAlias

#: A text that this leaves as it is may stand in a string of JSON by itself.
PLAIN: Final = bytes(32 if byte < 32 or byte in b'"\\' else byte for byte in range(256))

#: Texts of fewer bytes than this are looked at byte by byte: most are a word.
SHORT: Final = 64

_END = b"\r\n"


#: What stands before the text of a chunk and after it, and the text's size; the same of the client's chunk, and its data's size.
Cast: TypeAlias = tuple[bytes, bytes, int, bytes, bytes, int]

#: Of a length that no chunk has which is known: no text is of that size.
NEVER: Final = (b"", b"", -1, b"", b"", 0)

#: Shorter chunks have two digits in their line, longer ones three.
_TWO = 0x100 + 2 + 4


class Casts(dict[int, Cast]):
    """The length of a chunk -> its cast. They are made when they are wanted, and go with the frame that they were made for.

    `event`: what stands before an event's text, what after it, what of that is shown, and the size of the first two; a negative one where
    events are not told by them.
    """

    __slots__ = ("event",)

    event: tuple[bytes, bytes, bytes, int]

    def __missing__(self, length: int) -> Cast:
        before, after, shown_after, around = self.event
        data = length - (6 if length < _TWO else 7)
        size = data - around
        if around < 0 or not (0 < size < SHORT and 0x10 <= data < 0x1000):
            return NEVER
        shown_size = len(before) + size + len(shown_after)
        shown = b"%x\r\n%b" % (shown_size, before), shown_after + _END, shown_size
        self[length] = cast = (b"%x\r\n%b" % (data, before), after + _END, size, *shown)
        return cast
