"""`comporta config`, and what the command says of itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import comporta
from comporta.cli import main
from proxy.settings import load
from proxy.settings.kinds import installed
from proxy.settings.schema import schema
from tests.cli.conftest import Command


def leaves(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from leaves(found, (*words, name))
        else:
            yield (*words, name), found


TEXT = 'server:\n  grace: "90s"\nproviders:\n  openai: {kind: openai, api_key: "env:OPENAI_API_KEY"}\n'


def test_every_value_is_shown_with_its_source(command: Command, file):
    result = command("config", "show", "--config", file(TEXT), COMPORTA_SERVER__LISTEN="127.0.0.1:9", OPENAI_API_KEY="not-a-real-key")
    assert result.exit_code == 0
    shown = [re.split(r"  +", line.rstrip(), maxsplit=2) for line in result.stdout.splitlines() if not line.startswith("#")]
    assert ["server.listen", '"127.0.0.1:9"', "COMPORTA_SERVER__LISTEN"] in shown
    assert ["server.grace", '"1m30s"', "line 2"] in shown
    assert ["server.ping", '"10s"', "default"] in shown
    assert ["providers.openai.api_key", '"env:OPENAI_API_KEY"', "line 4"] in shown
    assert "not-a-real-key" not in result.output


def test_a_script_gets_every_value_with_its_source(command: Command, file):
    answer = json.loads(command("config", "show", "--json", "--config", file(TEXT)).stdout)
    assert answer["server.grace"] == {"value": "1m30s", "source": "file:2"}


def test_the_whole_is_printed_as_a_file_that_means_the_same(command: Command, file, tmp_path: Path):
    text = (
        TEXT + 'models: {"4.1": openai, "on": {targets: [openai, {provider: sim, model: sim, weight: 2}]}}\nllm: {default_model: "4.1"}\n'
    )
    path = Path(file(text))
    whole = tmp_path / "whole.yaml"
    whole.write_text(command("config", "show", "--yaml", "--config", str(path)).stdout)
    assert 'grace: "1m30s"  # line 2\n' in whole.read_text()
    first, second = (load(one, {}, {}, probe=lambda _host, _port: False) for one in (path, whole))
    assert second.settings == first.settings


def test_the_schema_is_printed(command: Command):
    assert json.loads(command("config", "schema").stdout) == schema(installed())


def test_the_version_is_printed(command: Command):
    assert comporta.__version__ in command("--version").stdout


#: Every command that does something, by its words.
LEAVES = sorted(" ".join(words) for words, _ in leaves(main))

#: Commands that print no table and no list, with the reason.
NO_JSON = {
    "completion": "prints a script for a shell",
    "config schema": "prints JSON always",
}


#: Those of credentials are in the help of the group.
TAUGHT = [name for name in LEAVES if not name.startswith("credentials ")]


@pytest.mark.parametrize("name", [*TAUGHT, "config", "credentials", "users", "keys", "audit"])
def test_every_command_teaches_by_example(command: Command, name: str):
    assert re.search(rf"Examples?:\n(.*\n)* +.*comporta {name}", command(*name.split(), "--help").stdout)


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_can_be_read_by_a_script(command: Command, name: str):
    assert ("--json" in command(*name.split(), "--help").stdout) is (name not in NO_JSON)


def test_the_module_is_the_command():
    result = subprocess.run([sys.executable, "-m", "comporta", "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.startswith("Usage: comporta ")


def test_wrong_usage_leaves_with_status_2(command: Command):
    assert command("serv").exit_code == 2


@pytest.mark.parametrize("name", comporta.__all__)
def test_the_front_door_has_what_it_names(name: str):
    assert getattr(comporta, name) is not None
    assert name in dir(comporta)


def test_what_the_front_door_does_not_name_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'Polices'"):
        comporta.Polices  # noqa: B018 - that is what is tried


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("serv",), "There is no command 'serv'; did you mean 'serve'?"),
        (("config", "shwo"), "There is no command 'shwo'; did you mean 'show'?"),
        (("config", "keys"), "There is no command 'keys'; known here: diff, history"),
        (("keys", "rotat"), "There is no command 'rotat'; did you mean 'rotate'?"),
    ],
)
def test_a_misspelt_command_is_told_with_the_nearest(command: Command, arguments: tuple[str, ...], said: str):
    result = command(*arguments)
    assert (result.exit_code, said in result.stderr) == (2, True), result.output
