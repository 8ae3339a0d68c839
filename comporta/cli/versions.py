"""`comporta config history` and `rollback`: what was applied, and back to it."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from comporta.cli.completion import versions_of_gateway
from comporta.cli.configuration import json_option, print_json
from comporta.cli.diff import file_text, print_lines, unified, version_text
from comporta.cli.gateway import Running, Where, gateway_options
from comporta.cli.records import actor, with_keeper
from comporta.cli.table import show
from proxy.configuration import ConfigurationFile, digest
from proxy.core.clock import SystemClock
from proxy.http.configuration import Applied, VersionShown
from proxy.settings import Loaded, load

if TYPE_CHECKING:
    from proxy.keeping import Keeper
    from proxy.storage.versions import Version, Versions

HISTORY_EPILOG = """\b
Examples:
  comporta config history
  comporta config history --limit 10 --json | jq '.[0].id'

\b
Where no gateway answers, and with --offline, it is read from the database that the configuration names.
Exit status: 0 shown, 1 it cannot be read, 2 wrong usage or configuration.
"""

ROLLBACK_EPILOG = """\b
Examples:
  comporta config rollback 7
  comporta config rollback 7 --yes --json

\b
A gateway that runs tries the old text, puts it in the file's place and serves by it, or changes nothing. Where none does, or with
--offline, the file is changed, and whoever starts next serves by it; with --offline also a file that nothing starts by.
Either way it is a new version, and in comporta audit list.
Exit status: 0 done, 1 refused or not confirmed, and nothing has changed, 2 wrong usage or configuration.
"""

_OFFLINE = "Ask no gateway: the configuration file and the database."


@click.command(epilog=HISTORY_EPILOG)
@gateway_options(offline=_OFFLINE)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many at most.")
@click.option("--before", type=int, metavar="ID", help="Those before this version.")
@json_option("Print a list of objects.")
def history(where: Where, limit: int, before: int | None, as_json: bool) -> None:
    """List the versions of the configuration file, the newest first: when, who, and why."""
    gateway = where.reached()
    if gateway is not None:
        found = gateway.ask("GET", "/admin/config/versions", limit=limit, before=before)["data"]
        current = gateway.ask("GET", "/admin/config")["digest"]
    else:
        rows = with_keeper(where.lasting.settings, lambda keeper: keeper.versions().list(before=before, limit=limit))
        found = [_shown(row) for row in rows]
        current = None if where.lasting.file is None else digest(file_text(where.lasting))
    listed = [{**{name: one[name] for name in _COLUMNS}, "in_file": one["digest"] == current} for one in found]
    if as_json:
        print_json(listed)
    elif not listed:
        click.echo("none yet: the first change by the administration is the first version")
    else:
        show(("id", "when", "who", "why", "digest", ""), [_row(one) for one in listed])


_COLUMNS = ("id", "created_at", "actor", "comment", "digest")


def _row(one: dict[str, Any]) -> list[object]:
    when = datetime.fromisoformat(one["created_at"]).isoformat(sep=" ", timespec="seconds")
    return [one["id"], when, one["actor"], one["comment"], one["digest"][:12], "is the file" if one["in_file"] else ""]


def _shown(version: Version) -> dict[str, Any]:
    return VersionShown.model_validate(version).model_dump(mode="json")


@click.command(epilog=ROLLBACK_EPILOG)
@click.argument("id", type=click.IntRange(1), shell_complete=versions_of_gateway)
@gateway_options(offline=_OFFLINE)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option("Print the version that it became.")
def rollback(where: Where, id: int, yes: bool, as_json: bool) -> None:
    """Put version ID of the configuration file in force again."""
    gateway = where.reached()
    file = "the gateway's file" if gateway is not None else str(_file(where))
    if not yes:
        before, after = _texts(where, gateway, id)
        print_lines(unified(before, after, (file, f"version {id}")), err=True)
        click.confirm(f"Put version {id} in the place of {file}?", abort=True, err=True)
    made = gateway.ask("POST", f"/admin/config/versions/{id}/rollback") if gateway is not None else _rolled_back(where, id)
    if as_json:
        print_json(made)
    elif gateway is not None:
        click.echo(f"version {id} is in force again, as version {made['id']}")
        if made.get("needs_restart"):  # a gateway of an earlier version does not say
            click.echo(f"but for a restart: {', '.join(made['needs_restart'])}", err=True)
    else:
        click.echo(f"version {id} is in {file} again, as version {made['id']}; a gateway serves by it from its start, or on SIGHUP")


def _rolled_back(where: Where, id: int) -> dict[str, Any]:
    async def work(keeper: Keeper) -> Applied:
        async def versions() -> Versions:
            return keeper.versions()

        def again(file: Path | None) -> Loaded:
            return load(file or where.path, os.environ, {})

        file = ConfigurationFile(
            _file(where), load=again, reload=_nobody, in_force=lambda: where.lasting, history=versions, clock=SystemClock()
        )
        return await file.roll_back(actor(), id)

    return with_keeper(where.lasting.settings, work).model_dump(mode="json", exclude={"text"})


async def _nobody() -> bool:
    """Who would have to take it is not there."""
    return True


def _file(where: Where) -> Path:
    if where.lasting.file is None:
        raise click.UsageError("there is no configuration file to roll back; --config says which")
    return where.lasting.file


def _texts(where: Where, gateway: Running | None, id: int) -> tuple[str, str]:
    """The file's text, and that of version `id`. Raises ClickException."""
    if gateway is not None:
        return gateway.ask("GET", "/admin/config")["text"] or "", gateway.ask("GET", f"/admin/config/versions/{id}")["text"] or ""
    return file_text(where.lasting), version_text(where, id)
