"""`comporta users`, `comporta keys`, `comporta audit`: on a real SQLite file; a key is shown once, every change is audited."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from proxy.core.keys import parse
from tests.cli.conftest import Command


@pytest.fixture
def run(command: Command, tmp_path: Path) -> Callable[..., Result]:
    def invoke(*arguments: str) -> Result:
        return command(*arguments, COMPORTA_STORAGE__URL=f"sqlite:///{tmp_path}/comporta.db")

    return invoke


def _json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_user_is_made_changed_listed_and_removed(run):
    assert _json(run("users", "add", "ana", "--tier", "premium", "--json"))["active"] is True
    assert _json(run("users", "set", "ana", "--inactive", "--json"))["active"] is False
    assert [user["id"] for user in _json(run("users", "list", "--json"))] == ["ana"]
    assert "premium" in run("users", "list").stdout
    assert run("users", "remove", "ana", "--yes").exit_code == 0
    assert _json(run("users", "list", "--json")) == []


def test_names_with_control_characters_are_refused(run):
    assert run("users", "add", "ana").exit_code == 0
    for command in (("users", "add", "a\nb"), ("users", "set", "ana", "--tier", "\x1b[31m"), ("keys", "create", "ana", "--name", "a\nb")):
        refused = run(*command)
        assert (refused.exit_code, "holds a control character" in refused.output) == (1, True), refused.output


def test_a_user_has_an_id_that_can_be_seen(run):
    for id in ("", "  ", "a" * 201):
        refused = run("users", "add", id)
        assert (refused.exit_code, "id: wants 1 to 200 characters" in refused.output) == (1, True), refused.output
    assert run("users", "add", "Ana Silva").exit_code == 0


def test_a_key_is_shown_once_and_then_by_its_end(run, tmp_path: Path):
    run("users", "add", "ana")
    made = run("keys", "create", "ana", "--models", "fast,sim", "--expires", "90d")
    token = made.stdout.strip()
    (listed,) = _json(run("keys", "list", "--json"))
    assert (listed["id"], listed["last4"], listed["limits"]["models"]) == (parse(token), token[-4:], ["fast", "sim"])
    for shown in (run("keys", "list").output, run("audit", "list", "--json").output):
        assert token not in shown
    for path in tmp_path.iterdir():
        assert token.encode() not in path.read_bytes()


def test_rotation_makes_a_successor_and_revocation_ends_a_key(run):
    run("users", "add", "ana")
    first = _json(run("keys", "create", "ana", "--json"))
    second = _json(run("keys", "rotate", first["id"], "--overlap", "1h", "--json"))
    assert second["key"] != first["key"]
    assert _json(run("keys", "revoke", second["id"], "--json"))["revoked_at"]
    replaced = {key["id"]: key["replaced_by"] for key in _json(run("keys", "list", "--json"))}
    assert replaced == {first["id"]: second["id"], second["id"]: None}
    assert run("keys", "rotate", first["id"]).exit_code == 1


@pytest.mark.parametrize(("arguments", "is_kept"), [((), True), (("--expires", "never"), False)])
def test_a_successor_ends_when_the_old_key_would_unless_it_is_to_never(run, arguments: tuple[str, ...], is_kept: bool):
    run("users", "add", "ana")
    first = _json(run("keys", "create", "ana", "--expires", "90d", "--json"))
    second = _json(run("keys", "rotate", first["id"], *arguments, "--json"))
    assert second["expires_at"] == (first["expires_at"] if is_kept else None)


@pytest.mark.parametrize("end", ["0d", "0s", "99999999999d", "²d", "9" * 5000 + "d", "soon"])
def test_a_lifetime_that_makes_no_sense_is_wrong_usage(run, end: str):
    run("users", "add", "ana")
    key = _json(run("keys", "create", "ana", "--json"))["id"]
    for arguments in (("create", "ana"), ("rotate", key)):
        result = run("keys", *arguments, "--expires", end)
        assert (result.exit_code, "--expires" in result.stderr) == (2, True)
    assert run("keys", "rotate", key, "--overlap", "99999999999d").exit_code == 2
    assert len(_json(run("keys", "list", "--json"))) == 1


def test_every_change_is_audited_with_who_made_it(run):
    run("users", "add", "ana")
    run("keys", "create", "ana")
    rows = _json(run("audit", "list", "--json"))
    assert [row["action"] for row in rows] == ["key.create", "user.create"]
    assert all(row["actor"].startswith("cli:") for row in rows)
    assert _json(run("audit", "verify", "--json")) == {"whole": True, "first_broken": None}


@pytest.mark.parametrize(
    "arguments",
    [("users", "set", "anna", "--active"), ("users", "remove", "anna", "--yes"), ("users", "remove", "anna"), ("keys", "create", "anna")],
)
def test_a_user_who_is_not_there_is_told_with_the_nearest(run, arguments: tuple[str, ...]):
    run("users", "add", "ana")
    result = run(*arguments)
    assert (result.exit_code, "did you mean 'ana'?" in result.stderr) == (1, True)
    assert "Delete" not in result.output, "asked about nobody"


def test_a_key_that_is_not_there_is_told_and_not_repeated(run):
    run("users", "add", "ana")
    token = run("keys", "create", "ana").stdout.strip()
    other = token[:-20] + "0" * 20
    result = run("keys", "revoke", other)
    assert result.exit_code == 1
    assert other not in result.output
