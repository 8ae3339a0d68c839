"""Members set and removed in an object's own bytes, everything else left as it came."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.splice import lone_name, member_spans, remove_member, set_member

KEY = "model"

_SPACE = st.text(" \t\r\n", max_size=2)
_NAMES = st.sampled_from(["model", "mode", "models", 'x"model', "model\\", "a", "é", "", "\ud83d\ude00"])
_TEXTS = st.text(st.sampled_from(string.ascii_letters + '"\\/{}[]:,\n\x01é😀 '), max_size=12) | _NAMES
_NUMBERS = st.sampled_from(["0", "-1", "1.50", "1e5", "12345678901234567890123", "0.1E-2", "true", "false", "null"])


@st.composite
def spelt(draw: st.DrawFn, text: str) -> str:
    """A JSON string that means `text`, in one of its spellings."""
    out = []
    for char in text:
        plain = json.dumps(char, ensure_ascii=False)[1:-1]
        options = [plain, "".join(f"\\u{unit:04x}" for unit in _units(char)), *(["\\/"] if char == "/" else [])]
        out.append(draw(st.sampled_from(options)) if not draw(st.integers(0, 3)) else plain)
    return '"' + "".join(out) + '"'


def _units(char: str) -> list[int]:
    encoded = char.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(encoded[at : at + 2], "big") for at in range(0, len(encoded), 2)]


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.integers(0, 3 if depth else 1))
    if kind == 0:
        return draw(_NUMBERS)
    if kind == 1:
        return draw(spelt(draw(_TEXTS)))
    parts = [draw(members(depth - 1)) if kind == 2 else draw(values(depth - 1)) for _ in range(draw(st.integers(0, 3)))]
    inner = ",".join(draw(_SPACE) + part + draw(_SPACE) for part in parts)
    return ("{%s}" if kind == 2 else "[%s]") % (inner or draw(_SPACE))


@st.composite
def members(draw: st.DrawFn, depth: int = 2, name: str | None = None) -> str:
    found = draw(_NAMES) if name is None else name
    return draw(spelt(found)) + draw(_SPACE) + ":" + draw(_SPACE) + draw(values(depth))


@st.composite
def objects(draw: st.DrawFn) -> tuple[bytes, list[tuple[str, str]]]:
    """An object's bytes, and its members as (name, spelt value), duplicates included."""
    found = []
    for _ in range(draw(st.integers(0, 5))):
        name = draw(_NAMES)
        found.append((name, draw(values())))
    texts = [draw(spelt(name)) + draw(_SPACE) + ":" + draw(_SPACE) + value + draw(_SPACE) for name, value in found]
    body = ",".join(draw(_SPACE) + text for text in texts) or draw(_SPACE)
    return (draw(_SPACE) + "{" + body + "}" + draw(_SPACE)).encode("utf-8", "surrogatepass"), found


def pairs(raw: bytes) -> list[tuple[str, str]]:
    """Top-level members in order, values by their meaning but numbers by their spelling."""
    kept: list[list[tuple[str, object]]] = []

    def keep(found: list[tuple[str, object]]) -> object:
        kept.append(found)
        return found

    json.loads(raw.decode("utf-8", "surrogatepass"), object_pairs_hook=keep, parse_int=_number, parse_float=_number)
    return [(name, repr(value)) for name, value in kept[-1]]


def _number(text: str) -> str:
    return f"number {text}"


@given(objects())
def test_setting_a_member_changes_its_values_and_nothing_else(made: tuple[bytes, list[tuple[str, str]]]):
    raw, found = made
    present = any(name == KEY for name, _ in found)
    before = pairs(raw)
    after = pairs(set_member(raw, KEY, b'"new"', present=present))
    if present:
        assert after == [(name, "'new'" if name == KEY else value) for name, value in before]
    else:
        assert after == [(KEY, "'new'"), *before]


@given(objects())
def test_what_stands_around_a_set_member_is_byte_identical(made: tuple[bytes, list[tuple[str, str]]]):
    raw, found = made
    if any(name == KEY for name, _ in found):
        marked = set_member(raw, KEY, b"\0", present=True)
        rest = b"".join(raw[end:start] for end, start in _gaps(raw))
        assert marked.replace(b"\0", b"") == rest
    else:
        added = set_member(raw, KEY, b"1", present=False)
        at = added.index(b'"model":1')
        size = len(b'"model":1') + (added[at + 9 : at + 10] == b",")
        assert added[:at] + added[at + size :] == raw


def _gaps(raw: bytes) -> list[tuple[int, int]]:
    spans = member_spans(raw, KEY)
    return list(zip([0, *(end for _, end in spans)], [*(start for start, _ in spans), len(raw)], strict=True))


@given(objects())
def test_setting_a_member_to_what_it_was_changes_no_byte(made: tuple[bytes, list[tuple[str, str]]]):
    raw, found = made
    if sum(name == KEY for name, _ in found) == 1:
        value = next(value for name, value in found if name == KEY)
        assert set_member(raw, KEY, value.encode("utf-8", "surrogatepass"), present=True) == raw


