"""`comporta check`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.conftest import Command

GOOD = """\
providers:
  openai: {kind: openai, api_key: "env:OPENAI_API_KEY"}
models:
  fast: {provider: openai, model: gpt-4.1-mini}
policies: {record: {log: false}, timeout: false}
"""


def test_a_good_file_is_explained(command: Command, file):
    result = command("check", file(GOOD), OPENAI_API_KEY="not-a-real-key")
    assert result.exit_code == 0
    for said in (
        "openai at https://api.openai.com/v1, key: env:OPENAI_API_KEY",
        "sim      simulated: answers are made up",
        "fast     gpt-4.1-mini at openai",
        "timeout: off",
        "record: log = False (line 5)",
        "gateway.yaml: usable\n",
    ):
        assert said in result.stdout
    assert result.stderr == ""
    assert "not-a-real-key" not in result.output


def test_a_secret_that_is_not_there_is_a_warning(command: Command, file):
    result = command("check", file(GOOD))
    assert result.exit_code == 0
    assert "gateway.yaml:2: providers.openai.api_key: env:OPENAI_API_KEY cannot be used" in result.stderr
    assert "usable, with one warning" in result.stdout


def test_a_bad_file_is_refused_on_stderr_with_status_2(command: Command, file):
    result = command("check", file("server: {listn: x}\nprovider: {}\n"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "has 2 problems" in result.stderr
    assert "gateway.yaml:1: server.listn: unknown key; did you mean 'listen'?" in result.stderr
    assert "gateway.yaml:2: provider: unknown section; did you mean 'providers'?" in result.stderr


def test_a_script_gets_the_problems(command: Command, file):
    result = command("check", file("server:\n  listn: x\n"), "--json")
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert (answer["ok"], answer["problems"][0]["line"], answer["problems"][0]["path"]) == (False, 2, "server.listn")


def test_a_script_gets_the_outcome(command: Command, file):
    result = command("check", file(GOOD), "--json")
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["ok"], answer["problems"]) == (0, True, [])
    assert answer["warnings"][0]["path"] == "providers.openai.api_key"
    assert answer["models"] == {"fast": {"provider": "openai", "model": "gpt-4.1-mini", "fallback": []}}
    assert answer["policies"]["timeout"] is False


def test_without_a_file_the_environment_is_checked(command: Command):
    result = command("check", OPENAI_API_KEY="not-a-real-key")
    assert result.exit_code == 0
    assert "any name is asked of openai" in result.stdout
    assert "no table and no default provider" in command("check").stdout


def test_a_file_that_is_not_there_is_told(command: Command):
    result = command("check", "gone.yaml")
    assert (result.exit_code, "gone.yaml: cannot be read: No such file" in result.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [("check", "--json"), ("--help",)])
def test_output_for_which_there_is_no_room_is_told_in_one_line(arguments: tuple[str, ...]):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "comporta", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "Error: this cannot be written: No space left on device\n")
