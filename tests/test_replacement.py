"""A file is given another content: whole or not at all, and never over what somebody else wrote meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.replacement import Changed, is_mounted, probe, replace

MOUNTS = b"""\
22 1 0:21 / / rw,relatime - overlay overlay rw
31 22 8:1 /kept/gateway.yaml /etc/comporta/gateway.yaml ro,relatime shared:1 - ext4 /dev/sda1 rw
32 22 8:1 /kept /srv/with\\040blank/a\\134b.yaml rw - ext4 /dev/sda1 rw
33 22 8:1 / /etc/folder rw - ext4 /dev/sda1 rw
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/etc/comporta/gateway.yaml", True),
        ("/etc/comporta/gateway.yam", False),
        ("/etc/folder/gateway.yaml", False),
        ("/kept/gateway.yaml", False),
        ("/srv/with blank/a\\b.yaml", True),
    ],
)
def test_a_file_that_is_a_mount_of_its_own_is_known_by_the_systems_table(path: str, expected: bool):
    assert is_mounted(Path(path), MOUNTS) is expected


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "a.yaml"
    found.write_bytes(b"old\r\n")
    found.chmod(0o640)
    return found


def test_a_file_that_is_still_the_same_is_replaced(file: Path):
    replace(file, b"new\r\n", b"old\r\n")
    assert (file.read_bytes(), file.stat().st_mode & 0o777, list(file.parent.iterdir())) == (b"new\r\n", 0o640, [file])


def test_a_link_stays_one(file: Path, tmp_path: Path):
    link = tmp_path / "link"
    link.symlink_to(file)
    replace(link, b"new", b"old\r\n")
    assert (link.is_symlink(), file.read_bytes()) == (True, b"new")


@pytest.mark.parametrize("change", [probe, replace])
def test_a_file_that_is_another_by_a_byte_stays(file: Path, change: Callable[[Path, bytes, bytes], None]):
    with pytest.raises(Changed):
        change(file, b"new", b"old\n")
    assert (file.read_bytes(), list(file.parent.iterdir())) == (b"old\r\n", [file])


def test_a_probe_leaves_nothing_and_touches_nothing(file: Path):
    before = found_of(file)
    probe(file, b"new", b"old\r\n")
    assert (found_of(file), list(file.parent.iterdir())) == (before, [file])


def found_of(file: Path) -> tuple[bytes, int, int, int]:
    """What a change shows by: the bytes, which file it is, and when it and what is known of it were changed."""
    found = file.stat()
    return file.read_bytes(), found.st_ino, found.st_mtime_ns, found.st_ctime_ns


@pytest.mark.parametrize("change", [probe, replace])
def test_a_file_that_is_gone_is_an_error_of_the_system(file: Path, change: Callable[[Path, bytes, bytes], None]):
    file.unlink()
    with pytest.raises(FileNotFoundError):
        change(file, b"new", b"old\r\n")
    assert list(file.parent.iterdir()) == []