@given(objects())
def test_removing_a_member_leaves_the_others_as_they_were(made: tuple[bytes, list[tuple[str, str]]]):
    raw, _ = made
    assert pairs(remove_member(raw, KEY)) == [pair for pair in pairs(raw) if pair[0] != KEY]


@given(objects())
def test_removing_a_member_that_is_not_there_changes_no_byte(made: tuple[bytes, list[tuple[str, str]]]):
    raw, found = made
    if not any(name == KEY for name, _ in found):
        assert remove_member(raw, KEY) == raw


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"{}", b'{"model":1}'),
        (b" { } ", b' {"model":1 } '),
        (b'{"a":2}', b'{"model":1,"a":2}'),
    ],
)
def test_a_new_member_comes_first(raw: bytes, expected: bytes):
    assert set_member(raw, KEY, b"1", present=False) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"model":"a"}', b'{"model":1}'),
        (b'{ "model" : "a" , "x":1.0}', b'{ "model" : 1 , "x":1.0}'),
        (b'{"x":{"model":"inner"},"model":"a"}', b'{"x":{"model":"inner"},"model":1}'),
        (b'{"x":["model",{"model":2}],"model":"a"}', b'{"x":["model",{"model":2}],"model":1}'),
        (b'{"x":"model","model":"a"}', b'{"x":"model","model":1}'),
        (b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":1}'),
        (b'{"model":"a","mod\\u0065l":"b"}', b'{"model":1,"mod\\u0065l":1}'),
        (b'{"x":"\\u00e9\\u003c","model":"a"}', b'{"x":"\\u00e9\\u003c","model":1}'),
        (b'{"x":"\\u00e9","mod\\u0065l":"a"}', b'{"x":"\\u00e9","mod\\u0065l":1}'),
        (b'{"x":"\\u00e9","model":"a","mod\\u0065l":"b"}', b'{"x":"\\u00e9","model":1,"mod\\u0065l":1}'),
        (b'{"model":"a","model":"b"}', b'{"model":1,"model":1}'),
        (b'{"model":null}', b'{"model":1}'),
        (b'{"model":["a",{"b":"}"}]}', b'{"model":1}'),
        (b'{"model":"a\\"b\\\\"}', b'{"model":1}'),
        (b'{"x\\"model":"no","model":"a"}', b'{"x\\"model":"no","model":1}'),
        (b'{"x":"\xff","model":"a"}', b'{"x":"\xff","model":1}'),
        (b'{"\xff\\n":"x","model":"a","model":"b"}', b'{"\xff\\n":"x","model":1,"model":1}'),
    ],
)
def test_the_top_level_member_is_found_however_it_is_spelt(raw: bytes, expected: bytes):
    assert set_member(raw, KEY, b"1", present=True) == expected


@pytest.mark.parametrize("letter", [*string.ascii_letters, "_"])
def test_any_letter_in_an_escape_may_be_one_of_the_names(letter: str):
    assert lone_name(b'{"x":"\\u%04x","model":"a"}' % ord(letter), KEY) == -1


@pytest.mark.parametrize("text", ["\u00e9", "\u017f", "<b>", "&", "\n", "0", "\u2028"])
def test_escapes_of_what_is_no_letter_of_a_name_are_in_nobodys_way(text: str):
    escaped = "".join(f"\\u{ord(each):04x}" for each in text if not each.isalpha() or not each.isascii()).encode()
    assert lone_name(b'{"x":"%b","model":"a"}' % escaped, KEY) == len(escaped) + 8


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"usage":null}', b"{}"),
        (b'{"usage":null,"a":1}', b'{"a":1}'),
        (b'{"a":1,"usage":null}', b'{"a":1}'),
        (b'{"a":1,"usage":{"x":[1,2]},"b":2}', b'{"a":1,"b":2}'),
        (b'{"usage":1,"usage":2}', b"{}"),
        (b'{"a":1,"usage":1,"usage":2}', b'{"a":1}'),
        (b'{"usage":1,"usage":2,"a":1,"usage":3,"usage":4}', b'{"a":1}'),
        (b'{"usage":1,"a":1,"usage":2,"b":1,"usage":3}', b'{"a":1,"b":1}'),
        (b'{ "usage" : 1 , "a" : 1 , "usage" : 2 }', b'{  "a" : 1 }'),
        (b'{"a":{"usage":1}}', b'{"a":{"usage":1}}'),
    ],
)
def test_a_removed_member_takes_one_comma_with_it(raw: bytes, expected: bytes):
    assert remove_member(raw, "usage") == expected


def test_a_member_that_is_there_very_often_costs_no_more_than_its_bytes():
    """A body is read once, however often it names the same: twice as many took four times as long, and these many minutes."""
    often = b'{%b"a":1%b}' % (b'"k":{},' * 20_000, b',"k":{}' * 20_000)
    assert remove_member(often, "k") == b'{"a":1}'
    assert set_member(often, "k", b"null", present=True) == often.replace(b"{}", b"null")
