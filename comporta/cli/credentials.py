"""`comporta credentials`: keys of providers that the gateway keeps itself, encrypted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from comporta.cli.configuration import config_option, json_option, print_json, read
from comporta.cli.connection import found, tried_all
from comporta.cli.records import actor, plain, stored, with_keeper
from comporta.cli.table import show
from comporta.group import Group
from proxy.core.errors import ClientError
from proxy.core.names import nearest
from proxy.fields import Section
from proxy.safe import key_of
from proxy.secrets import SecretError, checked, installed_keyring, into_keyring, resolve
from proxy.settings import Settings
from proxy.settings.access import stored_credentials
from proxy.trial import Verdict, is_triable
from proxy.vault import VaultError, new_key

if TYPE_CHECKING:
    from proxy.keeping import Keeper
    from proxy.storage.credentials import StoredCredential

EPILOG = """\b
Examples:
  comporta credentials init-key                      once: the key that encrypts all others
  comporta credentials add spare                     asks for the key, and does not show it
  pass show spare | comporta credentials add spare   from another program
  comporta credentials test                          ask every provider of the configuration
  comporta credentials list

\b
In the configuration a stored key is api_key: "store:spare". A key is never given as an argument: other users of a machine
can read those. Keys are kept encrypted in the database of the configuration's section storage; a running gateway sees a
change within policies.authenticate.staleness (10 s), and every change is in comporta audit list.
"""

_KEY_FILE = "~/.config/comporta/credentials.key"

_COLUMNS = ("name", "last4", "version", "fingerprint", "kek_id", "created_at", "rotated_at", "used_by")


@click.group(cls=Group, epilog=EPILOG)
def credentials() -> None:
    """Keep providers' keys encrypted, test them, replace them."""


def _told(command: Callable[..., Any]) -> Callable[..., Any]:
    """What is refused is a message, not a trace."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except (VaultError, SecretError) as error:
            raise click.ClickException(str(error)) from None

    return run


@credentials.command("init-key")
@click.option("--file", "file", default=_KEY_FILE, show_default=True, metavar="PATH", help="Where to write it, readable by you alone.")
@click.option("--keyring", "name", metavar="NAME", help="Put it into the operating system's keyring instead, under this name.")
@click.option(
    "--stdout", is_flag=True, help="Print it instead, for a variable: export COMPORTA_KEK=$(comporta credentials init-key --stdout)"
)
@json_option("Print the reference to it as an object.")
@_told
def init_key(file: str, name: str | None, stdout: bool, as_json: bool) -> None:
    """Make the key that encrypts all others. Without it the stored credentials are lost: keep a copy apart from them."""
    if stdout:
        click.echo(new_key())
        return
    reference = _into_keyring(name) if name else made_key(Path(file).expanduser())
    if as_json:
        print_json({"key": reference})
        return
    click.echo("Made. Write into the configuration:")
    click.echo(f'credentials: {{key: "{reference}"}}')


def made_key(path: Path) -> str:
    """A new key in a new file of 0600; the reference to it. Raises SecretError for a file that is there, or cannot be written."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(new_key() + "\n")
    except FileExistsError:
        raise SecretError(f"{path} is there already, and what it encrypted would be lost; --file chooses another") from None
    except OSError as error:
        raise SecretError(f"{path}: {error.strerror}") from None
    return f"file:{path}"


def _into_keyring(name: str) -> str:
    into_keyring(installed_keyring(), name, new_key())
    return f"keyring:{name}"


@credentials.command(epilog="The key is asked for, or read from standard input if that is no terminal.")
@click.argument("name")
@config_option
@json_option("Print what was stored, without the key.")
@_told
def add(name: str, path: Path | None, as_json: bool) -> None:
    """Store a provider's key under NAME, for api_key: "store:NAME"."""
    settings = read(path).settings

    async def is_free(keeper: Keeper) -> None:
        if name in [one.name for one in await keeper.credentials(settings).list()]:
            raise ClientError(f"There is a credential {name!r}; comporta credentials rotate {name} replaces it.", status=409)

    key_of(settings.credentials.key, os.environ)  # nobody is asked for what could not be kept
    with_keeper(settings, is_free)
    secret = asked_secret(name)
    made = with_keeper(settings, lambda keeper: keeper.credentials(settings).add(actor(), name, secret))
    _print(made, settings, as_json)


@credentials.command(epilog="The key is asked for, or read from standard input if that is no terminal.")
@click.argument("name")
@config_option
@json_option("Print what was stored, without the key.")
@_told
def rotate(name: str, path: Path | None, as_json: bool) -> None:
    """Put a new key in the place of NAME's."""
    settings = read(path).settings
    key_of(settings.credentials.key, os.environ)
    before = with_keeper(settings, lambda keeper: _known(keeper, settings, name))
    secret = asked_secret(name)
    made = with_keeper(settings, lambda keeper: keeper.credentials(settings).rotate(actor(), name, secret, version=before.version))
    _print(made, settings, as_json)


