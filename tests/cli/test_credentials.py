"""`comporta credentials`: stored encrypted, listed by four characters, tested for real; a key shows nowhere."""

from __future__ import annotations

import json
import os
import pty
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from comporta.cli import main
from tests.support.script import error_response, json_response, script
from tests.support.upstream import Upstream

CANARY = "canary-7c1d-not-a-real-key"
LIST = {"object": "list", "data": [{"id": "zephyr", "object": "model"}, {"id": "alpaca", "object": "model"}]}

Run = Callable[..., Result]


@pytest.fixture
def run(environment: dict[str, str | None], tmp_path: Path) -> Iterator[Run]:
    """The command with a database of its own; `said` is standard input. The canary may be in no output, no exception and no file."""
    store = {"COMPORTA_STORAGE__URL": f"sqlite:///{tmp_path}/data/comporta.db", "COMPORTA_CREDENTIALS__KEY": f"file:{tmp_path}/kek"}
    results: list[Result] = []

    def invoke(*arguments: str, said: str = "", **variables: str) -> Result:
        words = [*arguments] if arguments[0] == "audit" else ["credentials", *arguments]
        results.append(CliRunner().invoke(main, words, input=said, env={**environment, **store, **variables}))
        return results[-1]

    made = invoke("init-key", "--file", f"{tmp_path}/kek")
    assert made.exit_code == 0, made.output
    yield invoke
    for result in results:
        assert CANARY not in result.output + repr(result.exception)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or CANARY.encode() not in path.read_bytes(), path


def test_a_key_is_stored_unreadable_and_listed_by_its_end(run: Run):
    assert run("add", "spare", said=CANARY + "\n").exit_code == 0
    (listed,) = json.loads(run("list", "--json").stdout)
    assert (listed["name"], listed["last4"], listed["version"], listed["used_by"]) == ("spare", "-key", 1, [])
    assert "spare" in run("list").stdout


def test_each_change_is_audited_under_who_ran_the_command(run: Run):
    run("add", "spare", said="the-first-of-two-keys")
    run("rotate", "spare", said=CANARY)
    run("remove", "spare", "--yes")
    rows = json.loads(run("audit", "list", "--json").stdout)
    assert [row["action"] for row in rows] == ["credential.delete", "credential.rotate", "credential.add"]
    assert {row["actor"].partition(":")[0] for row in rows} == {"cli"}
    assert rows[1]["before"]["fingerprint"] != rows[1]["after"]["fingerprint"]
    assert run("audit", "verify").exit_code == 0


def test_a_change_that_cannot_be_audited_does_not_happen(run: Run, tmp_path: Path):
    run("add", "spare", said="the-first-of-two-keys")
    with sqlite3.connect(tmp_path / "data" / "comporta.db") as database:
        database.execute("ALTER TABLE audit_log RENAME TO elsewhere")
    database.close()
    assert run("rotate", "spare", said=CANARY).exit_code == 1
    assert json.loads(run("list", "--json").stdout)[0]["version"] == 1


def test_of_a_short_key_nothing_is_shown(run: Run):
    run("add", "spare", said="short-key")
    assert json.loads(run("list", "--json").stdout)[0]["last4"] is None


def test_at_a_terminal_the_key_is_asked_for_and_not_shown(environment: dict[str, str | None], run: Run, tmp_path: Path):
    ours, theirs = pty.openpty()
    given = {"COMPORTA_STORAGE__URL": f"sqlite:///{tmp_path}/data/comporta.db", "COMPORTA_CREDENTIALS__KEY": f"file:{tmp_path}/kek"}
    kept = {name: value for name, value in os.environ.items() if name not in environment}
    with subprocess.Popen(
        [sys.executable, "-m", "comporta", "credentials", "add", "spare"],
        env={**kept, **given},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = b""
        while b"Key of spare" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, CANARY.encode() + b"\n")
        while b"is stored" not in shown:
            shown += os.read(ours, 4096)
        assert process.wait(10) == 0
    os.close(ours)
    assert CANARY.encode() not in shown
    assert json.loads(run("list", "--json").stdout)[0]["last4"] == "-key"


def test_a_name_that_is_taken_keeps_its_key(run: Run):
    run("add", "spare", said=CANARY)
    result = run("add", "spare", said="another")
    assert result.exit_code == 1
    assert "comporta credentials rotate spare" in result.stderr


def test_rotate_replaces_and_remove_deletes(run: Run):
    run("add", "spare", said="the-first-of-two-keys")
    assert json.loads(run("rotate", "spare", "--json", said=CANARY).stdout)["version"] == 2
    assert run("remove", "spare", "--yes").exit_code == 0
    assert json.loads(run("list", "--json").stdout) == []


def test_a_key_that_a_provider_uses_is_removed_by_force_only(run: Run, file: Callable[[str], str]):
    used = ("--config", file('providers: {a: {kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: "store:spare"}}'))
    run("add", "spare", said=CANARY)
    assert json.loads(run("list", "--json", *used).stdout)[0]["used_by"] == ["a"]
    refused = run("remove", "spare", "--yes", *used)
    assert (refused.exit_code, "spare is used by a; --force" in refused.stderr) == (1, True)
    assert json.loads(run("remove", "spare", "--force", "--json", *used).stdout) == {"name": "spare", "removed": True}


