"""What administrators may ask of a process that serves, put together. It is loaded for the first of them who asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from proxy import trial
from proxy.configuration import ConfigurationFile, Who, previewed, who_is
from proxy.core.clock import SystemClock
from proxy.core.errors import CapacityError
from proxy.http.administration import Administration, Records
from proxy.http.api import Desk
from proxy.http.configuration import Configuration, Previewed
from proxy.http.credentials import Credentials
from proxy.http.providers import Providers, Standings, told
from proxy.http.requests import Knowing, Requests
from proxy.reload import Reload
from proxy.settings import Loaded, Settings
from proxy.settings.access import stored_credentials

if TYPE_CHECKING:
    from proxy.keeping import Keeper
    from proxy.storage.credential_store import CredentialStore
    from proxy.storage.versions import Versions


class Serving(Protocol):
    """Who serves, as those who administer it see it."""

    @property
    def settings(self) -> Settings: ...
    @property
    def recollection(self) -> Knowing: ...


class Served(Protocol):
    """Who serves, where its storage is, and how its providers stand."""

    @property
    def serving(self) -> Serving: ...
    @property
    def keeper(self) -> Callable[[], Awaitable[Keeper]]: ...
    @property
    def standings(self) -> Standings: ...


class Accounts:
    """The providers of the configuration that is in force, as those who administer credentials ask for them."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings

    def using(self) -> dict[str, list[str]]:
        """Names of providers by the credential that they use."""
        return stored_credentials(self._settings())

    def can_be_tried(self, provider: str) -> bool:
        section = self._settings().providers.get(provider)
        return section is not None and trial.is_triable(section)

    async def tried(self, provider: str, secret: str) -> trial.Verdict:
        """Raises KeyError for a provider that is not there."""
        return await trial.tried(self._settings().providers[provider], secret)


def desk(served: Served, file: Path | None, load: Callable[[Path | None], Loaded], reload: Reload) -> Desk:
    """What administrators may ask. The storage is opened by the first of them that needs it."""

    async def opened() -> Keeper:
        try:
            return await served.keeper()
        except RuntimeError as error:
            raise CapacityError(str(error), code="storage_unavailable") from error

    async def records() -> Records:
        return (await opened()).records()

    async def versions() -> Versions:
        return (await opened()).versions()

    async def credentials() -> CredentialStore:
        return (await opened()).credentials(served.serving.settings)

    async def preview(user: str | None, task_type: str | None, model: str | None) -> Previewed:
        who = Who() if user is None else await who_is(await records(), user)
        return previewed(reload.loaded.settings, who, task_type, model)

    async def verbose() -> dict[str, Any]:
        return {"configuration": reload.described, **await told(served.standings)}

    accounts = Accounts(lambda: served.serving.settings)
    configuring = ConfigurationFile(file, load=load, reload=reload, in_force=lambda: reload.loaded, history=versions, clock=SystemClock())
    endpoints = [
        *Administration(records).endpoints(),
        *Credentials(credentials, accounts).endpoints(),
        *Configuration(configuring, versions, preview).endpoints(),
        *Providers(served.standings).endpoints(),
        *Requests(served.serving.recollection).endpoints(),
    ]
    return Desk(endpoints, verbose)
