"""The database as policies see it: who has which key, who has set what. Imported where storage is used only: what it imports takes long."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import stat
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from policies.authenticate import AuthenticateSettings
from proxy.core import events
from proxy.core.errors import CapacityError, GatewayError
from proxy.core.metrics import Registry
from proxy.core.protocols import Clock, Services
from proxy.core.resolved import Preferences
from proxy.core.waits import waits
from proxy.http.administration import Records
from proxy.safe import key_of
from proxy.secrets import SecretError, resolve
from proxy.settings import Settings
from proxy.settings.access import stored_credentials
from proxy.settings.storage import StorageSettings, default_path
from proxy.state.news import news
from proxy.storage.audit import Audit
from proxy.storage.credential_store import CredentialStore, KnownSecrets
from proxy.storage.credentials import Credentials
from proxy.storage.database import Database
from proxy.storage.faults import is_lasting
from proxy.storage.identities import Identities, KeptPreferences
from proxy.storage.kept import Keeping
from proxy.storage.keys import Keys, NewKey
from proxy.storage.limits import Limits
from proxy.storage.migrations import UnknownSchemaError
from proxy.storage.preferences import PreferenceTable
from proxy.storage.reach import Reach
from proxy.storage.users import Users
from proxy.storage.versions import Versions
from proxy.vault import KeyEncryptionKey

#: Characters that a pepper has at least, and bytes of one that is made here.
_SHORTEST = 32
_MADE = 32

_MOST = 4096

#: Seconds between two looks for other credentials, if nobody tells of any, whatever the staleness.
_SOONEST = 0.1

#: Seconds until a database that was not there at the start is tried again: at first and at most. See `proxy.core.waits`.
_AGAIN = (0.2, 5.0)


class StorageAwayError(RuntimeError):
    """The database cannot be reached now, and may be later."""


class Keeper:
    """One database, and what is known from it. Raises RuntimeError, in words for who starts the gateway, for what cannot be used."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], clock: Clock, metrics: Registry) -> None:
        self._asked = _asked(settings)
        self._environ = environ
        section, (staleness, outlive) = self._asked
        url = database_url(section, environ)
        try:
            self.database = Database(url, clock)
        except ValueError as error:
            raise RuntimeError(str(error)) from None
        keeping = Keeping(staleness=staleness, outlive=outlive)
        self._pepper = pepper(section, url, environ)
        self._reach = Reach(metrics)
        self.identities = Identities(self._reach.noted(Keys(self.database).find), self._pepper, clock, keeping)
        self.preferences = OwnPreferences(PreferenceTable(self.database), clock, keeping, self._tell)
        try:
            self.news = news(state_url(settings, environ), metrics)
        except ValueError as error:
            raise RuntimeError(f"state.url: {error}") from None
        self.secrets = KnownSecrets(Credentials(self.database))
        self._watch = CredentialWatch(staleness)
        self._unread = False
        self.is_open = False
        self._hears = False
        self._arriving: asyncio.Task[None] | None = None

    def lend(self, services: Services) -> Services:
        """`services` with what is kept here."""
        return replace(services, identities=self.identities, preferences=self.preferences)

    async def start(self) -> None:
        """`open`; where the database is away and not required, go on trying, and return: until then no key can be checked.

        Raises RuntimeError for what waiting does not mend.
        """
        try:
            await self.open()
        except StorageAwayError as error:
            if self._asked[0].required:
                raise
            self._reach.lost(str(error))
            self._arriving = asyncio.create_task(self._arrive())

    async def open(self) -> None:
        """Connect, and bring the tables up to date; once. Raises RuntimeError: StorageAwayError for what may be there later."""
        if not self._hears:
            self._hears = True
            await self.news.start(self._hear)
        if self.is_open:
            return
        try:
            await self.database.open()
        except GatewayError as error:
            text = f"storage: {error.message} {error.detail or ''}".rstrip()
            raise (RuntimeError(text) if is_lasting(error) else StorageAwayError(text)) from error
        except (ValueError, UnknownSchemaError) as error:
            raise RuntimeError(f"storage: {error}") from error
        self.is_open = True

    async def _arrive(self) -> None:
        """Wait for the database."""
        for wait in waits(*_AGAIN):
            await asyncio.sleep(wait)
            try:
                await self.open()
            except RuntimeError as error:
                self._reach.lost(str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, the next try may do; its text may hold what is in the database
                self._reach.lost(type(error).__name__)
            else:
                self._reach.found()
                self._hear("everything", "")
                return

    async def _tell(self, subject: str, name: str) -> bool:
        return await self.news.tell(subject, name)

    def _hear(self, subject: str, name: str) -> None:
        """Somebody has changed something: what is known of it is asked for again."""
        if subject == "key":
            self.identities.forget(key=name)
        elif subject == "user":
            self.identities.forget(user=name)
            self.preferences.forget(user=name)
        elif subject == "credential":
            self._watch.look()
        elif subject == "everything":
            self.identities.forget_everything()
            self.preferences.forget_everything()
            self._watch.look()

    def records(self) -> Records:
        """What the administration works with."""
        database = self.database
        preferences = PreferenceTable(database)
        return Records(Users(database), Keys(database), preferences, Audit(database), self._pepper, self.news.tell, NewKey, Limits)

    def versions(self) -> Versions:
        """The configuration's versions."""
        return Versions(self.database)

    # -- credentials --

    def credentials(self, settings: Settings) -> CredentialStore:
        """What administers the credential store, with the key that `settings` name."""
        return CredentialStore(Credentials(self.database), self._key(settings), self._pepper, self._tell)

    async def read_credentials(self, settings: Settings) -> None:
        """Have the secrets in hand that `settings` take from the store. While the database cannot be asked, those that were known go on."""
        try:
            await self.secrets.read(stored_credentials(settings), self._key(settings))
            self._unread = False
        except CapacityError as error:
            if not self._unread:
                events.warning("credentials_unread", reason=error.detail or error.message)
            self._unread = True

    def watch_credentials(self, settings: Callable[[], Settings], renew: Callable[[], Awaitable[None]]) -> None:
        """Read those of `settings` and call `renew`, again and again: at once if somebody tells of a change, else every `staleness`."""

        async def look() -> None:
            if stored_credentials(settings()):
                await self.read_credentials(settings())
                await renew()

        self._watch.start(look)

    def _key(self, settings: Settings) -> Callable[[], KeyEncryptionKey]:
        return partial(key_of, settings.credentials.key, self._environ)

    async def close(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            await asyncio.gather(self._arriving, return_exceptions=True)
        await self._watch.stop()
        await self.news.stop()
        await self.identities.close()
        await self.preferences.close()
        await self.database.close()

    def note(self, settings: Settings) -> None:
        """Say it where `settings` ask for what only a restart can change."""
        asked = _asked(settings)
        names = ("storage", "policies.authenticate.staleness and outlive")
        kept = [name for name, old, new in zip(names, self._asked, asked, strict=True) if old != new]
        if kept:
            events.warning("configuration_needs_restart", kept=kept)


class CredentialWatch:
    """Looks every so many seconds, and when it is told to. What goes wrong is logged, and ends nothing."""

    def __init__(self, every: float) -> None:
        self._every = max(every, _SOONEST)
        self._told = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def look(self) -> None:
        self._told.set()

    def start(self, look: Callable[[], Awaitable[None]]) -> None:
        """Once; a second call changes nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(look))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), self._every)
            self._told.clear()
            try:
                await look()
            except Exception as error:  # noqa: BLE001 - a provider's own code builds itself: whatever it raises, the old one stays
                events.error("credentials_not_renewed", reason=f"{type(error).__name__}: {error}"[:500])


class OwnPreferences(KeptPreferences):
    """Preferences that are kept, and that their users may change."""

    def __init__(self, table: PreferenceTable, clock: Clock, keeping: Keeping, tell: Callable[[str, str], Awaitable[bool]]) -> None:
        super().__init__(table.account, clock, keeping)
        self._table = table
        self._tell = tell

    async def read(self, user: str) -> Preferences:
        return await self._table.find(user)

    async def put(self, user: str, preferences: Preferences) -> None:
        await self._table.put(f"user:{user}", user, preferences)
        await self._tell("user", user)

    async def delete(self, user: str) -> None:
        await self._table.delete(f"user:{user}", user)
        await self._tell("user", user)


def state_url(settings: Settings, environ: Mapping[str, str]) -> str:
    """Where instances meet, with whatever secret belongs to it. Raises RuntimeError."""
    url = settings.state.url
    if not url.startswith(("env:", "file:", "keyring:")):
        return url
    try:
        return resolve(url, environ)
    except SecretError as error:
        raise RuntimeError(f"state.url: {error}") from None


def _asked(settings: Settings) -> tuple[StorageSettings, tuple[float, float]]:
    section = settings.policies.get("authenticate")
    terms = section if isinstance(section, AuthenticateSettings) else AuthenticateSettings()
    return settings.storage or StorageSettings(), (terms.staleness, terms.outlive)


def database_url(section: StorageSettings, environ: Mapping[str, str]) -> str:
    """Where the database is, with whatever secret belongs to it. Raises RuntimeError."""
    if section.url is None:
        return f"sqlite:///{default_path(environ)}"
    if not section.url.startswith(("env:", "file:", "keyring:")):
        return section.url
    try:
        return resolve(section.url, environ)
    except SecretError as error:
        raise RuntimeError(f"storage.url: {error}") from None


def pepper(section: StorageSettings, url: str, environ: Mapping[str, str]) -> bytes:
    """What keys at the database `url` are hashed with; see `proxy.core.keys.digest`. Raises RuntimeError."""
    if section.pepper is not None:
        try:
            found = resolve(section.pepper, environ)
        except SecretError as error:
            raise RuntimeError(f"storage.pepper: {error}") from None
        if len(found) < _SHORTEST:
            raise RuntimeError(f"storage.pepper: has fewer than {_SHORTEST} characters; openssl rand -hex 32 makes one")
        return found.encode()
    if not url.startswith("sqlite:///"):
        raise RuntimeError("storage.pepper is not set: every gateway at one database needs the same; openssl rand -hex 32 makes one")
    file = Path(url.removeprefix("sqlite:///").partition("?")[0])
    return kept_pepper(file.with_name("comporta.pepper"))


def kept_pepper(path: Path) -> bytes:
    """The pepper in a file, which is made (0600) where there is none. Raises RuntimeError, also where others can read it."""
    try:
        if not path.exists():
            _make(path)
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise RuntimeError(f"{path} is open to other users of this machine; chmod 600 {path}")
            found = file.read(_MOST).strip()
    except OSError as error:
        raise RuntimeError(f"{path}: {error.strerror}; storage.url chooses another place") from None
    if len(found) < _SHORTEST:
        raise RuntimeError(f"{path} has fewer than {_SHORTEST} characters: put back what was there, or remove it and every key with it")
    return found


def _make(path: Path) -> None:
    """Whole or not at all, and whoever is first: others that start at the same time find that one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(_MADE) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(made, path)
        except FileExistsError:
            return
        events.warning("pepper_made", file=str(path), hint="keep a copy: without it every key is void")
    finally:
        made.unlink(missing_ok=True)
