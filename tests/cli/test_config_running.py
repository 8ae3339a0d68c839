"""`comporta config` before a gateway that runs: what differs, what would be got, what was, and back to it; and what is said without one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from comporta.cli import main
from comporta.cli.gateway import Running
from proxy.core.clock import SystemClock
from proxy.storage.database import Database
from proxy.storage.versions import Versions
from tests.support.gateway import Gateway

KEY = "an-administrators-key-that-is-not-real"

Run = Callable[..., Result]


def _config(folder: Path) -> dict[str, Any]:
    return {
        "server": {"admin_key": "env:TEST_ADMIN_KEY", "grace": "5s"},
        "providers": {"play": {"kind": "sim"}},
        "models": {name: {"provider": "play", "model": "sim"} for name in ("small", "large", "best")},
        "storage": {"url": f"sqlite:///{folder}/comporta.db"},
        "llm": {
            "default_model": "small",
            "timeout": "60s",
            "task_types": {"REPORT": {"model": "large"}},
            "user_preferences": {"premium_model": "best"},
        },
    }


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with Gateway(_config(folder), folder, {"TEST_ADMIN_KEY": KEY}) as found:
        yield found


def _runner(environment: dict[str, str | None], config: Path, *fixed: str) -> Run:
    def run(*arguments: str, said: str | None = None, **variables: str) -> Result:
        # What is fixed stands behind, where a command takes its options.
        words = [*arguments, *(("--config", str(config)) if "--config" not in arguments else ()), *fixed]
        result = CliRunner().invoke(main, words, input=said, env={**environment, "TEST_ADMIN_KEY": KEY, **variables})
        assert KEY not in result.output
        return result

    return run


@pytest.fixture
def run(environment: dict[str, str | None], gateway: Gateway) -> Iterator[Run]:
    """The file is afterwards as it was."""
    before = gateway.config.read_text()
    yield _runner(environment, gateway.config, "--admin", gateway.admin)
    gateway.config.write_text(before)


@pytest.fixture
def alone(environment: dict[str, str | None], tmp_path: Path) -> Run:
    """With a file and a database, and no gateway: its port is one on which nothing listens."""
    config = _config(tmp_path)
    config["server"]["admin_listen"] = "127.0.0.1:1"
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump(config))
    return _runner(environment, path)


def _json(result: Result, status: int = 0) -> Any:
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def _changed(gateway: Gateway, old: str, new: str) -> str:
    text = gateway.config.read_text()
    assert old in text
    return text.replace(old, new)


# ------------------------------------------------------------------------------------------------------------------- diff and show
def test_what_is_in_force_is_compared_with_the_file(run: Run, gateway: Gateway):
    assert (run("config", "diff").exit_code, run("config", "diff").stdout) == (0, "")
    gateway.config.write_text(_changed(gateway, "grace: 5s", "grace: 9s"))
    result = run("config", "diff")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == ["--- running", "+++ file", '-server.grace: "5s"', '+server.grace: "9s"']
    found = _json(run("config", "diff", "--json"), 1)
    assert (found["different"], found["changes"]) == (True, [{"path": "server.grace", "from": "5s", "to": "9s"}])
    shown = _json(run("config", "show", "--running", "--json"))
    assert shown["server.grace"]["value"] == "5s"
    assert "5s" in run("config", "show", "--running").stdout


def test_another_file_is_compared_with_what_is_in_force_and_with_the_file(run: Run, gateway: Gateway, tmp_path: Path):
    other = tmp_path / "other.yaml"
    other.write_text(_changed(gateway, "model: large", "model: best"))
    assert '+llm.task_types.REPORT.model: "best"' in run("config", "diff", "running", str(other)).stdout
    lines = run("config", "diff", str(other)).stdout.splitlines()
    assert ("-      model: best" in lines, "+      model: large" in lines) == (True, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [("server: {grase: 5s}\n", "server.grase"), ("[", "not YAML"), (None, "No such file")],
    ids=["wrong", "no yaml", "no file"],
)
def test_what_cannot_be_compared_leaves_with_status_2(run: Run, tmp_path: Path, text: str | None, said: str):
    other = tmp_path / "other.yaml"
    if text is not None:
        other.write_text(text)
    result = run("config", "diff", "running", str(other))
    assert (result.exit_code, result.stdout, said in result.stderr) == (2, "", True)


def test_a_wrong_key_is_told_with_where_to_say_the_right_one(run: Run):
    result = run("config", "history", TEST_ADMIN_KEY="another")
    assert (result.exit_code, "--admin-key" in result.stderr) == (1, True)


def test_a_key_itself_is_no_argument_and_is_not_repeated(run: Run):
    result = run("config", "history", "--admin-key", "secret-itself")
    assert (result.exit_code, "secret-itself" in result.output) == (2, False)


# ------------------------------------------------------------------------------------------------------------------------------- preview
def test_a_preview_is_of_a_stored_user_at_what_is_in_force(run: Run, gateway: Gateway):
    assert run("users", "add", "ana", "--tier", "premium").exit_code == 2  # it takes no --admin
    users = CliRunner(env={"TEST_ADMIN_KEY": KEY})
    assert users.invoke(main, ["users", "add", "ana", "--tier", "premium", "--config", str(gateway.config)]).exit_code == 0
    gateway.config.write_text(_changed(gateway, "premium_model: best", "premium_model: small"))
    found = _json(run("config", "preview", "--user", "ana", "--task-type", "REPORT", "--json"))
    assert (found["values"]["model"], found["tier"]) == ({"value": "best", "source": "user"}, "premium")
    shown = run("config", "preview", "--task-type", "REPORT").stdout
    assert ("task_type" in shown, "passes record, authenticate" in shown) == (True, True)
    refused = run("config", "preview", "--user", "nobody")
    assert (refused.exit_code, "no user 'nobody'" in refused.stderr) == (1, True)


# -------------------------------------------------------------------------------------------------------------- history and rollback
def test_a_version_is_put_in_force_again(run: Run, gateway: Gateway):
    before = gateway.config.read_text()
    gateway.config.write_text(_changed(gateway, "grace: 5s", "grace: 6s"))
    first = _json(run("config", "history", "--json"))
    # Nothing was applied by the administration yet: the first rollback has nothing to go back to.
    assert (first, run("config", "rollback", "1", "--yes").exit_code) == ([], 1)
    _apply(gateway, before)
    _apply(gateway, _changed(gateway, "grace: 5s", "grace: 7s"))
    listed = _json(run("config", "history", "--json"))
    assert [(one["id"], one["actor"], one["in_file"]) for one in listed] == [(3, "admin", True), (2, "admin", False), (1, "admin", False)]
    assert "+  grace: 7s" in run("config", "diff", "2", "3").stdout
    declined = run("config", "rollback", "2", said="n\n")
    assert (declined.exit_code, "+  grace: 5s" in declined.stderr, "7s" in gateway.config.read_text()) == (1, True, True)
    assert _json(run("config", "rollback", "2", "--yes", "--json"))["id"] == 4
    assert gateway.config.read_text() == before
    assert _json(run("config", "show", "--running", "--json"))["server.grace"]["value"] == "5s"
    assert [one["id"] for one in _json(run("config", "history", "--limit", "1", "--before", "4", "--json"))] == [3]
    assert "is the file" in run("config", "history").stdout


def _apply(gateway: Gateway, text: str) -> None:
    Running(gateway.admin, KEY).ask("PUT", "/admin/config", {"text": text, "comment": "tried"})


def test_a_shell_is_offered_what_the_gateway_knows(gateway: Gateway, environment: dict[str, str | None]):
    assert CliRunner().invoke(main, ["users", "add", "bo", "--config", str(gateway.config)]).exit_code == 0
    line = f"comporta config preview --config {gateway.config} --admin {gateway.admin} --user b"
    words = {"COMP_WORDS": line, "COMP_CWORD": "8", "_COMPORTA_COMPLETE": "bash_complete", "TEST_ADMIN_KEY": KEY}
    assert CliRunner().invoke(main, env={**environment, **words}).stdout == "plain,bo\n"


# ------------------------------------------------------------------------------------------------------------------- without a gateway
def test_without_a_gateway_it_is_said_what_to_do(alone: Run):
    for words in (("config", "diff"), ("config", "show", "--running")):
        result = alone(*words)
        assert (result.exit_code, "comporta serve" in result.stderr, "--admin" in result.stderr) == (
            2 if "diff" in words else 1,
            True,
            True,
        )
    assert alone("config", "history", "--admin", "http://127.0.0.1:1").exit_code == 1


def test_without_a_gateway_the_file_and_the_database_do(alone: Run, tmp_path: Path):
    found = alone("config", "preview", "--task-type", "REPORT", "--model", "small", "--json")
    assert _json(found)["values"]["model"] == {"value": "small", "source": "request"}
    assert "no gateway answers" in found.stderr
    assert alone("users", "add", "ana", "--tier", "premium").exit_code == 0
    assert _json(alone("config", "preview", "--user", "ana", "--offline", "--json"))["values"]["model"]["value"] == "best"
    assert alone("config", "preview", "--user", "nobody", "--offline").exit_code == 1
    assert alone("config", "diff", "running", "--offline").exit_code == 2


def test_without_a_gateway_a_rollback_changes_the_file_and_is_audited(alone: Run, tmp_path: Path):
    file = tmp_path / "gateway.yaml"
    first = file.read_text()
    _keep(tmp_path, first)
    file.write_text(first.replace("5s", "8s"))
    made = _json(alone("config", "rollback", "1", "--yes", "--offline", "--json"))
    assert (file.read_text(), made["comment"]) == (first, "rolled back to version 1")
    listed = _json(alone("config", "history", "--offline", "--json"))
    assert [(one["comment"], one["in_file"]) for one in listed] == [
        ("rolled back to version 1", True),
        ("as it was found", False),
        ("kept", True),
    ]
    assert listed[0]["actor"].startswith("cli:")
    assert [row["action"] for row in _json(alone("audit", "list", "--json"))] == ["configuration.add"] * 3
    assert "+  grace: 5s" in alone("config", "diff", "2", "3", "--offline").stdout
    assert alone("config", "rollback", "9", "--yes", "--offline").exit_code == 1


@pytest.mark.parametrize("mistake", ["servr: {}\n", "models: {small: nobody\n", "llm:\n\ttimeout: 1s\n"])
def test_a_rollback_takes_back_a_file_that_nothing_starts_by(alone: Run, tmp_path: Path, mistake: str):
    file = tmp_path / "gateway.yaml"
    first = file.read_text()
    _keep(tmp_path, first)
    file.write_text(first + mistake)
    refused = alone("config", "rollback", "1", "--yes")
    assert (refused.exit_code, "--offline" in refused.stderr) == (2, True)
    assert [one["id"] for one in _json(alone("config", "history", "--offline", "--json"))] == [1]
    done = alone("config", "rollback", "1", "--yes", "--offline")
    assert (done.exit_code, file.read_text()) == (0, first)
    assert "cannot be used" in done.stderr


def test_a_rollback_needs_to_know_the_database(alone: Run, tmp_path: Path):
    file = tmp_path / "gateway.yaml"
    _keep(tmp_path, file.read_text())
    file.write_text("storage: {url: nowhere}\n")
    refused = alone("config", "rollback", "1", "--yes", "--offline")
    assert (refused.exit_code, "storage.url" in refused.stderr) == (2, True)


def _keep(folder: Path, text: str) -> None:
    """A version, as an administrator's change leaves one."""

    async def keep() -> None:
        database = Database(f"sqlite:///{folder}/comporta.db", SystemClock())
        await database.open()
        await Versions(database).add("ada", text, "kept")
        await database.close()

    asyncio.run(keep())
