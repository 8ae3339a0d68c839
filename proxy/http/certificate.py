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

    Raises OSError for files that cannot be read, or do not belong together.
    """
    if files is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.paths["certificate"], files.paths["key"])
    return context


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
