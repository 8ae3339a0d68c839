"""`comporta completion`: the scripts, and what a shell is offered."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from comporta.cli import main
from tests.cli.conftest import Command
from tests.support.gateway import ROOT

TEXT = """\
server: {admin_listen: "127.0.0.1:1"}
providers: {play: {kind: sim}}
models: {small: {provider: play, model: sim}}
llm: {default_model: small, alias: auto, task_types: {REPORT: {model: small}, REVIEW: {model: small}}}
"""

_LOADED = "[name for name in sys.modules if name.startswith(('comporta.cli.', 'proxy.settings', 'aiohttp', 'pydantic'))]"

Offered = Callable[..., list[str]]


@pytest.fixture
def offered(command: Command) -> Offered:
    """`offered("config", "d")`: what may stand in the place of the last word."""

    def ask(*words: str) -> list[str]:
        line = " ".join(["comporta", *words])
        result = command(_COMPORTA_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words)))
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        return [item.removeprefix("plain,") for item in result.stdout.split("\n") if item]

    return ask


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(command: Command, shell: str):
    text = command("completion", shell).stdout
    assert f"_COMPORTA_COMPLETE={shell}_complete" in text
    if found := shutil.which(shell):
        subprocess.run([found, "-n"], input=text, text=True, check=True, timeout=30)


def test_a_shell_that_is_not_known_is_wrong_usage(command: Command):
    assert command("completion", "tcsh").exit_code == 2


def test_commands_and_options_are_offered(offered: Offered):
    assert offered("config", "d") == ["diff"]
    assert "--task-type" in offered("config", "preview", "--")


def test_models_and_task_types_are_those_of_the_configuration(offered: Offered, file):
    fixed = ("config", "preview", "--config", file(TEXT))
    assert offered(*fixed, "--model", "") == ["auto", "small"]
    assert offered(*fixed, "--task-type", "REP") == ["REPORT"]


@pytest.mark.parametrize("text", [TEXT, "nonsense: {", None], ids=["no gateway", "no configuration", "no file"])
def test_what_cannot_be_known_is_not_offered_and_says_nothing(offered: Offered, file, text: str | None):
    path = file(text) if text is not None else "nowhere.yaml"
    assert offered("users", "set", "--config", path, "") == []
    assert offered("config", "diff", "--config", path, "") == ["running", "file"]


def test_the_commands_are_offered_and_listed_with_the_beginning_of_their_help(command: Command, offered: Offered):
    listed = command("--help").stdout
    context = click.Context(main)
    assert offered("") == list(main.list_commands(context))
    for name in main.list_commands(context):
        found = main.get_command(context, name)
        assert found is not None and found.help is not None
        (said,) = re.findall(rf"^  {name} +(\S.*)\.$", listed, re.MULTILINE)
        assert " ".join(found.help.split()).startswith(said)


def test_commands_are_listed_and_offered_without_loading_any():
    """A completion is waited for at each key: what it loads is what it takes."""
    script = f"import sys\nfrom comporta.cli import main\ntry: main(sys.argv[1:], prog_name='comporta')\nfinally: print({_LOADED})"
    completing = {"_COMPORTA_COMPLETE": "bash_complete", "COMP_WORDS": "comporta c", "COMP_CWORD": "1"}
    for words, more in (["--help"], {}), ([], completing):
        command = [sys.executable, "-c", script, *words]
        run = subprocess.run(command, env={**os.environ, **more}, cwd=ROOT, capture_output=True, text=True, check=False)
        *shown, loaded = run.stdout.splitlines()
        assert any("config" in line for line in shown), run.stderr
        assert loaded == "[]"
