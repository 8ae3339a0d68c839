"""`comporta config`, and what the command says of itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

import comporta
from comporta.cli import main
from proxy.settings.kinds import installed
from proxy.settings.schema import schema
from tests.cli.conftest import Command

TEXT = 'server:\n  grace: "90s"\nproviders:\n  openai: {kind: openai, api_key: "env:OPENAI_API_KEY"}\n'


def test_every_value_is_shown_with_its_source(command: Command, file):
    result = command("config", "show", "--config", file(TEXT), COMPORTA_SERVER__LISTEN="127.0.0.1:9", OPENAI_API_KEY="not-a-real-key")
    assert result.exit_code == 0
    shown = [re.split(r"  +", line, maxsplit=2) for line in result.stdout.splitlines() if not line.startswith("#")]
    assert ["server.listen", '"127.0.0.1:9"', "COMPORTA_SERVER__LISTEN"] in shown
    assert ["server.grace", '"1m30s"', "line 2"] in shown
    assert ["server.ping", '"10s"', "default"] in shown
    assert ["providers.openai.api_key", '"env:OPENAI_API_KEY"', "line 4"] in shown
    assert "not-a-real-key" not in result.output


def test_a_script_gets_every_value_with_its_source(command: Command, file):
    answer = json.loads(command("config", "show", "--json", "--config", file(TEXT)).stdout)
    assert answer["server.grace"] == {"value": "1m30s", "source": "file:2"}


def test_the_schema_is_printed(command: Command):
    assert json.loads(command("config", "schema").stdout) == schema(installed())


def test_the_version_is_printed(command: Command):
    assert comporta.__version__ in command("--version").stdout


def test_every_sub_command_teaches_by_example(command: Command):
    for name in main.commands:
        assert re.search(r"Examples:\n +comporta ", command(name, "--help").stdout)


def test_the_module_is_the_command():
    result = subprocess.run([sys.executable, "-m", "comporta", "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.startswith("Usage: comporta ")


def test_wrong_usage_leaves_with_status_2(command: Command):
    assert command("serv").exit_code == 2


@pytest.mark.parametrize("name", comporta.__all__)
def test_the_front_door_has_what_it_names(name: str):
    assert getattr(comporta, name) is not None
