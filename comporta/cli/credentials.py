"""`comporta credentials`: keys of providers that the gateway keeps itself, encrypted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial, wraps
from pathlib import Path
from typing import Any, NoReturn

import click

from comporta.cli.configuration import config_option, json_option, print_json, read
from comporta.cli.connection import Verdict, tried, tried_with
from comporta.cli.table import show
from proxy.credential_file import Record, StoreError
from proxy.fields import Section
from proxy.safe import Safe, opened
from proxy.secrets import SecretError, checked, installed_keyring, into_keyring, resolve
from proxy.settings import Settings
from proxy.settings.messages import nearest
from proxy.vault import VaultError, new_key

EPILOG = """\b
Examples:
  comporta credentials init-key                      once: the key that encrypts all others
  comporta credentials add spare                     asks for the key, and does not show it
  pass show spare | comporta credentials add spare   from another program
  comporta credentials test                          ask every provider of the configuration
  comporta credentials list

\b
In the configuration a stored key is api_key: "store:spare". A key is never given as an argument: other users of a machine
can read those. After add, rotate and remove, a running gateway learns of it on SIGHUP.
"""

_KEY_FILE = "~/.config/comporta/credentials.key"


@click.group(epilog=EPILOG)
def credentials() -> None:
    """Keep providers' keys encrypted, test them, replace them."""


def _told(command: Callable[..., Any]) -> Callable[..., Any]:
    """What the store refuses is a message, not a trace."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except (StoreError, VaultError, SecretError) as error:
            raise click.ClickException(str(error)) from None

    return run


@credentials.command("init-key")
@click.option("--file", "file", default=_KEY_FILE, show_default=True, metavar="PATH", help="Where to write it, readable by you alone.")
@click.option("--keyring", "name", metavar="NAME", help="Put it into the operating system's keyring instead, under this name.")
@click.option(
    "--stdout", is_flag=True, help="Print it instead, for a variable: export COMPORTA_KEK=$(comporta credentials init-key --stdout)"
)
@_told
def init_key(file: str, name: str | None, stdout: bool) -> None:
    """Make the key that encrypts all others. Without it the stored credentials are lost: keep a copy apart from them."""
    if stdout:
        click.echo(new_key())
        return
    reference = _into_keyring(name) if name else made_key(Path(file).expanduser())
    click.echo("Made. Write into the configuration:")
    click.echo(f'credentials: {{key: "{reference}"}}')


def made_key(path: Path) -> str:
    """A new key in a new file of 0600; the reference to it. Raises StoreError for a file that is there, or cannot be written."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(new_key() + "\n")
    except FileExistsError:
        raise StoreError(f"{path} is there already, and what it encrypted would be lost; --file chooses another") from None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
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
    safe = _safe(path)
    if name in safe.records():
        raise StoreError(f"there is a credential {name!r}; comporta credentials rotate {name} replaces it")
    _stored(safe.add(name, asked_secret(name)), as_json)


@credentials.command(epilog="The key is asked for, or read from standard input if that is no terminal.")
@click.argument("name")
@config_option
@json_option("Print what was stored, without the key.")
@_told
def rotate(name: str, path: Path | None, as_json: bool) -> None:
    """Put a new key in the place of NAME's."""
    safe = _safe(path)
    _require(safe, name)
    _stored(safe.rotate(name, asked_secret(name)), as_json)


@credentials.command()
@click.argument("name")
@config_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@_told
def remove(name: str, path: Path | None, yes: bool) -> None:
    """Delete NAME and its key."""
    safe = _safe(path)
    _require(safe, name)
    if not yes:
        click.confirm(f"Delete {name}?", abort=True)
    safe.remove(name)
    click.echo(f"{name} is deleted")


@credentials.command("list")
@config_option
@json_option("Print a list of objects.")
@_told
def list_(path: Path | None, as_json: bool) -> None:
    """List what is stored. Of each key only the last four characters are shown, of short ones none."""
    found = [_shown(record) for record in _safe(path).records().values()]
    if as_json:
        print_json(found)
    elif not found:
        click.echo("none yet; comporta credentials add NAME")
    else:
        show(list(found[0]), [[*one.values()] for one in found])


@credentials.command()
@click.argument("reference", metavar="NEW")
@config_option
@_told
def rekey(reference: str, path: Path | None) -> None:
    """Encrypt everything with another key, where NEW says it is (such as file:PATH). Afterwards set credentials.key to it."""
    count = _safe(path).rekey(reference)
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
    safe = opened(settings.credentials, os.environ)
    if name is not None:
        _require(safe, name)
    if provider is not None and provider not in settings.providers:
        raise click.UsageError(f"there is no provider {provider!r}; {nearest(provider, settings.providers)}")
    verdicts = _verdicts(settings, safe, name, provider)
    if as_json:
        print_json([{"provider": at, "credential": key, **verdict.as_json()} for at, key, verdict in verdicts])
    else:
        show(("provider", "credential", "outcome", "what it means"), [(at, key, one.outcome, one.said) for at, key, one in verdicts])
    if not all(verdict.is_ok for _, _, verdict in verdicts):
        raise SystemExit(1)


def _verdicts(settings: Settings, safe: Safe, name: str | None, provider: str | None) -> list[tuple[str, str | None, Verdict]]:
    find = partial(resolve, environ=os.environ, store=safe)
    found: list[tuple[str, str | None, Verdict]] = []
    for at, section in settings.providers.items():
        if (provider is not None and at != provider) or not hasattr(section, "base_url"):
            continue
        references: tuple[str, ...] = getattr(section, "references", ())
        if name is None:
            found += [(at, reference, _tried(section, reference, find)) for reference in references or (None,)]
        elif provider is not None or f"store:{name}" in references:
            found.append((at, f"store:{name}", tried_with(section, safe(name))))
    if not found:
        raise click.UsageError(f"no provider uses store:{name}; say which one to try with --provider" if name else "no provider to test")
    return found


def _tried(section: Section, reference: str | None, find: Callable[[str], str]) -> Verdict:
    return tried(section.model_copy(update={"api_key": reference, "api_keys": ()}), find)


def asked_secret(name: str) -> str:
    """A key from the person, unseen, or from standard input. Raises SecretError."""
    if sys.stdin.isatty():
        return checked(str(click.prompt(f"Key of {name}", hide_input=True)))
    return checked(sys.stdin.read())


def _safe(path: Path | None) -> Safe:
    return opened(read(path).settings.credentials, os.environ)


def _require(safe: Safe, name: str) -> None:
    known = safe.records()
    if name not in known:
        _unknown(name, list(known))


def _unknown(name: str, known: list[str]) -> NoReturn:
    raise StoreError(f"there is no credential {name!r}; {nearest(name, known)}")


def _stored(record: Record, as_json: bool) -> None:
    if as_json:
        print_json(_shown(record))
        return
    click.echo(f'{record.place.name} is stored; in the configuration: api_key: "store:{record.place.name}"')


def _shown(record: Record) -> dict[str, Any]:
    return {
        "name": record.place.name,
        "ends_in": record.last_four or None,
        "version": record.place.version,
        "created": _moment(record.created),
        "updated": _moment(record.updated),
        "key_id": record.sealed.key_id,
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
