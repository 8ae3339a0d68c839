"""Follows references to secrets: `env:NAME`, `file:PATH`, `keyring:NAME`, `store:NAME`. The configuration itself never holds one."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

_Answer = TypeVar("_Answer")

_SERVICE = "comporta"
_MAX_BYTES = 64 * 1024


class SecretError(Exception):
    """A reference leads nowhere. The message says why and what to do, and holds nothing of what was found."""


Store = Callable[[str], str]
"""The credential store: from a name to its secret. Raises SecretError; see `proxy.storage.credential_store`."""


class Keyring(Protocol):
    """What is asked of the package `keyring`."""

    def get_password(self, service_name: str, username: str) -> str | None: ...
    def set_password(self, service_name: str, username: str, password: str) -> None: ...


def resolve(reference: str, environ: Mapping[str, str], store: Store | None = None) -> str:
    """The secret that `reference` names, without the line break at its end; `store` is who knows `store:`. Raises SecretError.

    `file:` paths are absolute, or relative to where the process was started; `~` is the home directory.
    """
    scheme, _, name = reference.partition(":")
    find = _SCHEMES.get(scheme)
    if find is None or not name:
        raise SecretError(f"write a reference as one of {', '.join(f'{known}:NAME' for known in _SCHEMES)}")
    return checked(store(name) if scheme == "store" and store is not None else find(name, environ))


class Followed:
    """References, each followed once and where that may wait: a file, a keyring. Calling it never waits. Raises SecretError."""

    def __init__(self, references: Iterable[str], environ: Mapping[str, str], store: Store | None = None) -> None:
        self._found: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        for reference in dict.fromkeys(references):
            try:
                self._found[reference] = resolve(reference, environ, store)
            except SecretError as error:
                self.missing[reference] = str(error)

    def __call__(self, reference: str) -> str:
        if reference in self.missing:
            raise SecretError(self.missing[reference])
        return self._found[reference]

    def differs(self, store: Store) -> bool:
        """Whether `store` has something else now."""
        return any(self._stored(reference, store) != self._found.get(reference) for reference in (*self._found, *self.missing))

    def _stored(self, reference: str, store: Store) -> str | None:
        if not reference.startswith("store:"):
            return self._found.get(reference)
        try:
            return checked(store(reference.removeprefix("store:")))
        except SecretError:
            return None


def checked(text: str) -> str:
    """`text` without the line break at its end, if it can be a key. Raises SecretError."""
    secret = text.strip("\r\n")
    if not secret.strip():
        raise SecretError("it is empty")
    if not (secret.isascii() and secret.isprintable()):
        raise SecretError("it holds a line break or other characters that no key has")
    return secret


def _from_environment(name: str, environ: Mapping[str, str]) -> str:
    if name not in environ:
        raise SecretError(f"the environment variable {name} is not set; export {name}=... before the start")
    return environ[name]


def _from_file(path: str, _environ: Mapping[str, str]) -> str:
    path = os.path.expanduser(path)
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            # Of the open file, not of the path: what was checked is what is read.
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise SecretError(f"{path} is no regular file")
            if found.st_mode & (stat.S_IROTH | stat.S_IWOTH):
                raise SecretError(
                    f"{path} is open to every user of this machine; chmod 600 {path} (in a Kubernetes volume: defaultMode: 0440)"
                )
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SecretError(f"{path}: {error.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise SecretError(f"{path} is larger than {_MAX_BYTES // 1024} KiB, which no key is")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise SecretError(f"{path} is not text") from None


def _without_waiting(path: str, flags: int) -> int:
    """Opening a named pipe would otherwise hold up the start."""
    return os.open(path, flags | os.O_NONBLOCK)


def installed_keyring() -> Keyring:
    """The package `keyring`. Raises SecretError where it is not installed: servers mostly have no keyring."""
    try:
        import keyring
    except ImportError:
        raise SecretError("the package keyring is not installed; pip install 'comporta[keyring]', or keep it in a file") from None
    found: Keyring = keyring
    return found


def _from_keyring(name: str, _environ: Mapping[str, str]) -> str:
    return from_keyring(installed_keyring(), name)


def from_keyring(keyring: Keyring, name: str) -> str:
    """What the operating system's keyring has for the service `comporta` under `name`. Raises SecretError."""
    found = _answered(lambda: keyring.get_password(_SERVICE, name))
    if found is None:
        raise SecretError(f"the keyring has none of that name; set it with: keyring set {_SERVICE} {name}")
    return found


def into_keyring(keyring: Keyring, name: str, secret: str) -> None:
    """Have the operating system's keyring keep `secret` under a new name. Raises SecretError."""
    if _answered(lambda: keyring.get_password(_SERVICE, name)) is not None:
        raise SecretError(f"the keyring has a {name!r} already, and what it encrypted would be lost")
    _answered(lambda: keyring.set_password(_SERVICE, name, secret))


def _answered(ask: Callable[[], _Answer]) -> _Answer:
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 - each of keyring's back ends raises errors of its own
        raise SecretError(f"the keyring does not answer ({type(error).__name__})") from None


def _from_store(_name: str, _environ: Mapping[str, str]) -> str:
    raise SecretError("a reference into the credential store means nothing here; use env:, file: or keyring:")


_SCHEMES: dict[str, Callable[[str, Mapping[str, str]], str]] = {
    "env": _from_environment,
    "file": _from_file,
    "keyring": _from_keyring,
    "store": _from_store,
}