def test_a_name_that_is_not_there_is_told_with_the_nearest(run: Run):
    run("add", "spare", said=CANARY)
    for command in ("rotate", "remove", "test"):
        result = run(command, "sparr", said=CANARY)
        assert (result.exit_code, "did you mean 'spare'?" in result.stderr) == (1, True)


@pytest.mark.parametrize("said", ["", "\n", f"{CANARY}\nmore", f"{CANARY}é"])
def test_what_can_be_no_key_is_refused(run: Run, said: str):
    assert run("add", "spare", said=said).exit_code == 1
    assert json.loads(run("list", "--json").stdout) == []


def test_without_a_key_to_encrypt_with_nothing_is_stored(run: Run):
    result = run("add", "spare", said=CANARY, COMPORTA_CREDENTIALS__KEY="")
    assert result.exit_code == 1
    assert "comporta credentials init-key" in result.stderr


def test_a_key_file_is_never_overwritten(run: Run, tmp_path: Path):
    before = (tmp_path / "kek").read_bytes()
    assert run("init-key", "--file", f"{tmp_path}/kek").exit_code == 1
    assert (tmp_path / "kek").read_bytes() == before


def test_another_key_encrypts_all_anew(run: Run, tmp_path: Path):
    run("add", "spare", said=CANARY)
    run("init-key", "--file", f"{tmp_path}/next")
    assert json.loads(run("rekey", f"file:{tmp_path}/next", "--json").stdout)["credentials"] == 1
    text = 'providers: {a: {kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: "store:spare"}}'
    (tmp_path / "g.yaml").write_text(text)
    with_old = json.loads(run("test", "--json", "--config", f"{tmp_path}/g.yaml").stdout)
    with_new = json.loads(run("test", "--json", "--config", f"{tmp_path}/g.yaml", COMPORTA_CREDENTIALS__KEY=f"file:{tmp_path}/next").stdout)
    assert (with_old[0]["outcome"], with_new[0]["outcome"]) == ("no_key", "no_network")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (json_response(200, LIST), "ok"),
        (error_response(401, f"Incorrect API key provided: {CANARY}"), "wrong_key"),
        (error_response(404, "not here"), "wrong_url"),
        (json_response(200, {"hello": CANARY}), "wrong_url"),
        (error_response(429, "slow down"), "limited"),
        (error_response(500, CANARY), "failed"),
    ],
)
def test_a_provider_is_asked_and_its_answer_put_into_words(run: Run, tmp_path: Path, upstream: Upstream, answer, outcome: str):
    run("add", "spare", said=CANARY)
    upstream.play(script(answer))
    (tmp_path / "g.yaml").write_text(f'providers: {{a: {{kind: openai, base_url: "{upstream.url}/v1", api_key: "store:spare"}}}}')
    result = run("test", "spare", "--json", "--config", f"{tmp_path}/g.yaml")
    (verdict,) = json.loads(result.stdout)
    assert (verdict["outcome"], result.exit_code) == (outcome, 0 if outcome == "ok" else 1)
    assert verdict["models"] == (["zephyr", "alpaca"] if outcome == "ok" else None)
    assert upstream.requests[0].header("authorization") == f"Bearer {CANARY}"


@pytest.mark.parametrize(
    ("url", "outcome"),
    [("http://127.0.0.1:1/v1", "no_network"), ("http://no-such-host.invalid/v1", "no_dns")],
)
def test_what_cannot_be_reached_is_told_apart(run: Run, tmp_path: Path, url: str, outcome: str):
    run("add", "spare", said=CANARY)
    (tmp_path / "g.yaml").write_text(f'providers: {{a: {{kind: openai, base_url: "{url}"}}}}')
    (verdict,) = json.loads(run("test", "spare", "--provider", "a", "--json", "--config", f"{tmp_path}/g.yaml").stdout)
    assert verdict["outcome"] == outcome


def test_a_model_whose_name_shows_the_key_or_moves_the_cursor_is_left_out(run: Run, file: Callable[[str], str], upstream: Upstream):
    run("add", "spare", said=CANARY)
    names = [CANARY, "\x1b[2Jcleared", "zephyr"]
    upstream.play(script(json_response(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]})))
    path = file(f'providers: {{a: {{kind: openai, base_url: "{upstream.url}/v1", api_key: "store:spare"}}}}')
    (verdict,) = json.loads(run("test", "--json", "--config", path).stdout)
    assert verdict["models"] == ["zephyr"]
    assert verdict["said"] == "it works: one model: zephyr"


def test_a_server_without_tls_is_told(run: Run, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_in_plain_text, args=(listener,))
        thread.start()
        (tmp_path / "g.yaml").write_text(
            f'providers: {{a: {{kind: openai, base_url: "https://127.0.0.1:{listener.getsockname()[1]}/v1"}}}}'
        )
        (verdict,) = json.loads(run("test", "--json", "--config", f"{tmp_path}/g.yaml").stdout)
        thread.join()
    assert verdict["outcome"] == "tls"


def _answer_in_plain_text(listener: socket.socket) -> None:
    """As a server does that was asked for TLS and has none."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
        connection.recv(4096)
