"""What surrounds the text of a stream's events. Most events of a stream differ in their text alone, and need not be read again.

A frame is made of an event that was read: one more content, nothing that ends, no error, no usage. Bytes that are the same around another
text, which is a string of JSON and not empty, mean the same, wherever in the event the text stands.
"""

from __future__ import annotations

import re
from typing import Final

#: The value of a member that brings text, up to its first character.
_TEXT = re.compile(rb'"(?:content|text|reasoning_content|reasoning|arguments)": ?"(?!")')

#: The rest of a string that any JSON parser takes, up to its closing quote. What may be half of a surrogate pair is left to a parser.
_STRING = re.compile(rb'(?!")[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-cefA-CEF][0-9a-fA-F]{3})[^"\\\x00-\x1f]*)*"')

#: What some providers add so that the length of an event does not tell that of its text.
_PADDING = re.compile(rb'"(?:obfuscation|p)":"([A-Za-z0-9]+)"')

_rest_of_string: Final = _STRING.match


class Frame:
    """The bytes of a canonical event before its text and after it, and after its padding where it has some."""

    __slots__ = ("_after", "_after_size", "_before", "_before_size", "_last")

    def __init__(self, before: bytes, after: bytes, last: bytes = b"") -> None:
        self._before = before
        self._before_size = len(before)
        self._after = after
        self._after_size = len(after)
        self._last = last

    def end(self, data: bytes, start: int) -> int:
        """Where the event ends that begins at `start` of `data`; 0 if there is none that has this frame."""
        if not data.startswith(self._before, start):
            return 0
        text = _rest_of_string(data, start + self._before_size)
        if text is None or not data.startswith(self._after, end := text.end()):
            return 0
        end += self._after_size
        if not self._last:
            return end
        padded = data.find(b'"', end)
        if not data.startswith(self._last, padded) or not data[end:padded].isalnum():
            return 0
        return padded + len(self._last)


def frame_of(event: bytes) -> Frame | None:
    """The frame of an event with its blank line; None where its text is not found."""
    text = _TEXT.search(event)
    if text is None:
        return None
    close = _STRING.match(event, text.end())
    if close is None:
        return None
    before, after = event[: text.end()], event[close.end() :]
    padding = _PADDING.search(after)
    if padding is None:
        return Frame(before, after)
    start, end = padding.span(1)
    return Frame(before, after[:start], after[end:])
