"""What every sub-command does first: read the configuration, or say what is wrong with it and leave with status 2."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from proxy.settings import Loaded, Problem, SettingsError, load

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE = click.Path(dir_okay=False, path_type=Path)


class BadConfiguration(click.ClickException):
    """The configuration cannot be used: each problem goes to stderr with its file and line."""

    exit_code = 2

    def __init__(self, error: SettingsError) -> None:
        super().__init__(str(error))
        self.problems = error.problems

    def show(self, file: IO[Any] | None = None) -> None:
        count = "one problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        click.secho(f"The configuration has {count}:", fg="red", err=True)
        for problem in self.problems:
            click.echo(f"  {problem}", err=True)


def read(path: Path | None, flags: Mapping[str, Any] | None = None) -> Loaded:
    """The configuration of this process. Raises BadConfiguration."""
    try:
        return load(path, os.environ, flags or {})
    except SettingsError as error:
        raise BadConfiguration(error) from None


def config_option(command: Command) -> Command:
    return click.option(
        "--config",
        "path",
        type=_FILE,
        metavar="FILE",
        help="Configuration file (YAML). Without it: $COMPORTA_CONFIG, else the environment.",
    )(command)


def json_option(text: str) -> Callable[[Command], Command]:
    return click.option("--json", "as_json", is_flag=True, help=text)


def print_json(value: Any) -> None:
    """Indented, for scripts and for eyes."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def problem_json(problem: Problem) -> dict[str, Any]:
    return asdict(problem)


def warn(problems: list[Problem]) -> None:
    for problem in problems:
        click.echo(f"{click.style('warning', fg='yellow')}: {problem}", err=True)


def origin(source: str) -> str:
    """A value's source in words."""
    kind, _, rest = source.partition(":")
    words = {
        "file": f"line {rest}",
        "environment": rest,
        "flag": rest,
        "discovered": f"found: {rest}",
        "default": "default",
    }
    return words.get(kind, source)
