"""Changes to a JSON object's members in its own bytes, everything else left as it came: order, spacing, unknown fields, number spellings.

The bytes must be one valid JSON object (the edge has parsed them); what they mean is not checked again here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]', re.DOTALL)
#: A letter, or an underscore, in an escape. Texts have others: of what is no ASCII, and, as Go's clients write them, of `<`, `>` and `&`.
_LETTER = re.compile(rb"\\u00[4-7]")
#: A member's name, and all up to its value.
_NAME = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_EMPTY = re.compile(rb"[ \t\r\n]*\}")
_SPACE = b" \t\r\n"


def set_member(raw: bytes, key: str, value: bytes, *, present: bool) -> bytes:
    """`raw` with the top-level member `key` set to `value` (JSON bytes). `present` says whether it has that member already."""
    if not present:
        comma = b"" if _EMPTY.match(raw, raw.index(b"{") + 1) else b","
        return with_first(raw, b'"%b":%b%b' % (key.encode(), value, comma))
    return _replaced(raw, _lone_member(raw, key) or member_spans(raw, key), value)


def with_first(raw: bytes, text: bytes) -> bytes:
    """`raw` with `text` right behind its first brace: a member, and a comma if others follow."""
    return raw.replace(b"{", b"{" + text, 1)


def remove_member(raw: bytes, key: str) -> bytes:
    """`raw` without the top-level member `key`."""
    cuts: list[tuple[int, int, int]] = []
    for comma, name, end in _members(raw, key):
        before, start = comma, name
        if raw[end : end + 1] == b",":
            cuts.append((before, start, end + 1))
            continue
        # The last of all members: the comma before it goes, too, or that before those that go with it.
        while cuts and cuts[-1][2] == before + 1:
            before, start, _ = cuts.pop()
        cuts.append((before, before if before >= 0 else start, end))
    return _replaced(raw, [(start, end) for _, start, end in cuts], b"")


def _replaced(raw: bytes, spans: list[tuple[int, int]], value: bytes) -> bytes:
    """`raw` with `value` in the place of each of the spans, which are in order. However many there are, nothing is copied twice."""
    pieces: list[bytes] = []
    at = 0
    for start, end in spans:
        pieces += (raw[at:start], value)
        at = end
    return b"".join((*pieces, raw[at:])) if pieces else raw


def _lone_member(raw: bytes, key: str) -> list[tuple[int, int]]:
    """The span of a string member that can be found without reading all tokens.

    That is so where its quoted name occurs once, and no name is spelt with escapes.
    """
    at = lone_name(raw, key)
    match = re.compile(rb'"[a-z_]+"\s*:\s*("[^"\\]*")').match(raw, at) if at >= 0 else None
    return [match.span(1)] if match else []


def lone_name(raw: bytes, key: str) -> int:
    """Where `key`, of letters and underscores, stands in quotes: the one such place in an object no name of which is spelt with escapes.

    -1 where there are others, or may be.
    """
    # From the end on, where names are: and a quote, which is looked for then, is rarer in texts than the letters of any name.
    name = b'"%b"' % key.encode()
    at = raw.rfind(name)
    if at < 0 or raw.rfind(name, 0, at) >= 0 or (b"\\" in raw and raw.rfind(b"\\u00") >= 0 and _LETTER.search(raw) is not None):
        return -1
    return at


def member_spans(raw: bytes, key: str) -> list[tuple[int, int]]:
    """Where the values of the top-level member `key` stand, in order (duplicates are legal JSON)."""
    return [_value_of(raw, start, end) for _, start, end in _members(raw, key)]


def _members(raw: bytes, key: str) -> Iterator[tuple[int, int, int]]:
    """Of each top-level member `key`: where the comma before it is (-1: none), where its name begins, and the comma or brace behind it."""
    depth = 0
    name: bytes | None = None
    name_start = comma = -1
    for token in _TOKEN.finditer(raw):
        kind = raw[token.start() : token.start() + 1]
        if kind in b"{[":
            depth += 1
        elif depth == 1 and kind in b",}":
            if name is not None and _means(name, key):
                yield comma, name_start, token.start()
            comma = token.start() if kind == b"," else comma
            name = None
            depth -= kind == b"}"
        elif kind in b"}]":
            depth -= 1
        elif depth == 1 and kind == b'"' and name is None:
            name, name_start = token[0], token.start()


def _value_of(raw: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the value of a member stands that lies there, without the blanks around it."""
    found = _NAME.match(raw, start)
    assert found is not None, "a member begins with its name"
    return found.end(), start + len(raw[start:end].rstrip(_SPACE))


def _means(name: bytes, key: str) -> bool:
    """Whether a quoted name is `key` in any of its spellings."""
    if b"\\" not in name:
        return name[1:-1] == key.encode()
    # Bytes that are not UTF-8 are nobody's key, and no reason to fail.
    return bool(json.loads(name.decode("utf-8", "replace")) == key)
