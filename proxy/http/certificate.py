"""The certificate that the data plane shows: another takes its place between two handshakes, as a whole."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """Where a certificate is."""

    @property
    def paths(self) -> dict[str, Path]:
        """`certificate`, and its `key`."""


def context_for(files: Files | None) -> ssl.SSLContext | None:
    """What the data plane shows to its clients; None for plain HTTP.

    Raises OSError for files that cannot be read, and, with words for people and no `errno`, for what cannot be used.
    """
    if files is None:
        return None
    certificate, key = files.paths["certificate"], files.paths["key"]

    def password() -> str:
        raise OSError(f"{key} is encrypted, and nobody is asked for its password")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password)
    except ssl.SSLError as error:
        raise OSError(_wrong(certificate, key, error.reason)) from error
    return context


def _wrong(certificate: Path, key: Path, reason: str | None) -> str:
    """What is wrong with the two; OpenSSL names it only where it could read them."""
    if reason == "KEY_VALUES_MISMATCH":
        return f"{certificate} and {key} do not belong together"
    if b"-----BEGIN CERTIFICATE-----" not in certificate.read_bytes():
        return f"{certificate} is no PEM certificate"
    if b"PRIVATE KEY-----" not in key.read_bytes():
        return f"{key} is no PEM private key"
    return f"{certificate} and {key} cannot be used: " + (reason.replace("_", " ").lower() if reason else "one of them is damaged")


class Shown:
    """`listening` is for the listener; every handshake on it shows what `now` is at that moment.

    Files that are loaded into a context that is in use may leave it with a certificate and the key of another, and then nobody can connect.
    So what is shown is replaced, and not changed.
    """

    def __init__(self, first: ssl.SSLContext) -> None:
        self.listening = self.now = first
        first.sni_callback = self._show

    def _show(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        # OpenSSL asks in each handshake, also where the client names no server.
        connection.context = self.now
