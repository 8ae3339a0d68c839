"""What seals credentials: the key-encryption key, and how much of a secret may be shown."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

from proxy.secrets import SecretError, resolve
from proxy.vault import HOW_TO_MAKE, KeyEncryptionKey, VaultError, parse_key

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

#: Four characters of fewer than this many would be too much of a secret to show.
_SHORTEST_SHOWN = 16


def key_of(reference: str | None, environ: Mapping[str, str]) -> KeyEncryptionKey:
    """The key that `reference` leads to, looked up each time and held by nobody. It may wait for a keyring. Raises VaultError."""
    if reference is None:
        raise VaultError(f"credentials.key is not set; {HOW_TO_MAKE}")
    try:
        return parse_key(resolve(reference, environ))
    except (SecretError, VaultError) as error:
        raise VaultError(f"its key {reference} cannot be used: {error}") from None


def is_name(text: str) -> bool:
    """Whether a credential may be called so: lower-case letters, digits, dots, dashes and underscores, 64 at most."""
    return _NAME.fullmatch(text) is not None


def last_four(secret: str) -> str:
    """The characters that a credential is told by; none of a short one."""
    return secret[-4:] if len(secret) >= _SHORTEST_SHOWN else ""


def fingerprint(secret: str, pepper: bytes) -> str:
    """16 hexadecimal digits, HMAC-SHA256: the same for the same secret, and of no use to who tries secrets without the pepper."""
    return hmac.new(pepper, b"comporta credential fingerprint\0" + secret.encode(), hashlib.sha256).hexdigest()[:16]
