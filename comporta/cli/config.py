"""`comporta config`: what can be configured, what is, and what was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import click

from comporta.cli.configuration import json_option, origin, print_json, warn
from comporta.cli.diff import diff
from comporta.cli.gateway import Where, gateway_options
from comporta.cli.preview import preview
from comporta.cli.table import show as show_table
from comporta.cli.versions import history, rollback
from comporta.group import Group
from proxy.settings import Loaded, kinds
from proxy.settings.schema import schema as json_schema
from proxy.settings.tree import Path, dotted

EPILOG = """\b
Examples:
  comporta config show --config gateway.yaml       every value, and where it comes from
  comporta config diff                             what is in force, against the file
  comporta config preview --user ana --task-type TASK_TYPE_REPORT
  comporta config history
  comporta config rollback 7
  comporta config schema > comporta.schema.json

\b
Those that ask a running gateway find it by server.admin_listen of the configuration, or by --admin URL.
Editors complete and check a file that begins with
  # yaml-language-server: $schema=comporta.schema.json
"""

SCHEMA_EPILOG = """\b
Examples:
  comporta config schema > comporta.schema.json
"""

SHOW_EPILOG = """\b
Examples:
  comporta config show
  comporta config show --config gateway.yaml --json | jq '."server.grace"'
  comporta config show --yaml > whole.yaml            a file that says everything, each value with its source
  comporta config show --running                      what the gateway that runs has in force

\b
Exit status: 0 shown, 1 no gateway where one is needed, 2 wrong usage or configuration.
"""

#: Keys that YAML takes for text without quotes.
_BARE = re.compile(r"(?!(?i:true|false|yes|no|on|off|y|n|null)$)[A-Za-z_][A-Za-z0-9_-]*")


@click.group(cls=Group, epilog=EPILOG)
def config() -> None:
    """What can be configured, what is, and what was."""


for _command in (diff, preview, history, rollback):
    config.add_command(_command)


@config.command(epilog=SCHEMA_EPILOG)
def schema() -> None:
    """Print the JSON Schema of the configuration file, installed plug-ins included."""
    print_json(json_schema(kinds.installed()))


@config.command(epilog=SHOW_EPILOG)
@gateway_options()
@click.option("--running", is_flag=True, help="What the gateway that runs has in force, instead of what would be read now.")
@click.option("--yaml", "as_yaml", is_flag=True, help="Print a configuration file, each value with its source.")
@json_option("Print an object of path -> {value, source}.")
def show(where: Where, running: bool, as_yaml: bool, as_json: bool) -> None:
    """Print every value and where it comes from. Secrets are shown as the references that they are."""
    if as_yaml and (running or as_json):
        raise click.UsageError("--yaml goes with neither --running nor --json")
    if running:
        answer = where.required().ask("GET", "/admin/config")
        values = [(one["path"], one["value"], one["source"]) for one in answer["values"]]
        file, warnings = answer["file"], []
    else:
        loaded = where.loaded
        values, file, warnings = loaded.values(), loaded.file, loaded.warnings
    if as_json:
        print_json({name: {"value": value, "source": source} for name, value, source in values})
        return
    warn(warnings)
    if file:
        click.echo(f"# lines are of {file}")
    if as_yaml:
        click.echo("\n".join(_yaml(where.loaded)))
    else:
        show_table(
            ("value of", "is", "from"), [(name, json.dumps(value, ensure_ascii=False), origin(source)) for name, value, source in values]
        )


def _yaml(loaded: Loaded) -> Iterator[str]:
    """The whole as a file that means the same; scalars are written as JSON, which YAML reads alike."""
    # A section that is absent is not the same as one without a value.
    whole = {name: value for name, value in loaded.settings.model_dump(mode="json").items() if value is not None}
    yield from _lines(whole, (), loaded.sources)


def _lines(value: Any, path: Path, sources: Mapping[str, str]) -> Iterator[str]:
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for part, inner in entries:
        head = "-" if isinstance(part, int) else f"{part if _BARE.fullmatch(part) else json.dumps(part)}:"
        below = (*path, part)
        if isinstance(inner, (dict, list)) and inner:
            yield head
            yield from (f"  {line}" for line in _lines(inner, below, sources))
        else:
            yield f"{head} {json.dumps(inner, ensure_ascii=False)}  # {origin(sources[dotted(below)])}"
