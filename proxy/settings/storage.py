"""Where things are kept that outlast a request: for good, and while the gateway runs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from proxy.fields import SecretRef, Section

_REFERENCE = re.compile(r"(env|file|keyring):\S.*")
_SQLITE = re.compile(r"sqlite:///(?!:memory:)[^?]*[^/?](\?|$)")


def _location(text: str, schemes: tuple[str, ...], example: str) -> str:
    """A URL without a secret, or a reference to one that has it. The text is not repeated: it may hold a password."""
    if _REFERENCE.fullmatch(text) and not text.startswith("file://"):
        return text
    parts = urlsplit(text)
    if parts.scheme not in schemes:
        raise ValueError(f'wants {example}, or a reference to it such as "env:NAME"')
    if parts.password:
        raise ValueError('holds a password: put the whole URL into the environment and write "env:NAME", or "file:PATH"')
    return text


def _storage(text: str) -> str:
    if text.startswith("sqlite:") and not _SQLITE.match(text):
        raise ValueError("wants a file, such as sqlite:////var/lib/comporta/comporta.db")
    return _location(text, ("sqlite", "postgresql", "postgres"), "sqlite:////path/of/a/file or postgresql://user@host/name")


def _state(text: str) -> str:
    return text if text == "memory:" else _location(text, ("redis", "rediss", "unix"), "memory: or redis://host:6379/0")


class StorageSettings(Section):
    """What lasts: users, keys, preferences. Needed as soon as clients show keys."""

    url: Annotated[str, AfterValidator(_storage)] | None = Field(
        None,
        description="sqlite:////path/of/a/file or postgresql://user@host/name, or a reference to it where it holds a password; "
        "absent: a SQLite file in $XDG_DATA_HOME/comporta, which is ~/.local/share/comporta where that is not set",
    )
    pepper: SecretRef | None = Field(
        None,
        description="what stored keys are hashed with, 32 characters or more, the same for every gateway at this database and for good; "
        "absent: a file beside the SQLite file, made when there is none",
        pattern="^(env|file|keyring):",
    )
    required: bool = Field(
        False,
        description="whether the gateway refuses to start while the database cannot be reached; otherwise it starts, refuses keys with 503 "
        "until the database is there, and says so",
    )


def default_path(environ: Mapping[str, str]) -> Path:
    """`$XDG_DATA_HOME/comporta/comporta.db`, and `~/.local/share` where that is not set (XDG Base Directory Specification).

    The database where no other is configured.
    """
    home = environ.get("XDG_DATA_HOME", "")
    base = Path(home) if home.startswith("/") else Path(environ.get("HOME") or os.path.expanduser("~")) / ".local" / "share"
    return base / "comporta" / "comporta.db"


def is_there(environ: Mapping[str, str]) -> bool:
    """Whether something was stored before where storage is when nothing is said of it."""
    return default_path(environ).exists()


class StateSettings(Section):
    """What several gateways share while they run."""

    url: Annotated[str, AfterValidator(_state)] = Field(
        "memory:", description="memory: for one process; redis://host:6379/0, or a reference to it where it holds a password"
    )
