"""The command in this process, with an environment that says nothing of this machine's own providers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from comporta.cli import main

Command = Callable[..., Result]


@pytest.fixture
def environment() -> dict[str, str | None]:
    """Changes to the environment; None removes. Nothing answers on port 1, so no Ollama is found."""
    own = {name: None for name in os.environ if name.startswith(("COMPORTA_", "OPENAI_"))}
    return {**own, "OLLAMA_HOST": "127.0.0.1:1"}


@pytest.fixture
def command(environment: dict[str, str | None]) -> Command:
    """`command("check", "file.yaml", NAME="value")`: run it and return the result."""

    def run(*arguments: str, **variables: str) -> Result:
        return CliRunner().invoke(main, list(arguments), env={**environment, **variables})

    return run


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    """Write a configuration and return its path."""

    def write(text: str) -> str:
        path = tmp_path / "gateway.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write
