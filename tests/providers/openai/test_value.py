"""JSON that clients read and a strict parser does not."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.openai.value import read_event, value_of
from proxy.core.errors import UpstreamError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'"\\ud83d"', "\ufffd"),
        (b'"\\uDE00 b"', "\ufffd b"),
        (b'"\\ud83d\\ude00\\ud83d"', "😀\ufffd"),
        (b'"\\ud83d\\ud83d\\ude00"', "\ufffd😀"),
        (b'"\\ud83d\\n\\\\ud83d"', "\ufffd\n\\ud83d"),
        (b'"\\ud83d\\u0041"', "\ufffdA"),
    ],
)
def test_half_a_character_is_read_as_none(text: bytes, value: str):
    assert value_of(text) == value
    assert read_event(b'{"a":%b}' % text) == {"a": value}


@pytest.mark.parametrize(
    "text",
    [b"NaN", b'["\\ud83d",NaN]', b'"\\ud83"', b'"\\ud83d', b'"\\ud83d\n"', b'["\\ud83d"' + b"[" * 5000, b'{"\\ud83d":1e999}', b"\\ud83d"],
)
def test_nothing_else_is_let_pass(text: bytes):
    with pytest.raises(ValueError):
        value_of(text)
    with pytest.raises(UpstreamError):
        read_event(text)


@given(st.lists(st.sampled_from(["\ud83d", "\ude00", "a", "\\", '"', "u", "ud83d", "\n", "é"])).map("".join))
def test_it_is_what_other_parsers_read_but_for_the_halves(text: str):
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    written = json.dumps(text).encode()
    assert value_of(written).replace("\ufffd", "") == whole.replace("\ufffd", "")
    assert value_of(orjson.dumps(whole)) == whole
