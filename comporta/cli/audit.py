"""`comporta audit`: who changed what."""

from __future__ import annotations

import json
from pathlib import Path

import click

from comporta.cli.configuration import config_option, json_option, print_json
from comporta.cli.records import plain, with_records
from comporta.cli.table import show
from comporta.group import Group

EPILOG = """\b
Examples:
  comporta audit list --limit 20
  comporta audit verify

\b
Exit status: 0 done, 1 the log is not whole, or cannot be read, 2 wrong usage or configuration.
"""

LIST_EPILOG = """\b
Examples:
  comporta audit list --limit 20
  comporta audit list --json | jq '.[] | select(.actor == "admin")'

\b
Exit status: 0 listed, 1 the database cannot be read, 2 wrong usage or configuration.
"""

VERIFY_EPILOG = """\b
Examples:
  comporta audit verify
  comporta audit verify --json | jq .first_broken

\b
Exit status: 0 it is whole, 1 it is not, or cannot be read, 2 wrong usage or configuration.
"""

_COLUMNS = ("seq", "at", "actor", "action", "object", "before", "after", "hash")


@click.group(cls=Group, epilog=EPILOG)
def audit() -> None:
    """Read the log of all changes, and see whether it is whole."""


@audit.command("list", epilog=LIST_EPILOG)
@click.option("--limit", default=50, show_default=True, help="How many at most.")
@click.option("--before", type=int, metavar="SEQ", help="Those before this row.")
@config_option
@json_option("Print a list of objects.")
def list_(limit: int, before: int | None, path: Path | None, as_json: bool) -> None:
    """List changes, the newest first."""
    rows = with_records(path, lambda records: records.audit.list(before=before, limit=limit))
    found = [{name: plain(getattr(row, name)) for name in _COLUMNS} for row in rows]
    if as_json:
        print_json(found)
    else:
        show(_COLUMNS[:5], [[row[name] for name in _COLUMNS[:5]] for row in found])


@audit.command(epilog=VERIFY_EPILOG)
@config_option
@json_option('Print {"whole": true, "first_broken": null}.')
def verify(path: Path | None, as_json: bool) -> None:
    """See whether every row is as it was written, and follows the one before."""
    broken = with_records(path, lambda records: records.audit.verify())
    if as_json:
        click.echo(json.dumps({"whole": broken is None, "first_broken": broken}))
    else:
        click.echo("the log is whole" if broken is None else f"from row {broken} on the log cannot be believed")
    if broken is not None:
        raise SystemExit(1)
