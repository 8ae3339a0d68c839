"""`comporta config`: what can be configured, and what is."""

from __future__ import annotations

import json
from pathlib import Path

import click

from comporta.cli.configuration import config_option, json_option, origin, print_json, read, warn
from proxy.settings import kinds
from proxy.settings.schema import schema as json_schema

EPILOG = """\b
Examples:
  comporta config show --config gateway.yaml
  comporta config schema > comporta.schema.json

\b
Editors complete and check a file that begins with
  # yaml-language-server: $schema=comporta.schema.json
"""


@click.group(epilog=EPILOG)
def config() -> None:
    """What can be configured, and what is."""


@config.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, installed plug-ins included."""
    print_json(json_schema(kinds.installed()))


@config.command()
@config_option
@json_option("Print an object of path -> {value, source}.")
def show(path: Path | None, as_json: bool) -> None:
    """Print every value and where it comes from. Secrets are shown as the references that they are."""
    loaded = read(path)
    values = loaded.values()
    if as_json:
        print_json({name: {"value": value, "source": source} for name, value, source in values})
        return
    warn(loaded.warnings)
    if loaded.file:
        click.echo(f"# lines are of {loaded.file}")
    shown = [(name, json.dumps(value, ensure_ascii=False), origin(source)) for name, value, source in values]
    left = max(len(name) for name, _, _ in shown)
    middle = max(len(value) for _, value, _ in shown)
    for name, value, source in shown:
        click.echo(f"{name:{left}}  {value:{middle}}  {source}")
