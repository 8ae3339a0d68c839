"""Providers' keys over HTTP: stored, replaced, tried, removed; and never shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from proxy.core.errors import ClientError
from proxy.http.api import Asked, Endpoint

if TYPE_CHECKING:
    from proxy.storage.credential_store import CredentialStore
    from proxy.storage.credentials import StoredCredential


class _Shape(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", from_attributes=True)


class CredentialShown(_Shape):
    """A key by its name and what tells it from others; the key itself is in no answer."""

    name: str
    version: int = Field(description="how often it was replaced, from 1")
    last4: str | None = Field(description="its last characters; null for a short one")
    fingerprint: str | None = Field(description="a keyed hash: the same key in the same database has the same")
    kek_id: str = Field(description="which key-encryption key it is under")
    created_at: datetime
    rotated_at: datetime | None
    used_by: list[str] = Field(description="providers of this gateway's configuration")


class CredentialList(_Shape):
    data: list[CredentialShown]


class CredentialSecret(_Shape):
    secret: SecretStr = Field(min_length=1, max_length=65_536, description="the provider's key")


class CredentialTrial(_Shape):
    provider: str | None = Field(None, max_length=200, description="the provider to try it on; null: those that use it")


class VerdictShown(_Shape):
    provider: str
    outcome: str = Field(description="ok, wrong_key, no_dns, no_network, tls, wrong_url, limited, no_answer, failed")
    said: str
    models: list[str] | None = Field(description="what the provider lists; null unless it is ok")


class VerdictList(_Shape):
    data: list[VerdictShown]


class Providers(Protocol):
    """What the configuration in force says of those who use credentials."""

    def using(self) -> Mapping[str, Sequence[str]]:
        """Names of providers by the credential that they use."""

    def can_be_tried(self, provider: str) -> bool: ...

    async def tried(self, provider: str, secret: str) -> Any:
        """`outcome`, `said` and `models` of a trial; see `proxy.trial`."""


class Credentials:
    """The endpoints. `opened` opens the storage when it is first needed. Raises what it and the store raise."""

    def __init__(self, opened: Callable[[], Awaitable[CredentialStore]], providers: Providers) -> None:
        self._opened = opened
        self._providers = providers

    def endpoints(self) -> list[Endpoint]:
        where, one = "/admin/credentials", "/admin/credentials/{name}"
        force = (("force", "true: also one that a provider uses"),)
        return [
            Endpoint("GET", where, "Providers' keys in the store, without the keys.", self.list, CredentialList),
            Endpoint("GET", one, "One of them.", self.show, CredentialShown),
            Endpoint("PUT", one, "Store a key, or put another in its place.", self.put, CredentialShown, CredentialSecret),
            Endpoint("DELETE", one, "Forget a key.", self.remove, query=force),
            Endpoint("POST", one + "/test", "Try it on the providers that use it.", self.test, VerdictList, CredentialTrial),
        ]

    async def list(self, _asked: Asked) -> CredentialList:
        using = self._providers.using()
        return CredentialList(data=[_shown(one, using) for one in await (await self._opened()).list()])

    async def show(self, asked: Asked) -> CredentialShown:
        return _shown(await (await self._opened()).get(asked.path["name"]), self._providers.using())

    async def put(self, asked: Asked) -> CredentialShown:
        store, name = await self._opened(), asked.path["name"]
        secret = asked.body.secret.get_secret_value()
        before = next((one for one in await store.list() if one.name == name), None)
        using = self._providers.using()
        asked.require(None if before is None else _shown(before, using))
        if before is None:
            return _shown(await store.add(asked.actor, name, secret), using)
        return _shown(await store.rotate(asked.actor, name, secret, version=before.version), using)

    async def remove(self, asked: Asked) -> None:
        store, name = await self._opened(), asked.path["name"]
        force = asked.query.get("force", "false")
        if force not in ("true", "false"):
            raise ClientError("force: true or false.", param="force", code="invalid_value")
        using = self._providers.using()
        asked.require(_shown(await store.get(name), using))
        users = using.get(name)
        if users and force == "false":
            told = f"It is used by {', '.join(users)}. Change the configuration first, or say force=true."
            raise ClientError(told, status=409, code="in_use")
        await store.remove(asked.actor, name)

    async def test(self, asked: Asked) -> VerdictList:
        store, name, wanted = await self._opened(), asked.path["name"], asked.body.provider
        await store.get(name)
        at = [wanted] if wanted is not None else [one for one in self._providers.using().get(name, ()) if self._providers.can_be_tried(one)]
        if not at or not self._providers.can_be_tried(at[0]):
            told = "No provider uses it: say which one to try." if wanted is None else "There is no such provider with an address."
            raise ClientError(told, param="provider", code="invalid_value")
        secret = await store.secret(name)
        return VerdictList(data=[_verdict(each, await self._providers.tried(each, secret)) for each in at])


def _verdict(provider: str, found: Any) -> VerdictShown:
    models = None if found.models is None else list(found.models)
    return VerdictShown(provider=provider, outcome=found.outcome, said=found.said, models=models)


def _shown(one: StoredCredential, using: Mapping[str, Sequence[str]]) -> CredentialShown:
    named = {name: getattr(one, name) for name in CredentialShown.model_fields if name != "used_by"}
    return CredentialShown(**{**named, "last4": one.last4 or None, "used_by": list(using.get(one.name, ()))})
