"""The database that the configuration names, for commands that change what lasts. Each change is audited under who runs the command."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from comporta.cli.configuration import read
from proxy import log
from proxy.core import events
from proxy.core.clock import SystemClock
from proxy.core.errors import GatewayError
from proxy.core.metrics import Registry
from proxy.secrets import Store
from proxy.settings import Settings
from proxy.settings.access import stored_credentials

if TYPE_CHECKING:
    from proxy.http.administration import Records
    from proxy.keeping import Keeper

Result = TypeVar("Result")


def actor() -> str:
    """As the audit log names this person: `cli:` and the name of the operating system's user."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:{os.getuid()}"


def with_records(path: Path | None, work: Callable[[Records], Awaitable[Result]]) -> Result:
    """Open the database, do `work`, close it. What is refused becomes a message and status 1."""
    return with_keeper(read(path).settings, lambda keeper: work(keeper.records()))


def with_keeper(settings: Settings, work: Callable[[Keeper], Awaitable[Result]]) -> Result:
    """The same with all that the database is used for."""
    from proxy.keeping import Keeper

    async def run() -> Result:
        keeper = Keeper(settings, os.environ, SystemClock(), Registry())
        try:
            await keeper.open()
            return await work(keeper)
        finally:
            await keeper.close()

    try:
        with _log_on_stderr():
            return asyncio.run(run())
    except GatewayError as error:
        raise click.ClickException(error.message) from None
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None


def stored(settings: Settings) -> Store | None:
    """The secrets that `settings` take from the credential store. The database is opened only where there are such references."""
    if not stored_credentials(settings):
        return None

    async def work(keeper: Keeper) -> Store:
        await keeper.read_credentials(settings)
        return keeper.secrets

    return with_keeper(settings, work)


@contextlib.contextmanager
def _log_on_stderr() -> Iterator[None]:
    """What is logged on the way does not get between the lines of JSON."""
    root = logging.getLogger()
    before, heard = root.handlers[:], events.EAR.hear
    writer = log.LineWriter(sys.stderr.buffer, pretty=True)
    log.configure(writer)
    writer.start()
    try:
        yield
    finally:
        writer.stop()
        root.handlers[:], events.EAR.hear = before, heard


def plain(value: Any) -> Any:
    """For JSON and tables: times as text, sets in order."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return sorted(value) if isinstance(value, (frozenset, tuple)) else value
