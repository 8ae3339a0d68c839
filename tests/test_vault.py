"""What is sealed opens with its own key at its own place, and in no other way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.vault import KeyEncryptionKey, Place, Sealed, VaultError, new_key, parse_key, rewrap, seal, unseal

CANARY = "canary-7c1d-not-a-real-key"
KEY = KeyEncryptionKey(bytes(range(32)))
OTHER = KeyEncryptionKey(bytes(32))
PLACE = Place("spare", 1)


def _with(sealed: Sealed, part: str, data: bytes) -> Sealed:
    return replace(sealed, wrapped=data) if part == "wrapped" else replace(sealed, text=data)


def test_what_is_sealed_can_be_opened():
    assert unseal(seal(CANARY, PLACE, KEY), PLACE, KEY) == CANARY


def test_two_seals_of_the_same_secret_have_nothing_in_common():
    one, two = seal(CANARY, PLACE, KEY), seal(CANARY, PLACE, KEY)
    assert one.wrapped != two.wrapped
    assert one.text != two.text


def test_nothing_of_the_secret_or_the_key_is_readable_in_the_record():
    sealed = seal(CANARY, PLACE, KEY)
    for data in (sealed.wrapped, sealed.text, sealed.key_id.encode()):
        assert CANARY.encode() not in data
        assert KEY.data not in data
    assert CANARY not in repr(sealed)
    assert KEY.data.hex() not in repr(KEY)


@pytest.mark.parametrize("part", ["wrapped", "text"])
def test_any_changed_byte_is_noticed(part: str):
    sealed = seal(CANARY, PLACE, KEY)
    data = getattr(sealed, part)
    for index in range(len(data)):
        changed = bytearray(data)
        changed[index] ^= 1
        with pytest.raises(VaultError, match="was changed"):
            unseal(_with(sealed, part, bytes(changed)), PLACE, KEY)


@pytest.mark.parametrize("part", ["wrapped", "text"])
@pytest.mark.parametrize("length", [0, 11, 27])
def test_a_record_that_is_cut_short_is_noticed(part: str, length: int):
    sealed = seal(CANARY, PLACE, KEY)
    with pytest.raises(VaultError, match="cut short"):
        unseal(_with(sealed, part, getattr(sealed, part)[:length]), PLACE, KEY)


@pytest.mark.parametrize("place", [Place("other", 1), Place("spare", 2), Place("spare/1", 1), Place("", 1)])
def test_a_record_at_another_place_does_not_open(place: Place):
    with pytest.raises(VaultError, match="belongs to another name or version"):
        unseal(seal(CANARY, PLACE, KEY), place, KEY)


def test_halves_of_two_records_do_not_make_one():
    one, two = seal(CANARY, PLACE, KEY), seal("another", PLACE, KEY)
    with pytest.raises(VaultError, match="was changed"):
        unseal(replace(one, text=two.text), PLACE, KEY)


def test_another_key_is_named_by_its_id():
    with pytest.raises(VaultError, match=f"sealed with the key {KEY.id}, and this is the key {OTHER.id}"):
        unseal(seal(CANARY, PLACE, KEY), PLACE, OTHER)


def test_another_key_under_the_same_id_does_not_open_either():
    with pytest.raises(VaultError, match="was changed"):
        unseal(replace(seal(CANARY, PLACE, KEY), key_id=OTHER.id), PLACE, OTHER)


def test_rotation_of_the_key_wraps_anew_and_leaves_the_text():
    before = seal(CANARY, PLACE, KEY)
    after = rewrap(before, PLACE, KEY, OTHER)
    assert unseal(after, PLACE, OTHER) == CANARY
    assert after.text == before.text
    with pytest.raises(VaultError, match="sealed with the key"):
        unseal(after, PLACE, KEY)


def test_rotation_with_the_wrong_old_key_is_refused():
    with pytest.raises(VaultError, match="sealed with the key"):
        rewrap(seal(CANARY, PLACE, KEY), PLACE, OTHER, KEY)


def test_a_key_is_read_as_it_was_written():
    written = new_key()
    assert len(parse_key(written).data) == 32
    assert parse_key(written) == parse_key(written + "=\n")
    assert new_key() != written


@pytest.mark.parametrize("text", ["", "short", "not base64!" * 4, "A" * 44, "é" * 43])
def test_what_is_no_key_is_refused_with_how_to_make_one_and_not_repeated(text: str):
    with pytest.raises(VaultError, match="comporta credentials init-key") as caught:
        parse_key(text)
    assert not text or text not in str(caught.value)
