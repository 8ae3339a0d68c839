"""`GET`, `PUT` and `DELETE /v1/users/llm-config`: what the user whose key is shown has set for itself."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from proxy.core.call import ANONYMOUS, Call
from proxy.core.errors import CapacityError, ClientError
from proxy.core.protocols import Clock, OwnPreferences
from proxy.core.reply import Reply
from proxy.http import stranger
from proxy.http.administration import shown_preferences, stored_preferences
from proxy.http.api import tag
from proxy.http.misfit import misfit
from proxy.http.shapes import PreferencesShape

#: Writes of one user in a minute; and of how many users they are counted.
_MOST = 20
_WINDOW = 60.0
_USERS = 10_000


class UserConfig:
    """A handler. Raises ClientError (400, 403, 404, 412) and CapacityError (429, 503)."""

    def __init__(self, preferences: OwnPreferences, clock: Clock) -> None:
        self._preferences = preferences
        self._clock = clock
        self._writes: OrderedDict[str, list[float]] = OrderedDict()
        self._methods: dict[str, Callable[[Call, OwnPreferences], Awaitable[Reply]]] = {
            "GET": self._show,
            "PUT": self._put,
            "DELETE": self._delete,
        }

    async def __call__(self, call: Call) -> Reply:
        if call.principal is ANONYMOUS:
            raise stranger.refusal()
        return await self._methods[call.method](call, self._preferences)

    async def _show(self, call: Call, preferences: OwnPreferences) -> Reply:
        return _shown(shown_preferences(await preferences.read(call.principal.id)))

    async def _put(self, call: Call, preferences: OwnPreferences) -> Reply:
        try:
            wanted = PreferencesShape.model_validate(call.body)
        except ValidationError as error:
            raise misfit(error, PreferencesShape) from None
        await self._spare(call, preferences)
        await preferences.put(call.principal.id, stored_preferences(wanted))
        return _shown(wanted)

    async def _delete(self, call: Call, preferences: OwnPreferences) -> Reply:
        await self._spare(call, preferences)
        await preferences.delete(call.principal.id)
        return Reply(204)

    async def _spare(self, call: Call, preferences: OwnPreferences) -> None:
        user, now = call.principal.id, self._clock.monotonic()
        writes = [moment for moment in self._writes.pop(user, ()) if now - moment < _WINDOW]
        self._writes[user] = writes
        while len(self._writes) > _USERS:
            self._writes.popitem(last=False)
        if len(writes) >= _MOST:
            wait = _WINDOW - (now - writes[0])
            raise CapacityError("Too many changes of your configuration.", status=429, code="rate_limit_exceeded", retry_after=wait)
        writes.append(now)
        wanted = call.headers.get("if-match")
        if wanted is not None and wanted not in ("*", tag(shown_preferences(await preferences.read(user)))):
            raise ClientError("It has changed since you read it; read it again.", status=412, code="precondition_failed")


def _shown(shape: PreferencesShape) -> Reply:
    return Reply(200, {"content-type": "application/json", "etag": tag(shape)}, shape.model_dump_json().encode())
