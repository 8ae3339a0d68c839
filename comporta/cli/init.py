"""`comporta init`: questions, each key tried, and a configuration file with comments."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import providers
from comporta.cli.configuration import BadConfiguration, json_option, print_json
from comporta.cli.connection import tried_with
from comporta.cli.credentials import made_key
from comporta.cli.records import actor, with_keeper
from proxy.core.names import nearest
from proxy.fields import Section
from proxy.secrets import SecretError, checked, resolve
from proxy.settings import Settings, SettingsError, load
from proxy.settings.credentials import CredentialSettings
from proxy.settings.storage import StorageSettings
from proxy.vault import VaultError

if TYPE_CHECKING:
    from proxy.keeping import Keeper

EPILOG = """\b
Examples:
  comporta init                                        asks for everything
  comporta init --yes --provider openai                the key from OPENAI_API_KEY
  comporta init --yes --provider spare=openai --base-url spare=https://models.example.net/v1 --key spare=env:SPARE_KEY
  comporta init --yes --provider local=openai --base-url local=http://127.0.0.1:8000/v1 --key local=none

\b
A key itself is never an argument: it is asked for, and kept in the encrypted store, or it is referred to (env:, file:, keyring:).
Exit status: 0 the file is written, also where a key does not work yet, 1 it is not, 2 wrong usage.
"""

_KEK = "~/.config/comporta/credentials.key"

_TOP = """\
# Written by comporta init. Everything that is not here has a default: comporta config show lists all of it.
# What it means, and what is wrong with it: comporta check {file}

server:
  listen: "127.0.0.1:8080"           # for clients: OPENAI_BASE_URL=http://127.0.0.1:8080/v1
  admin_listen: "127.0.0.1:8081"     # /metrics and administration

providers:                           # the first one serves models that no table lists
"""


@dataclass(frozen=True)
class Account:
    """One provider as it was asked for; `reference` None is no key. `works`: whether it has listed its models."""

    name: str
    kind: str
    base_url: str | None
    reference: str | None
    works: bool = False


class _Pairs(click.ParamType[tuple[str, str]]):
    """NAME=VALUE; the value is not repeated, for it may be a key that was given where only a reference may stand."""

    name = "pair"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, equals, rest = str(value).partition("=")
        if not equals or not name or not rest:
            self.fail("write NAME=VALUE, with the provider's name", param, ctx)
        return name, rest


@click.command(epilog=EPILOG)
@click.option("--output", "file", default="comporta.yaml", show_default=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
@click.option("--yes", is_flag=True, help="Ask nothing: the options say everything.")
@click.option("--provider", "names", multiple=True, metavar="NAME[=KIND]", help="With --yes: a provider; the kind is by default the name.")
@click.option("--base-url", "urls", multiple=True, type=_Pairs(), metavar="NAME=URL", help="With --yes: where it is.")
@click.option("--key", "keys", multiple=True, type=_Pairs(), metavar="NAME=REFERENCE", help="With --yes: where its key is, or none.")
@json_option("With --yes: print what was written, and which providers answered.")
def init(file: Path, force: bool, yes: bool, as_json: bool, names: tuple[str, ...], **given: tuple[tuple[str, str], ...]) -> None:
    """Write a configuration: which providers, and where their keys are. Each key is tried."""
    if as_json and not yes:
        raise click.UsageError("--json wants --yes: questions are for people")
    if file.exists() and not force:
        raise click.ClickException(f"{file} is there already; --force overwrites it, --output writes another")
    kek: list[str] = []
    try:
        accounts = _named(names, dict(given["urls"]), dict(given["keys"]), quiet=as_json) if yes else _asked(kek)
    except (SecretError, VaultError) as error:
        raise click.ClickException(str(error)) from None
    write(file, written(accounts, kek[0] if kek else None))
    if as_json:
        print_json({"file": str(file), "providers": [asdict(account) for account in accounts]})
    else:
        click.echo(f"{file} is written. Next: comporta serve --config {file}")


def _named(names: tuple[str, ...], urls: Mapping[str, str], keys: Mapping[str, str], *, quiet: bool) -> list[Account]:
    if not names:
        raise click.UsageError("--yes wants at least one --provider NAME=KIND")
    accounts = []
    for text in names:
        name, _, kind = text.partition("=")
        account = _account(name, kind or name, urls.get(name), keys.get(name))
        accounts.append(replace(account, works=_try(account, None, quiet=quiet)))
    if unknown := (set(urls) | set(keys)) - {account.name for account in accounts}:
        raise click.UsageError(f"there is no --provider {min(unknown)!r}; {nearest(min(unknown), [one.name for one in accounts])}")
    return accounts


def _account(name: str, kind: str, base_url: str | None, key: str | None) -> Account:
    reference = None if key == "none" else key if key is not None else f"env:{_variable(name)}"
    if reference is not None and not re.fullmatch(r"(env|file|keyring|store):\S.*", reference):
        raise click.UsageError(f"--key {name}=... wants a reference (env:NAME, file:PATH, keyring:NAME, store:NAME) or none, never a key")
    if kind not in providers.kinds():
        raise click.UsageError(f"there is no kind {kind!r}; {nearest(kind, providers.kinds())}")
    return Account(name, kind, base_url, reference)


def _variable(name: str) -> str:
    return re.sub(r"[^A-Z0-9]+", "_", name.upper()) + "_API_KEY"


# ---------------------------------------------------------------------------------------------------------------------------- questions
def _asked(kek: list[str]) -> list[Account]:
    """`kek` gets the reference to the store's key, once a key is stored."""
    accounts: list[Account] = []
    while not accounts or click.confirm("Another provider?", default=False):
        accounts.append(_asked_one(kek))
    return accounts


