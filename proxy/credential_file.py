"""Sealed credentials in one file, `credentials.json`: 0600 in a directory of 0700, replaced as a whole, refused if others can read it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.vault import Place, Sealed

_NAME = "credentials.json"
_FORMAT = 1
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

Records = dict[str, "Record"]


class StoreError(Exception):
    """The store cannot be used. The message says why and what to do, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Record:
    """One credential, sealed. `last_four` is empty for a secret that is too short to show any of; times are seconds since 1970."""

    place: Place
    sealed: Sealed
    last_four: str
    created: float
    updated: float


class CredentialFile:
    """The records of one directory. Each call reads the file again: another process may have changed it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.path = directory / _NAME

    def read(self) -> Records:
        """By name; empty where there is no file yet. Raises StoreError."""
        try:
            _refuse_others(self._directory, os.stat(self._directory))
            with open(self.path, "rb") as file:
                _refuse_others(self.path, os.fstat(file.fileno()))
                data = file.read()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}") from None
        return _parsed(self.path, data)

    def change(self, edit: Callable[[Records], None]) -> None:
        """Apply `edit` and write; another process that does so meanwhile waits. Raises StoreError, and what `edit` raises."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._alone():
                records = self.read()
                edit(records)
                self._replace(_written(records))
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}") from None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        handle = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
            os.fsync(handle)
        finally:
            os.close(handle)

    def _replace(self, data: bytes) -> None:
        """`mkstemp` makes files of 0600. The name only ever leads to a whole file."""
        handle, temporary = tempfile.mkstemp(prefix=f".{_NAME}.", dir=self._directory)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except BaseException:
            os.unlink(temporary)
            raise


def _refuse_others(path: Path, found: os.stat_result) -> None:
    if found.st_mode & _OTHERS:
        wanted = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise StoreError(f"{path} is open to other users of this machine; chmod {wanted} {path}, and replace the credentials in it")
    if found.st_uid not in (os.geteuid(), 0):
        raise StoreError(f"{path} belongs to another user")


def _written(records: Records) -> bytes:
    document = {"format": _FORMAT, "credentials": [_as_json(record) for record in records.values()]}
    return json.dumps(document, indent=1).encode() + b"\n"


def _as_json(record: Record) -> dict[str, Any]:
    return {
        "name": record.place.name,
        "version": record.place.version,
        "last_four": record.last_four,
        "created": record.created,
        "updated": record.updated,
        "key_id": record.sealed.key_id,
        "wrapped": base64.b64encode(record.sealed.wrapped).decode(),
        "text": base64.b64encode(record.sealed.text).decode(),
    }


def _parsed(path: Path, data: bytes) -> Records:
    try:
        document = json.loads(data)
        if document["format"] != _FORMAT:
            raise StoreError(f"{path} was written by another version of comporta")
        return {entry["name"]: _record(entry) for entry in document["credentials"]}
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise StoreError(f"{path} is damaged; restore it, or remove it and add the credentials again") from None


def _record(entry: dict[str, Any]) -> Record:
    sealed = Sealed(str(entry["key_id"]), base64.b64decode(entry["wrapped"]), base64.b64decode(entry["text"]))
    place = Place(str(entry["name"]), int(entry["version"]))
    return Record(place, sealed, str(entry["last_four"]), float(entry["created"]), float(entry["updated"]))
