"""`comporta keys`: what clients show instead of a provider's key."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from comporta.cli.completion import keys_of_gateway, users_of_gateway
from comporta.cli.configuration import config_option, json_option, print_json
from comporta.cli.records import actor, plain, with_records
from comporta.cli.table import show
from comporta.cli.users import known_user
from comporta.group import Group
from proxy.core import keys as tokens
from proxy.core.errors import ClientError
from proxy.core.names import nearest
from proxy.core.units import parse_duration

if TYPE_CHECKING:
    from proxy.http.administration import Records
    from proxy.storage.keys import NewKey, VirtualKey
    from proxy.storage.limits import Limits

EPILOG = """\b
Examples:
  comporta keys create ana --name laptop --expires 90d
  comporta keys create build --models "fast,gpt-4.1-mini" --from 10.0.0.0/8
  comporta keys rotate Ab12Cd34Ef56 --overlap 24h    the old one goes on for a day
  comporta keys revoke Ab12Cd34Ef56
  comporta keys list --user ana --json

\b
A key is shown once, by what makes it: the database has a digest of it only. Whoever runs these commands needs the
gateway's configuration: its database and its pepper.
Exit status: 0 done, 1 refused, 2 wrong usage or configuration.
"""

CREATE_EPILOG = """\b
Examples:
  comporta keys create ana --name laptop --expires 90d
  comporta keys create build --models "fast,gpt-4.1-mini" --from 10.0.0.0/8
  OPENAI_API_KEY=$(comporta keys create ana)         the key alone is on standard output

\b
Exit status: 0 made, 1 there is no such user, 2 wrong usage or configuration.
"""

LIST_EPILOG = """\b
Examples:
  comporta keys list --user ana
  comporta keys list --json | jq -r '.[] | select(.revoked_at == null) | .id'

\b
Exit status: 0 listed, 1 the database cannot be read, 2 wrong usage or configuration.
"""

ROTATE_EPILOG = """\b
Examples:
  comporta keys rotate Ab12Cd34Ef56 --overlap 24h
  comporta keys rotate Ab12Cd34Ef56 --expires 90d    its successor's end; otherwise that is the old one's
  comporta keys rotate Ab12Cd34Ef56 --overlap 0s --json

\b
Exit status: 0 made, 1 there is no such key, or it has ended, 2 wrong usage or configuration.
"""

REVOKE_EPILOG = """\b
Examples:
  comporta keys revoke Ab12Cd34Ef56

