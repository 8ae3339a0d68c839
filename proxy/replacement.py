"""Another content for a file that others read and write as well: whole or not at all, and never over what they wrote meanwhile."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: How the system's table of mounts writes what would end a field. Source: proc(5), /proc/pid/mountinfo.
_ESCAPED = ((b"\\", rb"\134"), (b" ", rb"\040"), (b"\t", rb"\011"), (b"\n", rb"\012"))


class Changed(Exception):
    """The file does not hold any more what it held when it was read."""


def probe(path: Path, data: bytes, before: bytes) -> None:
    """Raise what `replace` would, and touch nothing: the file stays the very one, to its times.

    The new file is written beside it and removed again. That a rename onto it would fail is known only of a file that is a mount of its
    own (a container's single file); what else may forbid one, as a sticky folder of somebody else's, shows when it is done.
    """
    target = path.resolve()
    with suppress(FileNotFoundError):  # there is no such table where the system is not Linux, nor are there such mounts
        if is_mounted(target, Path("/proc/self/mountinfo").read_bytes()):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    with _beside(target, data):
        _compare(target, before)


def replace(path: Path, data: bytes, before: bytes) -> None:
    """Give a file that holds `before` other `data`, and the old one's mode; whoever reads meanwhile sees the old one.

    It is read right before the rename: what is written between these two calls of the system is lost. Raises OSError, Changed.
    """
    target = path.resolve()
    with _beside(target, data) as name:
        _compare(target, before)
        os.replace(name, target)


def is_mounted(path: Path, table: bytes) -> bool:
    """Whether something is mounted at `path` itself, by a `table` as `/proc/self/mountinfo` is: the fifth field of a line."""
    name = os.fsencode(path)
    for plain, escaped in _ESCAPED:
        name = name.replace(plain, escaped)
    return any(line.split(b" ", 5)[4:5] == [name] for line in table.split(b"\n"))


@contextmanager
def _beside(target: Path, data: bytes) -> Iterator[str]:
    """The name of a new file in the same folder, of `data`; gone afterwards, unless it was renamed."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, target.stat().st_mode & 0o777)
        yield name
    finally:
        Path(name).unlink(missing_ok=True)


def _compare(target: Path, before: bytes) -> None:
    if target.read_bytes() != before:
        raise Changed
