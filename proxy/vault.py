"""Envelope encryption of credentials: each record under a data key of its own, each data key under the key-encryption key.

Pure functions: bytes in, bytes out; where the key-encryption key is kept is the caller's business. AES-256-GCM with 96-bit random nonces,
NIST SP 800-38D, 8.2.2. A record's place (its name and version) is associated data of both layers, so a record that was copied to another
name, or an old version put back under a new number, does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from typing import Any

KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16

#: How to get what is missing; every message about a key ends with it.
HOW_TO_MAKE = "make one with: comporta credentials init-key"


class VaultError(Exception):
    """A record cannot be opened, or a key is none. The message holds nothing of either."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record belongs: a credential's name, and how often it has been replaced."""

    name: str
    version: int

    def bound(self, layer: str) -> bytes:
        """Associated data. The name's length goes before it, so that no two places read alike."""
        name = self.name.encode()
        return b"comporta/credential/1/%s/%d/%s/%d" % (layer.encode(), len(name), name, self.version)


@dataclass(frozen=True, slots=True, repr=False)
class Sealed:
    """What is stored: `wrapped` is the data key under the key-encryption key, `text` the secret under the data key; nonces go first."""

    key_id: str
    wrapped: bytes
    text: bytes


@dataclass(frozen=True, slots=True, repr=False)
class KeyEncryptionKey:
    """32 bytes; `id` tells one from another and gives nothing of it away."""

    data: bytes

    @property
    def id(self) -> str:
        return hashlib.sha256(b"comporta key id " + self.data).hexdigest()[:12]


def new_key() -> str:
    """A fresh key-encryption key as it is written: 43 characters of base64 for URLs."""
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode().rstrip("=")


def parse_key(text: str) -> KeyEncryptionKey:
    """The key that `new_key` wrote. Raises VaultError."""
    text = text.strip().rstrip("=")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != KEY_BYTES:
        raise VaultError(f"it is no key-encryption key, which is {KEY_BYTES} random bytes in base64; {HOW_TO_MAKE}")
    return KeyEncryptionKey(data)


def seal(secret: str, place: Place, key: KeyEncryptionKey) -> Sealed:
    """`secret` under a new data key, that one under `key`, both bound to `place`."""
    data_key = os.urandom(KEY_BYTES)
    return Sealed(key.id, _encrypt(key.data, data_key, place.bound("key")), _encrypt(data_key, secret.encode(), place.bound("text")))


def unseal(sealed: Sealed, place: Place, key: KeyEncryptionKey) -> str:
    """What was sealed. Raises VaultError for another key, another place, or a changed byte."""
    return _decrypt(_data_key(sealed, place, key), sealed.text, place.bound("text")).decode()


def rewrap(sealed: Sealed, place: Place, old: KeyEncryptionKey, new: KeyEncryptionKey) -> Sealed:
    """The same record under another key-encryption key; the secret itself is not decrypted. Raises VaultError."""
    return Sealed(new.id, _encrypt(new.data, _data_key(sealed, place, old), place.bound("key")), sealed.text)


def _data_key(sealed: Sealed, place: Place, key: KeyEncryptionKey) -> bytes:
    if sealed.key_id != key.id:
        raise VaultError(f"it was sealed with the key {sealed.key_id}, and this is the key {key.id}")
    return _decrypt(key.data, sealed.wrapped, place.bound("key"))


def _encrypt(key: bytes, plain: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + bytes(_cipher(key).encrypt(nonce, plain, bound))


def _decrypt(key: bytes, data: bytes, bound: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag

    if len(data) < _NONCE_BYTES + _TAG_BYTES:
        raise VaultError("the record is cut short")
    try:
        return bytes(_cipher(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], bound))
    except InvalidTag:
        raise VaultError("the record was changed, or belongs to another name or version") from None


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)