\b
Exit status: 0 revoked, 1 there is no such key, 2 wrong usage or configuration.
"""

_COLUMNS = ("id", "user_id", "last4", "name", "expires_at", "revoked_at", "replaced_by", "created_at")


#: Seconds of 100 years: whoever wants a key for longer wants one that never expires.
_LONGEST = 36_525 * 86_400.0


def _seconds(_context: click.Context, _option: click.Parameter, text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no duration; such as 12h or 90d") from None
    if seconds > _LONGEST:
        raise click.BadParameter(f"{text!r} is longer than 100 years")
    return seconds


def _lifetime(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """Seconds, infinitely many for `never`."""
    if text is None or text == "never":
        return None if text is None else math.inf
    seconds = _seconds(context, option, text)
    if seconds == 0:
        raise click.BadParameter("a key that has expired when it is made lets nobody in")
    return seconds


def _end(seconds: float) -> datetime | None:
    return None if seconds == math.inf else datetime.fromtimestamp(time.time() + seconds, UTC)


@click.group(cls=Group, epilog=EPILOG)
def keys() -> None:
    """Make the keys that clients show, replace and revoke them."""


@keys.command(epilog=CREATE_EPILOG)
@click.argument("user", shell_complete=users_of_gateway)
@click.option("--name", help="For people.")
@click.option("--models", metavar="A,B", help="What it may ask for.  [default: everything]")
@click.option("--from", "addresses", metavar="NETWORK,...", help="Where it may come from.  [default: everywhere]")
@click.option("--expires", metavar="DURATION", callback=_lifetime, default="never", show_default=True, help="Such as 12h or 90d.")
@config_option
@json_option("Print the key as an object; the key itself is its member `key`.")
def create(user: str, path: Path | None, as_json: bool, expires: float, **given: str | None) -> None:
    """Make a key of USER, and show it this once."""

    async def work(records: Records) -> tuple[VirtualKey, str]:
        await known_user(records, user)
        models, addresses = (tuple(text.split(",")) if text else None for text in (given["models"], given["addresses"]))
        limits = records.limits(models=models, addresses=addresses)
        new, token = _made(records, user, given["name"], limits, _end(expires))
        return await records.keys.create(actor(), new), token

    _print_once(*with_records(path, work), as_json)


@keys.command("list", epilog=LIST_EPILOG)
@click.option("--user", metavar="ID", help="Of this user only.", shell_complete=users_of_gateway)
@click.option("--after", default="", metavar="ID", help="Those after this one.")
@click.option("--limit", default=1000, show_default=True, help="How many at most.")
@config_option
@json_option("Print a list of objects.")
def list_(user: str | None, after: str, limit: int, path: Path | None, as_json: bool) -> None:
    """List keys, by their public ids and last characters."""
    found = with_records(path, lambda records: records.keys.list(user=user, after=after, limit=limit))
    if as_json:
        print_json([_shown(key) for key in found])
    else:
        show(_COLUMNS, [[_shown(key)[name] for name in _COLUMNS] for key in found])


@keys.command(epilog=ROTATE_EPILOG)
@click.argument("id", shell_complete=keys_of_gateway)
@click.option("--overlap", default="24h", show_default=True, callback=_seconds, help="How long the old one goes on; 0s ends it now.")
@click.option("--expires", metavar="DURATION", callback=_lifetime, help="Such as 12h, 90d or never.  [default: when the old one would]")
@config_option
@json_option("Print the new key as an object; the key itself is its member `key`.")
def rotate(id: str, overlap: float, expires: float | None, path: Path | None, as_json: bool) -> None:
    """Make the successor of the key ID, and show it this once."""

    async def work(records: Records) -> tuple[VirtualKey, str]:
        old = await _known_key(records, id)
        end = old.expires_at if expires is None else _end(expires)
        new, token = _made(records, old.user_id, old.name, old.limits, end)
        made = await records.keys.rotate(actor(), id, new, overlap=overlap)
        await records.tell("key", id)
        return made, token

    _print_once(*with_records(path, work), as_json)


@keys.command(epilog=REVOKE_EPILOG)
@click.argument("id", shell_complete=keys_of_gateway)
@config_option
@json_option("Print the key as an object.")
def revoke(id: str, path: Path | None, as_json: bool) -> None:
    """Let nobody in by the key ID any more; gateways learn of it within policies.authenticate.staleness."""

    async def work(records: Records) -> VirtualKey:
        await _known_key(records, id)
        key = await records.keys.revoke(actor(), id)
        await records.tell("key", id)
        return key

    key = with_records(path, work)
    print_json(_shown(key)) if as_json else click.echo(f"{id} is revoked")


def _made(records: Records, user: str, name: str | None, limits: Limits, end: datetime | None) -> tuple[NewKey, str]:
    public, token = tokens.generate()
    return records.new_key(public, user, tokens.digest(token, records.pepper), token[-4:], name, limits, end), token


async def _known_key(records: Records, id: str) -> VirtualKey:
    found = await records.keys.get(id)
    if found is None:
        known = [key.id for key in await records.keys.list(limit=20)]
        raise ClientError(f"There is no key {tokens.parse(id) or id[:20]!r}; give its id; {nearest(id[:20], known)}", status=404)
    return found


def _print_once(key: VirtualKey, token: str, as_json: bool) -> None:
    if as_json:
        print_json({**_shown(key), "key": token})
        return
    click.echo(token)
    click.echo(f"This is the key {key.id} of {key.user_id}. It is shown this once.", err=True)


def _shown(key: VirtualKey) -> dict[str, Any]:
    return {**{name: plain(getattr(key, name)) for name in _COLUMNS}, "limits": key.limits.encode()}
