"""Who asks: a virtual key's owner, or, where the gateway is open, anybody. Nothing runs, and no body is read, for a stranger."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import Field

from proxy.core import keys
from proxy.core.call import ANONYMOUS, Call, Principal
from proxy.core.errors import CapacityError, ClientError
from proxy.core.permissions import may_ask, may_come_from
from proxy.core.protocols import Handler, Services
from proxy.core.reply import Reply
from proxy.fields import Duration, Section

#: On whose behalf a key asks that may name its users.
USER = "x-comporta-user"

#: Where a key may stand; the first as `Bearer KEY`. A query string is no place for one: it ends up in logs.
_AUTHORIZATION = "authorization"
_OTHERS = ("api-key", "x-api-key")

_LONGEST_USER = 256

#: What a head says that shows no key of ours and names no user.
_NOBODY = (None, None, None)

# The words of OpenAI's own answers, but for where to find a key. Source: answers of api.openai.com.
_MISSING = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth"
    " (i.e. Authorization: Bearer YOUR_KEY)."
)
_INCORRECT = "Incorrect API key provided. Ask the administrator of this gateway for one."


class AuthenticateSettings(Section):
    """Who may use the data plane."""

    open: bool | None = Field(
        None,
        description="whether clients without a key are served; absent: only where the data plane listens on loopback",
    )
    staleness: Duration = Field(
        10.0, description="how long a key's state is relied on before it is asked for again: a revoked key is refused after that", ge=0
    )
    outlive: Duration = Field(300.0, description="how long keys that are known stay good while the database does not answer", ge=0)


class Authenticate:
    """Sets `call.principal`, and `call.end_user` where the key may name it; refuses what the principal may not do.

    Raises ClientError: 400 for two different credentials, 401 `invalid_api_key`, 403 `permission_denied`. A setting `open` that is still
    None when the policy is built is closed.
    """

    Settings = AuthenticateSettings

    def __init__(self, settings: AuthenticateSettings, services: Services) -> None:
        self._open = settings.open is True
        self._identities = services.identities

    def __call__(self, call: Call, call_next: Handler) -> Awaitable[Reply]:
        # Without a coroutine of its own where nothing is waited for.
        shown = call.memo.get(self)
        if shown is None:
            shown = call.memo[self] = self._shown(call.headers)
        if shown is _NOBODY:
            return call_next(call)
        token, mark, user = shown
        principal = self._identities.recall(mark) if mark is not None and self._identities is not None else None
        if principal is not None:
            admit(principal, call, user)
        elif token is not None:
            return self._ask(token, user, call, call_next)
        elif user is not None:
            call.end_user = named_user(ANONYMOUS, user)
        return call_next(call)

    def _shown(self, headers: Mapping[str, str]) -> tuple[str | None, bytes | None, str | None]:
        """What a head says of who asks: a key that looks like one of ours, its mark if it may be one, and the user that is named.

        Raises ClientError (400, 401) where a head lets nobody in, whatever is known of keys.
        """
        identities, user = self._identities, headers.get(USER)
        token = credential(headers, strict=not self._open)
        if token is None or not token.startswith(keys.PREFIX):
            if not self._open:
                raise unauthorized(_INCORRECT if token else _MISSING)
            return _NOBODY if user is None else (None, None, user)
        mark = identities.mark(token) if identities is not None and len(token) == keys.LENGTH else None
        return token, mark, user

    async def _ask(self, token: str, user: str | None, call: Call, call_next: Handler) -> Reply:
        admit(await self._found(token), call, user)
        return await call_next(call)

    async def _found(self, token: str) -> Principal:
        """Raises ClientError (401); CapacityError (503) where nobody can be asked. What cannot be a key is asked of nobody."""
        if keys.parse(token) is None:
            raise unauthorized(_INCORRECT)
        if self._identities is None:
            if self._open:
                raise unauthorized(_INCORRECT)
            raise CapacityError("Keys cannot be checked at the moment.", code="keys_unavailable", retry_after=1.0)
        principal = await self._identities.find(token)
        if principal is None:
            raise unauthorized(_INCORRECT)
        return principal


def credential(headers: Mapping[str, str], *, strict: bool) -> str | None:
    """The one credential of a request; None where it shows none.

    Raises ClientError (400) for two that differ: somebody in front of us may have looked at the other one. Unless `strict`, only where one
    of them looks like a key of ours: an open gateway does not care what else clients carry.
    """
    shown = _all(headers, _AUTHORIZATION)
    if len(shown) == 1 and "api-key" not in headers and "x-api-key" not in headers:
        return bearer(shown[0])
    found = [bearer(value) for value in shown]
    for name in _OTHERS:
        found += _all(headers, name)
    if not found:
        return None
    first = found[0]
    if len(found) > 1 and any(other != first for other in found) and (strict or any(each.startswith(keys.PREFIX) for each in found)):
        raise ClientError("The request shows two different keys.", code="ambiguous_credentials")
    return first


def bearer(value: str) -> str:
    """The token in an `Authorization` header (RFC 6750, 2.1). Another scheme's credential is none that we know: it is left as it is."""
    return value[7:].strip() if value.startswith("Bearer ") or value[:7].lower() == "bearer " else value


def _all(headers: Mapping[str, str], name: str) -> list[str]:
    """Every value of a header, where `headers` can hold several."""
    getall: Callable[[str, Any], list[str]] | None = getattr(headers, "getall", None)
    if getall is not None:
        return getall(name, ())
    value = headers.get(name)
    return [] if value is None else [value]


def unauthorized(message: str) -> ClientError:
    """401, without a word of what was shown."""
    return ClientError(message, status=401, code="invalid_api_key")


def forbidden(message: str) -> ClientError:
    return ClientError(message, status=403, code="permission_denied")


def admit(principal: Principal, call: Call, user: str | None) -> None:
    """Set who asks, and on whose behalf. Raises ClientError (403) for what the key may not do, as far as that is known before the body."""
    call.principal = principal
    if principal.addresses is not None and not may_come_from(principal.addresses, call.peer):
        raise forbidden("This API key may not be used from this address.")
    if not may_ask(principal, call.operation, call.method, call.path):
        raise forbidden(f"This API key has no permission for {call.operation} requests of this kind.")
    if user is not None:
        call.end_user = named_user(principal, user)


def named_user(principal: Principal, user: str) -> str:
    """The user that a request names; without a key, where that is open to all, anyone may.

    Raises ClientError: 403 for a key that may not, 400 for what can be no name.
    """
    if not principal.names_users:
        raise forbidden(f"This API key may not say on whose behalf it asks ({USER}).")
    if not 0 < len(user) <= _LONGEST_USER or not user.isprintable():
        raise ClientError(f"{USER} is a name of 1 to {_LONGEST_USER} printable characters.", param=USER)
    return user
