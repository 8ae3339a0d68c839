"""Virtual keys: what clients show instead of a provider's key. `sk-cmp-<id>_<secret>_<check>`, of one length.

The id is public: it names the key in records and to administrators. The secret has more than 192 bits and is kept nowhere: stored is its
`digest`, which without the pepper is of no use. The check is a CRC-32 of all before it, so that a typing error, or a key that was found
somewhere and made up, is told without asking anybody; it secures nothing.
Shape after https://github.blog/2021-04-05-behind-githubs-new-authentication-token-formats/
"""

from __future__ import annotations

import hmac
import re
import secrets
import string
import zlib

PREFIX = "sk-cmp-"

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID = 12
_SECRET = 33  # 62 ** 33 > 2 ** 192
_CHECK = 8  # hexadecimal digits

#: Characters of every key.
LENGTH = len(PREFIX) + _ID + 1 + _SECRET + 1 + _CHECK

_SHAPE = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{_ID}}})_[0-9A-Za-z]{{{_SECRET}}}_[0-9a-f]{{{_CHECK}}}")


def generate() -> tuple[str, str]:
    """A new key's public id, and the key itself, which is shown once."""
    public = _random(_ID)
    body = f"{PREFIX}{public}_{_random(_SECRET)}"
    return public, f"{body}_{_check(body)}"


def parse(token: str) -> str | None:
    """The public id in a key; None for whatever is none of ours by its shape. Never raises; a longer text is not looked at."""
    if len(token) != LENGTH:
        return None
    match = _SHAPE.fullmatch(token)
    if match is None or _check(token[: -_CHECK - 1]) != token[-_CHECK:]:
        return None
    return match[1]


def digest(token: str, pepper: bytes) -> bytes:
    """HMAC-SHA256 (32 bytes) of any text: what is stored and looked up in a key's place. `pepper` is at least 32 random bytes."""
    return hmac.digest(pepper, token.encode("utf-8", "surrogatepass"), "sha256")


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _check(body: str) -> str:
    return f"{zlib.crc32(body.encode('ascii')):08x}"
