"""A provider's key goes wherever a client could read it; what stands for one where none is needed is left in peace."""

from __future__ import annotations

import json

import pytest

from proxy.core.hiding import event_without, json_without, shows, without

LONG_KEY = "sk-a/b0123456789"
SHORT_KEY = "abcd1234"


@pytest.mark.parametrize(
    ("text", "secret", "shown"),
    [
        (f"the key {LONG_KEY} is not good", LONG_KEY, "the key *** is not good"),
        (f"x{LONG_KEY}x{LONG_KEY}", LONG_KEY, "x***x***"),
        (f"the key {SHORT_KEY}.", SHORT_KEY, "the key ***."),
        (f"?key={SHORT_KEY}&a", SHORT_KEY, "?key=***&a"),
        (f"x{SHORT_KEY} {SHORT_KEY}_ -{SHORT_KEY} {SHORT_KEY}", SHORT_KEY, f"x{SHORT_KEY} {SHORT_KEY}_ -{SHORT_KEY} ***"),
        ("the lm-studio server", "lm-studio", "the *** server"),
        ("context is too long: 1234", "123", "context is too long: 1234"),
        ("no token is EMPTY", "EMPTY", "no token is EMPTY"),
        ("x", "x", "x"),
        ("", LONG_KEY, ""),
    ],
)
def test_a_key_is_taken_out_of_a_text_and_a_word_is_not(text: str, secret: str, shown: str) -> None:
    assert without(text, secret) == shown
    assert shows(text, secret) is (shown != text)


@pytest.mark.parametrize(
    ("value", "secret", "shown"),
    [
        ({"a": LONG_KEY, "b": [1, f"<{LONG_KEY}>"]}, LONG_KEY, {"a": "***", "b": [1, "<***>"]}),
        ({"a": 'the "key" of\\many'}, '"key" of\\many', {"a": "the ***"}),
        ({"a": 'the "key" of\\many letters'}, '"key" of\\many letters', {"a": "the ***"}),
        ({"n": 12345678, "a": "x"}, "12345678", None),
        ({"n": 1234567890123456789}, "1234567890123456", None),
        ({"n": 12345, "a": "x123"}, "123", {"n": 12345, "a": "x123"}),
        ({"is": True, "a": "true"}, "true", {"is": True, "a": "true"}),
        ([None], LONG_KEY, [None]),
    ],
)
@pytest.mark.parametrize("is_pretty", [False, True])
def test_json_stays_json_whatever_is_taken_out_of_it(value: object, secret: str, shown: object, is_pretty: bool) -> None:
    text = json.dumps(value, indent=1 if is_pretty else None)
    found = json_without(text, secret)
    assert (found if found is None else json.loads(found)) == shown
    lines = text.encode().split(b"\n")
    event = b"event: error\n" + b"".join(b"data: %b\n" % line for line in lines) + b"\n"
    told = event_without(event, secret)
    assert told.startswith(b"event: error\ndata: ") is (shown is not None)
    assert told == (b"" if shown is None else event if shown == value else told)
    if shown is not None:
        assert json.loads(b"".join(told.split(b"\ndata: ")[1:])) == shown


def test_an_event_that_is_no_text_is_left_as_it_was_but_for_the_key() -> None:
    event = b'data: {"a": "\xff"}\n\n'
    assert event_without(event, LONG_KEY) == event
    assert event_without(event.replace(b"\xff", b"\xff" + LONG_KEY.encode()), LONG_KEY) == event.replace(b"\xff", b"\xff***")
