"""What surrounds the text of a stream's events. Most events of a stream differ in their text alone, and need not be read again.

A frame is made of an event that was read: one more content, nothing that ends, no error, no usage. Bytes that are the same around another
text, which is a string of JSON and not empty, mean the same, wherever in the event the text stands.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.core.recast import STRING, Cast, cast_of

#: The value of a member that brings text, up to its first character.
_TEXT = re.compile(rb'"(?:content|text|reasoning_content|reasoning|arguments)": ?"(?!")')

#: The most frequent of them, which is found sooner than it is matched.
_CONTENT = b'"content":"'
_QUOTE = 34

#: The same to before its closing quote, where it is not empty.
_STRING = re.compile(rb'(?!")%b(?=")' % STRING)

#: What some providers add so that the length of an event does not tell that of its text.
_PADDING = re.compile(rb'"(?:obfuscation|p)":"([A-Za-z0-9]+)"')

#: What a padding has in it, and most events have not after their text.
_IS_STRING = b'":"'

_rest_of_string: Final = _STRING.match


class Frame:
    """The bytes of a canonical event before its text and after it, and after its padding where it has some; and what is shown of them.

    `around` is how many bytes surround a text, where nothing else differs and nothing is hidden before it: most events are told from
    others by their length and their two ends. It is negative where that is not so.
    """

    __slots__ = ("_before_size", "_last", "_shown_before", "_shown_last", "after", "around", "before", "cast", "hides", "shown_after")

    def __init__(self, before: bytes, after: bytes, last: bytes, hidden: bytes) -> None:
        """`hidden` is what of all this is not shown; it stands in one of them, once."""
        self.before = self._shown_before = before
        self.after = self.shown_after = after
        self._before_size = len(before)
        self._last = self._shown_last = last
        self.around = -1 if last else len(before) + len(after)
        self.hides = hidden != b""
        if hidden:
            start = after.find(hidden)
            if start >= 0:
                self.shown_after = after[:start] + after[start + len(hidden) :]
            else:
                self._shown_before = before.replace(hidden, b"")
                self._shown_last = last.replace(hidden, b"")
                self.around = -1
        #: That of the chunks that such events come in, where nothing is hidden before the text.
        self.cast: Cast | None = None
        if self._shown_before == before:
            shown = self.shown_after, self._shown_last
            self.cast = cast_of(before, last, shown[1], after, shown[0]) if last else cast_of(before, after, shown[0])

    def take(self, data: bytes, start: int, shown: list[bytes]) -> int:
        """Where the event ends that begins at `start` of `data`, what of it is shown being put to `shown`; 0 if none has this frame."""
        begin = start + self._before_size
        if data[start:begin] != self.before:
            return 0
        text = _rest_of_string(data, begin)
        if text is None:
            return 0
        close = text.end()
        end = padding = close + len(self.after)
        if data[close:end] != self.after:
            return 0
        if self._last:
            padding = data.find(b'"', end)
            if padding < 0 or not data[end:padding].isalnum() or data[padding : padding + len(self._last)] != self._last:
                return 0
        if self.hides:
            shown += (self._shown_before, data[begin:close], self.shown_after, data[end:padding], self._shown_last)
        else:
            shown.append(data[start : padding + len(self._last)])
        return padding + len(self._last)


def frame_of(event: bytes, hidden: bytes = b"") -> Frame | None:
    """The frame of an event with its blank line, of which `hidden` is not shown; None where its text is not found."""
    start = event.find(_CONTENT) + len(_CONTENT)
    if start < len(_CONTENT) or event[start] == _QUOTE:
        text = _TEXT.search(event)
        if text is None:
            return None
        start = text.end()
    close = _STRING.match(event, start)
    if close is None:
        return None
    before, after = event[:start], event[close.end() :]
    padding = _PADDING.search(after) if _IS_STRING in after else None
    if padding is None:
        return Frame(before, after, b"", hidden)
    start, end = padding.span(1)
    return Frame(before, after[:start], after[end:], hidden)
