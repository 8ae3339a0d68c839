"""`comporta config diff`: what differs between what is in force, the file, and earlier versions."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from comporta.cli.completion import sides_of_diff
from comporta.cli.configuration import json_option, print_json
from comporta.cli.gateway import Running, Where, gateway_options
from comporta.cli.records import with_keeper
from proxy.settings import Loaded
from proxy.settings.messages import KEY

EPILOG = """\b
A and B are each one of
  running     what the gateway that runs has in force
  file        the configuration file
  7           version 7 of it (comporta config history)
  PATH        another file

\b
Examples:
  comporta config diff                        what SIGHUP would change: what is in force, against the file
  comporta config diff running new.yaml       what another file would change
  comporta config diff 7                      version 7 against the file
  comporta config diff 7 9 --json

\b
Against what is in force values are compared, else texts. Secrets are references, so none is shown.
Exit status, as diff has it: 0 no difference, 1 some, 2 it cannot be told.
"""

RUNNING = "running"
FILE = "file"

_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s@/]+@")
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


class _CannotTell(click.ClickException):
    """1 is what differs; this is none of that."""

    exit_code = 2


#: A value by its path.
Values = dict[str, Any]


@click.command(epilog=EPILOG)
@click.argument("first", metavar="[A]", default=RUNNING, shell_complete=sides_of_diff)
@click.argument("second", metavar="[B]", default=FILE, shell_complete=sides_of_diff)
@gateway_options(offline="Ask no gateway: the configuration file and the database.")
@json_option("Print an object: different, the lines of the diff, and the changed values where values are compared.")
def diff(where: Where, first: str, second: str, as_json: bool) -> None:
    """Show what differs between A (what is in force) and B (the file)."""
    try:
        found = _found(where, first, second)
    except click.ClickException as error:
        if error.exit_code == _CannotTell.exit_code:
            raise
        raise _CannotTell(error.message) from None
    if as_json:
        print_json({"from": first, "to": second, "different": bool(found.lines), "changes": found.changes, "diff": found.lines})
    else:
        print_lines(found.lines)
    if found.lines:
        raise SystemExit(1)


@dataclass(frozen=True)
class _Found:
    lines: list[str]
    changes: list[dict[str, Any]] | None = None


def _found(where: Where, first: str, second: str) -> _Found:
    if RUNNING in (first, second):
        if where.offline:
            raise click.UsageError("what is in force only a gateway that runs can tell: without --offline")
        gateway = where.required()
        return _by_value(*(_values(gateway, side) for side in (first, second)), names=(first, second))
    reached = where.reached() if any(side == FILE or side.isdigit() for side in (first, second)) else None
    before, after = (_text(where, reached, side) for side in (first, second))
    return _Found(unified(before, after, (first, second)))


def _by_value(before: Values, after: Values, *, names: tuple[str, str]) -> _Found:
    paths = list(dict.fromkeys([*before, *after]))
    changes = [
        {"path": path, "from": before.get(path), "to": after.get(path)}
        for path in paths
        if (path in before, before.get(path)) != (path in after, after.get(path))
    ]
    lines = []
    for change in changes:
        path = change["path"]
        lines += [f"{sign}{path}: {_shown(side[path])}" for sign, side in (("-", before), ("+", after)) if path in side]
    return _Found([f"--- {names[0]}", f"+++ {names[1]}", *lines] if lines else [], changes)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def unified(before: str, after: str, names: tuple[str, str]) -> list[str]:
    """The lines of a unified diff, without what looks like a secret; none where nothing differs."""
    return [_masked(line) for line in difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm="")]


def _masked(line: str) -> str:
    return KEY.sub("***", _PASSWORD.sub(r"\1***@", line))


def print_lines(lines: Iterable[str], *, err: bool = False) -> None:
    for line in lines:
        is_head = line.startswith(("--- ", "+++ "))
        click.secho(line, fg=None if is_head else _COLOURS.get(line[:1]), bold=is_head, err=err)


# ----------------------------------------------------------------------------------------------------------------------------- two sides
def _values(gateway: Running, side: str) -> Values:
    if side == RUNNING:
        answer = gateway.ask("GET", "/admin/config")
        return {one["path"]: one["value"] for one in answer["values"]}
    text = _text_of_gateway(gateway, side)
    answer = gateway.ask("POST", "/admin/config/validate", {"text": text})
    if not answer["valid"]:
        told = "; ".join(f"line {one['line']}: {one['path']}: {one['message']}" for one in answer["problems"])
        raise click.ClickException(f"{side} would be refused: {told}")
    return {one["path"]: one["value"] for one in answer["values"]}


def _text(where: Where, gateway: Running | None, side: str) -> str:
    """The text of a side that has one. Raises ClickException."""
    if gateway is not None:
        return _text_of_gateway(gateway, side)
    if side == FILE:
        return file_text(where.lasting)
    return version_text(where, int(side)) if side.isdigit() else _read(Path(side))


def _text_of_gateway(gateway: Running, side: str) -> str:
    if side == FILE:
        answer = gateway.ask("GET", "/admin/config")
        if answer["text"] is None:
            raise click.ClickException("the gateway has no configuration file, or cannot read it")
        return str(answer["text"])
    if side.isdigit():
        return str(gateway.ask("GET", f"/admin/config/versions/{side}")["text"])
    return _read(Path(side))


def version_text(where: Where, id: int) -> str:
    """From the database. Raises ClickException."""
    found = with_keeper(where.lasting.settings, lambda keeper: keeper.versions().get(id))
    if found is None or found.text is None:
        raise click.ClickException(f"there is no version {id}; comporta config history lists them")
    return found.text


def file_text(loaded: Loaded) -> str:
    """Raises ClickException where there is none."""
    if loaded.file is None:
        raise click.ClickException("there is no configuration file; --config says which")
    return _read(loaded.file)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}; A and B are running, file, a version's number or a file") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{path} is not UTF-8 text") from None
