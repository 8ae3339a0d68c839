"""The gateway that runs, as its admin plane shows it, for commands that ask or change it."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import click

from comporta.cli.configuration import BadConfiguration, config_option, read
from proxy.secrets import SecretError, resolve
from proxy.settings import Loaded, SettingsError, load_lasting

Command = TypeVar("Command", bound=Callable[..., Any])

#: Seconds for an answer. A configuration is put in force by all workers before it comes.
_PATIENCE = 60.0
_MAX_ANSWER = 32 * 2**20

#: Hosts that mean every address of a machine: this machine is reached at its own.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - nothing listens here


class NoGateway(click.ClickException):
    """Nothing accepts connections there."""


class Refused(click.ClickException):
    """The gateway has answered with an error of its own; `status` is that of HTTP."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The administrator's key is for the address that was named, and for no other."""

    def redirect_request(self, *_args: Any) -> None:
        return None


@dataclass(frozen=True)
class Running:
    """A gateway at the URL of its admin plane, with the administrator's key, if it wants one."""

    url: str
    key: str | None = field(default=None, repr=False)
    patience: float = _PATIENCE

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The answer, from JSON. Raises NoGateway, Refused, ClickException; `query` without what is None."""
        said = urlencode({name: value for name, value in query.items() if value is not None})
        request = urllib.request.Request(  # noqa: S310 - the URL was looked at when it was given
            f"{self.url}{path}?{said}" if said else f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"accept": "application/json", "content-type": "application/json", "user-agent": "comporta"},
        )
        if self.key is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self.key}")
        # Proxies from the environment are not for keys.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
        try:
            with opener.open(request, timeout=self.patience) as answer:
                return json.loads(answer.read(_MAX_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(self.url, error) from None
        except TimeoutError:
            raise click.ClickException(f"{self.url} has not answered within {self.patience:g} s") from None
        except urllib.error.URLError as error:
            raise _unreached(self.url, error.reason) from None
        except (OSError, http.client.HTTPException, ValueError):
            raise click.ClickException(f"what answers at {self.url} is no gateway's admin plane") from None


def _refused(url: str, error: urllib.error.HTTPError) -> click.ClickException:
    try:
        message = str(json.loads(error.read(_MAX_ANSWER))["error"]["message"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return click.ClickException(f"what answers at {url} is no gateway's admin plane: it said {error.code}")
    if error.code == 401:
        message += " --admin-key says where it is, such as env:COMPORTA_ADMIN_KEY."
    return Refused(message, error.code)


def _unreached(url: str, reason: object) -> click.ClickException:
    if isinstance(reason, TimeoutError):
        return click.ClickException(f"{url} has not answered in time")
    return NoGateway(f"no gateway answers at {url} ({getattr(reason, 'strerror', None) or reason})")


@dataclass(frozen=True)
class Where:
    """What a command works on: a configuration, and the gateway that runs by it."""

    path: Path | None
    admin: str | None
    admin_key: str | None
    offline: bool = False

    @cached_property
    def loaded(self) -> Loaded:
        """The configuration as this process reads it. Raises BadConfiguration."""
        return read(self.path)

    @cached_property
    def lasting(self) -> Loaded:
        """The same; where no gateway is to be asked, a file that cannot be used will do as far as it names the database."""
        try:
            return self.loaded
        except BadConfiguration as error:
            if not self.offline:
                raise
            try:
                found = load_lasting(self.path, os.environ)
            except SettingsError:
                raise error from None
            click.echo(f"{click.style('note', fg='yellow')}: {found.name} cannot be used: only what it says of storage is", err=True)
            return found

    @cached_property
    def running(self) -> Running:
        """Where the gateway should be; whether it is there shows when it is asked. Raises ClickException."""
        return Running(self.admin.rstrip("/") if self.admin is not None else self._listening(), self._key())

    def reached(self) -> Running | None:
        """The gateway if it is there; None, with a line on stderr, where the file and the database must do. Raises ClickException."""
        if self.offline:
            return None
        try:
            return self._answering()
        except NoGateway as error:
            if self.admin is not None:
                raise
            click.echo(f"{click.style('note', fg='yellow')}: {error.message}: this is from the file and the database", err=True)
            return None

    def required(self) -> Running:
        """The gateway, which must be there. Raises NoGateway, with what to do, and ClickException."""
        try:
            return self._answering()
        except NoGateway as error:
            hint = "start one with comporta serve, or say where it is: --admin http://HOST:PORT (its server.admin_listen)"
            raise NoGateway(f"{error.message}; {hint}") from None

    def _answering(self) -> Running:
        try:
            self.running.ask("GET", "/healthz")
        except BadConfiguration:
            click.echo("--admin http://HOST:PORT says where the gateway is without reading the configuration.", err=True)
            click.echo("Where none runs, comporta config rollback --offline takes an earlier version back.", err=True)
            raise
        return self.running

    def _listening(self) -> str:
        address = self.loaded.settings.server.admin_address
        if not address.port:
            raise NoGateway("the configuration has server.admin_listen on any free port: --admin http://HOST:PORT says on which")
        host = _ANY.get(address.host, address.host)
        return f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"

    def _key(self) -> str | None:
        reference = self.admin_key
        if reference is None:
            try:
                reference = self.loaded.settings.server.admin_key
            except BadConfiguration:
                return None  # it was said where the gateway is; whether that wants a key, it says itself
        try:
            return None if reference is None else resolve(reference, os.environ)
        except SecretError as error:
            raise click.ClickException(f"the administrator's key: {error}") from None


def _url(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    if text is not None and not text.startswith(("http://", "https://")):
        raise click.BadParameter(f"{text!r} is no URL; such as http://127.0.0.1:8081")
    return text


def _reference(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    if text is not None and not text.startswith(("env:", "file:", "keyring:")):
        # What was given may be the key itself: it is not repeated.
        raise click.BadParameter("a key is given by reference: env:NAME, file:PATH or keyring:NAME")
    return text


def gateway_options(*, offline: str | None = None) -> Callable[[Command], Any]:
    """Gives a command its `where`; `offline` is the help of the flag that asks no gateway, None for a command that cannot do without."""

    def decorate(command: Command) -> Any:
        @wraps(command)
        def run(path: Path | None, admin: str | None, admin_key: str | None, **options: Any) -> Any:
            return command(Where(path, admin, admin_key, options.pop("offline", False)), **options)

        decorated: Any = run
        if offline is not None:
            decorated = click.option("--offline", is_flag=True, help=offline)(decorated)
        key_help = "Where the administrator's key is.  [default: server.admin_key]"
        decorated = click.option("--admin-key", metavar="REFERENCE", callback=_reference, help=key_help)(decorated)
        admin_help = "The admin plane of the gateway.  [default: server.admin_listen of the configuration]"
        decorated = click.option("--admin", metavar="URL", callback=_url, help=admin_help)(decorated)
        return config_option(decorated)

    return decorate
