"""A gateway that runs, asked over its admin plane by commands that say more when there is one."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from proxy.secrets import SecretError, resolve
from proxy.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])

#: Seconds: a gateway on this machine answers at once, and without one the command must not wait.
_PATIENCE = 5.0
_MOST = 64 * 2**20


class NotReached(Exception):
    """There is no gateway that would tell; why, in words."""


def running_options(command: Command) -> Command:
    command = click.option(
        "--admin-key", metavar="REFERENCE", help="The administrator's key, such as env:NAME.  [default: the configuration's]"
    )(command)
    return click.option(
        "--admin-url", metavar="URL", help="Admin plane of a running gateway.  [default: the configuration's server.admin_listen]"
    )(command)


def told(settings: Settings, path: str, url: str | None = None, key: str | None = None) -> Any:
    """What a running gateway answers at `path` of its admin plane. Raises NotReached.

    The key in the configuration is shown to the address in the configuration, and to no other.
    """
    reference = key or (settings.server.admin_key if url is None else None)
    base = (url or _address(settings)).rstrip("/")
    if urlsplit(base).scheme not in ("http", "https"):
        raise NotReached(f"{base} is no address; write it whole, such as http://127.0.0.1:8081")
    headers = {"accept": "application/json", "user-agent": "comporta"}
    try:
        if reference is not None:
            headers["authorization"] = f"Bearer {resolve(reference, os.environ)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)
        request = urllib.request.Request(f"{base}{path}", headers=headers)  # noqa: S310 - http or https: looked at above
        with opener.open(request, timeout=_PATIENCE) as answer:
            return json.loads(answer.read(_MOST))
    except SecretError as error:
        raise NotReached(f"the administrator's key: {error}") from None
    except urllib.error.HTTPError as error:
        error.close()
        raise NotReached(f"{base} answered with status {error.code}") from None
    except (OSError, http.client.HTTPException) as error:
        raise NotReached(f"nothing answers at {base}: {getattr(error, 'reason', None) or error}") from None
    except ValueError:
        raise NotReached(f"what answers at {base} is no gateway") from None


def _address(settings: Settings) -> str:
    host, port = settings.server.admin_address
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared with, not bound
    return f"http://[{local}]:{port}" if ":" in local else f"http://{local}:{port}"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key is meant for the address that was named, and for no other."""

    def redirect_request(self, *_args: Any) -> None:
        return None
