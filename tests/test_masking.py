"""What is passed on shows no key of its provider, however its bytes are split, and is as long as it was."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from proxy.core.call import Credential
from proxy.masking import Mask, MaskedBody, is_text, mask_of, masked
from tests.core.doubles import every_cut
from tests.test_stream import WordDecoder

SECRET = "sk-/ab/sk-/abcdef"
ESCAPED = SECRET.replace("/", "\\/")


@pytest.mark.parametrize(
    "text",
    [
        f'{{"error": {{"message": "key {SECRET} and {ESCAPED} are wrong"}}}}',
        f"{SECRET}{SECRET}",
        f"sk-/ab/{SECRET}sk-",
        f"{SECRET[:-1]}{SECRET}",
        SECRET[:-1],
        "nothing to hide: s sk sk- sk-\\",
        "",
    ],
)
def test_a_secret_is_hidden_wherever_the_bytes_are_cut(text: str) -> None:
    expected = text.replace(SECRET, "*" * len(SECRET)).replace(ESCAPED, "*" * len(ESCAPED)).encode()
    for pieces in every_cut(text.encode()):
        mask = MaskedBody(Mask(SECRET))
        assert b"".join([*map(mask.feed, pieces), mask.rest()]) == expected


def test_every_key_of_the_provider_is_hidden() -> None:
    mask = MaskedBody(Mask("sk-aaaa", "sk-bb"))
    assert mask.feed(b"a sk-aaaa b sk-bb c sk-a") + mask.rest() == b"a ******* b ***** c sk-a"


def test_secrets_with_one_beginning_are_hidden_wherever_the_bytes_are_cut() -> None:
    random = Random(1)
    for _ in range(100):
        secrets = ["sk-" + "".join(random.choices("ab/", k=8)) for _ in range(3)]
        mask = Mask(*secrets)
        text = "".join(random.choices([*secrets, *"sk-ab/", "sk-", secrets[0].replace("/", "\\/"), secrets[0][:6]], k=40)).encode()
        expected = mask.whole(text)
        for _ in range(20):
            cuts = sorted(random.choices(range(len(text)), k=random.randint(0, 8)))
            pieces = [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]
            body = MaskedBody(mask)
            assert b"".join([*map(body.feed, pieces), body.rest()]) == expected
        assert not any(secret.encode() in expected for secret in secrets)


def test_a_secret_that_another_one_begins_with_leaves_nothing_of_that_one() -> None:
    assert Mask("sk-aaaa", "sk-aaaabb").whole(b"sk-aaaabb sk-aaaab") == b"********* *******b"


def test_only_what_may_be_a_beginning_is_held_back() -> None:
    mask = MaskedBody(Mask(SECRET))
    assert [mask.feed(piece) for piece in (b"a s", b"k", b"y", b"sk-/", b"x")] == [b"a ", b"", b"sky", b"", b"sk-/x"]
    assert mask.rest() == b""


@pytest.mark.parametrize(
    ("secret", "kind", "hides"),
    [
        (SECRET, "application/json; charset=utf-8", True),
        (SECRET, "text/event-stream", True),
        (SECRET, "application/problem+json", True),
        (SECRET, "audio/mpeg", False),
        ("EMPTY", "application/json", False),
        (None, "application/json", False),
    ],
)
def test_a_text_is_masked_where_there_is_something_to_hide(secret: str | None, kind: str, hides: bool) -> None:
    credentials = [Credential("env:K", secret)] if secret else []
    assert (mask_of(credentials) is not None and is_text(kind)) is hides


def test_events_are_masked_and_told_of_as_before() -> None:
    decoder = masked(WordDecoder(), Mask("key_of_many_letters"))
    assert decoder.feed(b"a key_of_many_letters ") == b"a" + b"*" * 19
    assert (decoder.started, decoder.tokens, decoder.failure) == (True, 20, None)
    assert masked(decoder, None) is decoder
