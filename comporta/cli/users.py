"""`comporta users`: on whose account requests are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from comporta.cli.completion import users_of_gateway
from comporta.cli.configuration import config_option, json_option, print_json
from comporta.cli.records import actor, plain, with_records
from comporta.cli.table import show
from comporta.group import Group
from proxy.core.errors import ClientError
from proxy.core.names import nearest

if TYPE_CHECKING:
    from proxy.http.administration import Records
    from proxy.storage.users import User

EPILOG = """\b
Examples:
  comporta users add ana --name "Ana Silva" --tier premium
  comporta users set ana --inactive          none of ana's keys is let in any more
  comporta users list --json
  comporta users remove ana                  with all keys and preferences

\b
The database is the one that the configuration names under storage; every change is in comporta audit list.
Exit status: 0 done, 1 refused, 2 wrong usage or configuration.
"""

ADD_EPILOG = """\b
Examples:
  comporta users add ana
  comporta users add build --name 'build server' --tier standard --json

\b
Exit status: 0 made, 1 refused, for instance because there is one, 2 wrong usage or configuration.
"""

LIST_EPILOG = """\b
Examples:
  comporta users list
  comporta users list --json | jq -r '.[] | select(.active | not) | .id'

\b
Exit status: 0 listed, 1 the database cannot be read, 2 wrong usage or configuration.
"""

SET_EPILOG = """\b
Examples:
  comporta users set ana --tier premium
  comporta users set ana --inactive

\b
Exit status: 0 changed, 1 there is no such user, 2 wrong usage or configuration.
"""

REMOVE_EPILOG = """\b
Examples:
  comporta users remove ana
  comporta users remove ana --yes --json

\b
Exit status: 0 deleted, 1 there is no such user, or not confirmed, 2 wrong usage or configuration.
"""

_COLUMNS = ("id", "name", "tier", "active", "created_at", "updated_at")


@click.group(cls=Group, epilog=EPILOG)
def users() -> None:
    """Make users, change and remove them."""


@users.command(epilog=ADD_EPILOG)
@click.argument("id")
@click.option("--name", help="For people.")
@click.option("--tier", help="What the hierarchy of configurations knows the user's models by.")
@config_option
@json_option("Print the user as an object.")
def add(id: str, name: str | None, tier: str | None, path: Path | None, as_json: bool) -> None:
    """Make the user ID."""
    user = with_records(path, lambda records: records.users.create(actor(), id, name=name, tier=tier))
    _print(user, as_json, f"{id} is made; a key: comporta keys create {id}")


@users.command("list", epilog=LIST_EPILOG)
@config_option
@json_option("Print a list of objects.")
@click.option("--after", default="", metavar="ID", help="Those after this one.")
@click.option("--limit", default=1000, show_default=True, help="How many at most.")
def list_(path: Path | None, as_json: bool, after: str, limit: int) -> None:
    """List users by id."""
    found = with_records(path, lambda records: records.users.list(after=after, limit=limit))
    if as_json:
        print_json([_shown(user) for user in found])
    else:
        show(_COLUMNS, [list(_shown(user).values()) for user in found])


@users.command("set", epilog=SET_EPILOG)
@click.argument("id", shell_complete=users_of_gateway)
@click.option("--name", help="For people.")
@click.option("--tier", help="What the hierarchy of configurations knows the user's models by.")
@click.option("--active/--inactive", default=None, help="Whether the user's keys are let in.")
@config_option
@json_option("Print the user as an object.")
def set_(id: str, path: Path | None, as_json: bool, **fields: Any) -> None:
    """Change the user ID."""
    given = {name: value for name, value in fields.items() if value is not None}
    if not given:
        raise click.UsageError("nothing to change; --name, --tier, --active or --inactive")

    async def work(records: Records) -> User:
        await known_user(records, id)
        user = await records.users.update(actor(), id, given)
        await records.tell("user", id)
        return user

    _print(with_records(path, work), as_json, f"{id} is changed")


@users.command(epilog=REMOVE_EPILOG)
@click.argument("id", shell_complete=users_of_gateway)
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
@json_option('Print {"deleted": ID}.')
def remove(id: str, yes: bool, path: Path | None, as_json: bool) -> None:
    """Delete the user ID, with all keys and preferences."""
    if not yes:
        with_records(path, lambda records: known_user(records, id))
        click.confirm(f"Delete {id} with all keys and preferences?", abort=True, err=True)

    async def work(records: Records) -> None:
        await known_user(records, id)
        await records.users.delete(actor(), id)
        await records.tell("user", id)

    with_records(path, work)
    print_json({"deleted": id}) if as_json else click.echo(f"{id} is deleted")


async def known_user(records: Records, id: str) -> User:
    """Raises ClientError (404) with the nearest id."""
    found = await records.users.get(id)
    if found is None:
        known = [user.id for user in await records.users.list(limit=20)]
        raise ClientError(f"There is no user {id!r}; {nearest(id, known)}", status=404, code="not_found")
    return found


def _print(user: User, as_json: bool, said: str) -> None:
    print_json(_shown(user)) if as_json else click.echo(said)


def _shown(user: User) -> dict[str, Any]:
    return {name: plain(getattr(user, name)) for name in _COLUMNS}