@credentials.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Also one that a provider of the configuration uses.")
@config_option
@json_option('Print {"name": NAME, "removed": true}; asks nothing.')
@_told
def remove(name: str, yes: bool, force: bool, path: Path | None, as_json: bool) -> None:
    """Delete NAME and its key."""
    settings = read(path).settings
    with_keeper(settings, lambda keeper: _known(keeper, settings, name))
    users = stored_credentials(settings).get(name)
    if users and not force:
        raise click.ClickException(f"{name} is used by {', '.join(users)}; --force deletes it all the same")
    if not (yes or as_json):
        click.confirm(f"Delete {name}?", abort=True)
    with_keeper(settings, lambda keeper: keeper.credentials(settings).remove(actor(), name))
    print_json({"name": name, "removed": True}) if as_json else click.echo(f"{name} is deleted")


@credentials.command("list")
@config_option
@json_option("Print a list of objects.")
@_told
def list_(path: Path | None, as_json: bool) -> None:
    """List what is stored. Of each key only the last four characters are shown, of short ones none."""
    settings = read(path).settings
    rows = [_shown(one, settings) for one in with_keeper(settings, lambda keeper: keeper.credentials(settings).list())]
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("none yet; comporta credentials add NAME")
    else:
        show(_COLUMNS, [[", ".join(row[name]) if name == "used_by" else row[name] for name in _COLUMNS] for row in rows])


@credentials.command()
@click.argument("reference", metavar="NEW")
@config_option
@json_option("Print how many, and the reference, as an object.")
@_told
def rekey(reference: str, path: Path | None, as_json: bool) -> None:
    """Encrypt everything with another key, where NEW says it is (such as file:PATH). Afterwards set credentials.key to it."""
    settings = read(path).settings
    new = partial(key_of, reference, os.environ)
    count = with_keeper(settings, lambda keeper: keeper.credentials(settings).rekey(actor(), new))
    if as_json:
        print_json({"credentials": count, "key": reference})
    else:
        click.echo(f'{count} credentials are encrypted with it. Write into the configuration: credentials: {{key: "{reference}"}}')


@credentials.command(epilog="Exit status 1 if one of them does not work.")
@click.argument("name", required=False)
@click.option("--provider", metavar="PROVIDER", help="The provider of the configuration to try it on.")
@config_option
@json_option("Print a list of objects.")
@_told
def test(name: str | None, provider: str | None, path: Path | None, as_json: bool) -> None:
    """Ask providers for their models: with every key of the configuration, or with the stored one NAME."""
    settings = read(path).settings
    if provider is not None and provider not in settings.providers:
        raise click.UsageError(f"there is no provider {provider!r}; {nearest(provider, settings.providers)}")
    verdicts = _verdicts(settings, name, provider)
    if as_json:
        print_json([{"provider": at, "credential": key, **verdict.as_json()} for at, key, verdict in verdicts])
    else:
        show(("provider", "credential", "outcome", "what it means"), [(at, key, one.outcome, one.said) for at, key, one in verdicts])
    if not all(verdict.is_ok for _, _, verdict in verdicts):
        raise SystemExit(1)


Trials = list[tuple[str, str | None, str | Verdict | None]]


def _verdicts(settings: Settings, name: str | None, provider: str | None) -> list[tuple[str, str | None, Verdict]]:
    at = {each: section for each, section in settings.providers.items() if is_triable(section) and provider in (None, each)}
    trials = _of_configuration(settings, at) if name is None else _of_store(settings, at, name, provider)
    if not trials:
        raise click.UsageError(f"no provider uses store:{name}; say which one to try with --provider" if name else "no provider to test")
    verdicts = tried_all([(at[where], secret) for where, _, secret in trials])
    return [(where, reference, verdict) for (where, reference, _), verdict in zip(trials, verdicts, strict=True)]


def _of_configuration(settings: Settings, at: dict[str, Section]) -> Trials:
    find = partial(resolve, environ=os.environ, store=stored(settings))
    return [
        (name, reference, found(reference, find))
        for name, section in at.items()
        for reference in (getattr(section, "references", ()) or (None,))
    ]


def _of_store(settings: Settings, at: dict[str, Section], name: str, provider: str | None) -> Trials:
    async def work(keeper: Keeper) -> str | Verdict:
        await _known(keeper, settings, name)
        try:
            return await keeper.credentials(settings).secret(name)
        except ClientError as error:
            return Verdict("no_key", f"store:{name}: {error.message}")

    secret = with_keeper(settings, work)
    users = stored_credentials(settings).get(name, [])
    return [(where, f"store:{name}", secret) for where in at if provider is not None or where in users]


def asked_secret(name: str) -> str:
    """A key from the person, unseen, or from standard input. Raises SecretError."""
    if sys.stdin.isatty():
        return checked(str(click.prompt(f"Key of {name}", hide_input=True)))
    return checked(sys.stdin.read())


async def _known(keeper: Keeper, settings: Settings, name: str) -> StoredCredential:
    """Raises ClientError (404) with the nearest name."""
    rows = {one.name: one for one in await keeper.credentials(settings).list()}
    if name not in rows:
        raise ClientError(f"There is no credential {name!r}; {nearest(name, list(rows))}", status=404, code="not_found")
    return rows[name]


def _print(made: StoredCredential, settings: Settings, as_json: bool) -> None:
    if as_json:
        print_json(_shown(made, settings))
    else:
        click.echo(f'{made.name} is stored; in the configuration: api_key: "store:{made.name}"')


def _shown(one: StoredCredential, settings: Settings) -> dict[str, Any]:
    used_by = stored_credentials(settings).get(one.name, [])
    return {name: plain(getattr(one, name)) or None for name in _COLUMNS if name != "used_by"} | {"used_by": used_by}