def _asked_one(kek: list[str]) -> Account:
    kinds = providers.kinds()
    kind = click.prompt("Kind of provider", type=click.Choice(sorted(kinds)), default=next(iter(kinds)))
    name = click.prompt("Your name for it", default=kind)
    field = kinds[kind].Settings.model_fields.get("base_url")
    if field is None:
        return Account(name, kind, None, None)
    base_url = click.prompt("Where it is (base_url)", default=None if field.is_required() else field.default)
    where = click.prompt(
        "Its key: in a variable (env), in the encrypted store (store), or none", type=click.Choice(["env", "store", "none"])
    )
    if where == "none":
        account, secret = Account(name, kind, base_url, None), None
    elif where == "env":
        account, secret = Account(name, kind, base_url, "env:" + click.prompt("Variable", default=_variable(name))), None
    else:
        secret = checked(click.prompt(f"Key of {name}", hide_input=True))
        account = Account(name, kind, base_url, f"store:{name}")
    works = _try(account, secret)
    if secret is not None and (works or click.confirm("Keep this key all the same?", default=False)):
        _store(kek, name, secret)
    return account


def _store(kek: list[str], name: str, secret: str) -> None:
    if not kek:
        path = Path(os.environ.get("COMPORTA_CREDENTIALS__KEY", f"file:{_KEK}").removeprefix("file:")).expanduser()
        kek.append(f"file:{path}" if path.exists() else made_key(path))
    place = StorageSettings(url=os.environ.get("COMPORTA_STORAGE__URL"), pepper=os.environ.get("COMPORTA_STORAGE__PEPPER"))
    settings = Settings(credentials=CredentialSettings(key=kek[0]), storage=place)

    async def put(keeper: Keeper) -> None:
        store = keeper.credentials(settings)
        is_there = name in [one.name for one in await store.list()]
        await (store.rotate if is_there else store.add)(actor(), name, secret)

    with_keeper(settings, put)


def _try(account: Account, secret: str | None, *, quiet: bool = False) -> bool:
    """Ask the provider, and say what came of it. A key that does not work is no reason to write nothing: it may come later.

    `quiet`: nothing goes to standard output.
    """
    section = _section(account)
    if not hasattr(section, "base_url"):
        return True
    if secret is None and account.reference is not None and not account.reference.startswith("store:"):
        try:
            secret = resolve(account.reference, os.environ)
        except SecretError as error:
            click.echo(f"{account.name}: not tried: {error}", err=True)
            return False
    verdict = tried_with(section, secret)
    click.echo(f"{account.name}: {verdict.said}", err=quiet or not verdict.is_ok)
    return verdict.is_ok


def _section(account: Account) -> Section:
    values = {"kind": account.kind, **({"base_url": account.base_url} if account.base_url else {})}
    try:
        section: Section = providers.kinds()[account.kind].Settings.model_validate(values)
    except ValueError:
        raise click.UsageError(f"{account.name}: its base_url is no address; such as https://models.example.net/v1") from None
    return section


# ----------------------------------------------------------------------------------------------------------------------------- the file
def written(accounts: list[Account], kek: str | None) -> str:
    """The file's text. JSON's strings are YAML's."""
    lines = []
    for account in accounts:
        lines += [f"  {account.name}:", f"    kind: {json.dumps(account.kind)}"]
        if account.base_url:
            lines.append(f"    base_url: {json.dumps(account.base_url)}")
        if account.reference:
            lines.append(f"    api_key: {json.dumps(account.reference)}    # where the key is, never the key itself")
    if kek:
        lines += [
            "",
            "credentials:                         # what store:NAME leads to",
            f"  key: {json.dumps(kek)}    # keep a copy of this file",
        ]
    lines += ["", "# models:                            # what clients ask for -> who serves it", f"#   fast: {accounts[0].name}"]
    return _TOP.format(file="FILE") + "\n".join(lines) + "\n"


def write(file: Path, text: str) -> None:
    """Only a file that `comporta check` would take, whole or not at all. Raises BadConfiguration, ClickException."""
    try:
        handle, temporary = tempfile.mkstemp(suffix=".yaml", prefix=".init-", dir=file.parent)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as made:
            made.write(text)
        load(Path(temporary), {}, {})
        os.replace(temporary, file)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, SettingsError):
            raise BadConfiguration(error) from None
        raise
