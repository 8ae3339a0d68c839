"""Virtual keys: made so that they are read again, and whatever else comes is refused without a word."""

from __future__ import annotations

import hashlib
import hmac
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import keys

#: A key like any other, but always the same: test names come out of it.
ID = "JIM6XXOJZa8Y"
TOKEN = f"sk-cmp-{ID}_6juwaIUP9HqEx2pYNCZ70ciDHAh9hu4Eb_e449ca07"
PEPPER = b"p" * 32


def test_a_generated_key_has_the_shape_that_is_documented():
    assert re.fullmatch(r"sk-cmp-[0-9A-Za-z]{12}_[0-9A-Za-z]{33}_[0-9a-f]{8}", TOKEN)
    assert len(TOKEN) == keys.LENGTH
    assert math.log2(62) * 33 >= 192


def test_a_generated_key_gives_its_id_back():
    made = [keys.generate() for _ in range(200)]
    assert [keys.parse(token) for _, token in made] == [public for public, _ in made]
    assert len({token for _, token in made}) == len({public for public, _ in made}) == len(made)


def test_the_secret_uses_the_whole_alphabet():
    seen = set("".join(keys.generate()[1].split("_")[1] for _ in range(200)))
    assert len(seen) == 62


@given(st.integers(0, keys.LENGTH - 1), st.characters())
def test_one_wrong_character_is_noticed(place: int, wrong: str):
    changed = TOKEN[:place] + wrong + TOKEN[place + 1 :]
    assert keys.parse(changed) == (ID if changed == TOKEN else None)


@given(st.text())
def test_any_text_is_no_key_and_raises_nothing(text: str):
    for token in (text, keys.PREFIX + text, TOKEN + text[:1], TOKEN[: len(text)]):
        assert keys.parse(token) == (ID if token == TOKEN else None)


@given(st.text(st.characters(exclude_categories=()), min_size=keys.LENGTH, max_size=keys.LENGTH))
def test_text_of_a_keys_length_is_no_key_and_raises_nothing(text: str):
    assert keys.parse(text) is None


@pytest.mark.parametrize(
    "token",
    [
        "",
        "sk-cmp-",
        TOKEN + "\n",
        " " + TOKEN,
        TOKEN.upper(),
        TOKEN.replace("sk-cmp-", "sk-"),
        TOKEN[:-8] + "0" * 8 if not TOKEN.endswith("0" * 8) else TOKEN[:-1] + "1",
        "sk-cmp-' OR '1'='1' --_" + "a" * (keys.LENGTH - 24),
        TOKEN[:20] + "\0" + TOKEN[21:],
        TOKEN[:20] + "ü" + TOKEN[21:],
        TOKEN[:20] + "\udcff" + TOKEN[21:],
        TOKEN[:7] + "٣" * 12 + TOKEN[19:],
        "sk-cmp-" + "a" * 2**20,
    ],
    ids=ascii,
)
def test_what_is_no_key_is_none(token: str):
    assert keys.parse(token) is None


def test_a_digest_is_the_hmac_of_the_whole_key():
    assert keys.digest(TOKEN, PEPPER) == hmac.new(PEPPER, TOKEN.encode(), hashlib.sha256).digest()
    assert keys.digest(TOKEN, b"q" * 32) != keys.digest(TOKEN, PEPPER)


@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_two_texts_have_two_digests_and_none_raises(one: str, other: str):
    assert (keys.digest(one, PEPPER) == keys.digest(other, PEPPER)) == (one == other)
    assert len(keys.digest(one, PEPPER)) == 32
