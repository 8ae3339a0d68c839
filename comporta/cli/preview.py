"""`comporta config preview`: what a request would get."""

from __future__ import annotations

from typing import Any

import click

from comporta.cli.completion import model_names, task_types, users_of_gateway
from comporta.cli.configuration import json_option, print_json
from comporta.cli.gateway import Where, gateway_options
from comporta.cli.records import with_keeper
from comporta.cli.table import show
from proxy.configuration import Who, previewed, who_is
from proxy.core.errors import ClientError

EPILOG = """\b
Examples:
  comporta config preview
  comporta config preview --task-type TASK_TYPE_REPORT --model auto
  comporta config preview --user ana --json | jq .values.model

\b
A gateway that runs is asked, so that it is what is in force. Where none does, or with --offline, it is the
configuration file; what a user has set is then read from the database.
Exit status: 0 shown, 1 the request would be refused, or there is no such user, 2 wrong usage or configuration.
"""


@click.command(epilog=EPILOG)
@gateway_options(offline="Ask no gateway: the configuration file and the database.")
@click.option("--user", metavar="ID", help="Whose request.  [default: nobody's]", shell_complete=users_of_gateway)
@click.option("--task-type", metavar="NAME", help="What it is for.", shell_complete=task_types)
@click.option(
    "--model", metavar="NAME", help="What it asks for.  [default: nothing, the configuration decides]", shell_complete=model_names
)
@json_option("Print an object; `values` has for each name its value and its source.")
def preview(where: Where, user: str | None, task_type: str | None, model: str | None, as_json: bool) -> None:
    """Say what a chat completion would get: each value with the level that set it, and the policies that act."""
    gateway = where.reached()
    if gateway is not None:
        found = gateway.ask("GET", "/admin/config/preview", user=user, task_type=task_type, model=model)
    else:
        found = _offline(where, user, task_type, model)
    if as_json:
        print_json(found)
    else:
        _print(found, gateway.url if gateway is not None else where.loaded.name)


def _offline(where: Where, user: str | None, task_type: str | None, model: str | None) -> dict[str, Any]:
    settings = where.loaded.settings
    who = Who() if user is None else with_keeper(settings, lambda keeper: who_is(keeper.records(), user))
    try:
        return previewed(settings, who, task_type, model).model_dump(mode="json")
    except ClientError as error:
        raise click.ClickException(error.message) from None


def _print(found: dict[str, Any], source: str) -> None:
    click.echo(f"by {source}")
    if found["user"] is not None:
        click.echo(f"user {found['user']}, tier {found['tier'] or 'none'}")
    if found["task_type"] is not None:
        click.echo(f"task type {found['task_type']}" + ("" if found["known_task_type"] else ", which nothing is configured for"))
    click.echo()
    if found["values"]:
        show(("what", "value", "set by"), [(name, one["value"], one["source"]) for name, one in found["values"].items()])
    else:
        click.echo("Nothing is set: the request's own model, and the provider's defaults.")
    click.echo(f"\npasses {', '.join(found['policies'])}")
