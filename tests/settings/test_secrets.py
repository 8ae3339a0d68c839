"""References are followed, and what they lead to is shown nowhere."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from proxy.secrets import Followed, SecretError, from_keyring, into_keyring, resolve

CANARY = "canary-7c1d"


def _file(tmp_path: Path, content: bytes, mode: int = 0o600) -> str:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return f"file:{path}"


def test_a_variable_holds_the_secret():
    assert resolve("env:KEY", {"KEY": CANARY}) == CANARY


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440])
def test_a_file_holds_the_secret_without_the_line_break_at_its_end(tmp_path: Path, end: bytes, mode: int):
    assert resolve(_file(tmp_path, CANARY.encode() + end, mode), {}) == CANARY


def test_a_variable_that_is_not_set_is_named():
    with pytest.raises(SecretError, match="the environment variable KEY is not set"):
        resolve("env:KEY", {"OTHER": CANARY})


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602])
def test_a_file_that_everyone_can_open_is_refused(tmp_path: Path, mode: int):
    with pytest.raises(SecretError, match=r"open to every user of this machine; chmod 600 .*/key"):
        resolve(_file(tmp_path, CANARY.encode(), mode), {})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (f"{CANARY}\nmore".encode(), "line break"),
        (f"{CANARY}é".encode(), "no key has"),
        (CANARY.encode() + b"\xff", "is not text"),
        (CANARY.encode() * 9000, "is larger than 64 KiB"),
    ],
)
def test_what_can_be_no_key_is_refused_and_not_repeated(tmp_path: Path, content: bytes, said: str):
    with pytest.raises(SecretError, match=said) as caught:
        resolve(_file(tmp_path, content), {})
    assert CANARY not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(SecretError, match=r"gone: No such file"):
        resolve(f"file:{tmp_path}/gone", {})


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("pipe", "."):
        with pytest.raises(SecretError, match=r"is no regular file|Is a directory"):
            resolve(f"file:{tmp_path}/{name}", {})


@pytest.mark.parametrize("reference", ["env:", "KEY", "http://x", ""])
def test_what_is_no_reference_is_not_repeated(reference: str):
    with pytest.raises(SecretError, match="write a reference as one of env:NAME, file:NAME, keyring:NAME, store:NAME"):
        resolve(reference, {})


def test_a_store_is_asked_where_there_is_one():
    assert resolve("store:spare", {}, {"spare": CANARY + "\n"}.__getitem__) == CANARY
    with pytest.raises(SecretError, match="means nothing here"):
        resolve("store:spare", {})


def test_references_that_were_followed_are_not_followed_again():
    found = {"spare": CANARY}
    followed = Followed(["env:KEY", "store:spare", "env:GONE", "store:gone"], {"KEY": "a-key"}, partial(_stored, found))
    assert (followed("env:KEY"), followed("store:spare")) == ("a-key", CANARY)
    assert list(followed.missing) == ["env:GONE", "store:gone"]
    with pytest.raises(SecretError, match="GONE is not set"):
        followed("env:GONE")
    found.clear()
    assert followed("store:spare") == CANARY


@pytest.mark.parametrize("now", [{"spare": "another"}, {}, {"spare": CANARY, "gone": "found"}])
def test_what_was_followed_differs_from_a_store_that_has_changed(now: dict[str, str]):
    references = ["env:KEY", "store:spare", "store:gone"]
    followed = Followed(references, {"KEY": "a-key"}, partial(_stored, {"spare": CANARY}))
    assert not followed.differs(partial(_stored, {"spare": CANARY, "other": "unused"}))
    assert followed.differs(partial(_stored, now))


def _stored(found: dict[str, str], name: str) -> str:
    if name not in found:
        raise SecretError("it is not there")
    return found[name]


class _Keyring:
    def __init__(self, entries: dict[tuple[str, str], str] | None) -> None:
        self.entries = entries

    def get_password(self, service_name: str, username: str) -> str | None:
        if self.entries is None:
            raise RuntimeError(CANARY)
        return self.entries.get((service_name, username))

    def set_password(self, service_name: str, username: str, password: str) -> None:
        assert self.entries is not None
        self.entries[service_name, username] = password


def test_the_keyring_is_asked_under_the_services_name():
    assert from_keyring(_Keyring({("comporta", "spare"): CANARY}), "spare") == CANARY


def test_a_keyring_without_the_entry_says_how_to_make_it():
    with pytest.raises(SecretError, match="keyring set comporta spare"):
        from_keyring(_Keyring({}), "spare")


def test_a_keyring_that_fails_is_not_quoted():
    with pytest.raises(SecretError, match="does not answer") as caught:
        from_keyring(_Keyring(None), "spare")
    assert CANARY not in str(caught.value)


def test_the_keyring_keeps_a_new_secret_and_gives_up_no_old_one():
    keyring = _Keyring({})
    into_keyring(keyring, "kek", CANARY)
    assert from_keyring(keyring, "kek") == CANARY
    with pytest.raises(SecretError, match="has a 'kek' already"):
        into_keyring(keyring, "kek", "another")
    assert from_keyring(keyring, "kek") == CANARY
