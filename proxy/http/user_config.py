"""`GET`, `PUT` and `DELETE /v1/users/llm-config`: what the user whose key is shown has set for itself."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from pydantic import BaseModel, ValidationError

from proxy.core.call import ANONYMOUS, Call
from proxy.core.errors import CapacityError, ClientError
from proxy.core.protocols import Clock, OwnPreferences
from proxy.core.reply import Reply
from proxy.core.wishes import require_settable
from proxy.http import stranger
from proxy.http.administration import shown_preferences, stored_preferences
from proxy.http.api import tag
from proxy.http.misfit import misfit
from proxy.http.shapes import PreferencesShape

#: Writes of one user in a minute; and of how many users they are counted.
_MOST = 20
_WINDOW = 60.0
_USERS = 10_000

#: What a key's `may_set` calls each member, of all task types and of one.
_FIELDS = {
    "preferred_model": "model",
    "model": "model",
    "fallback_model": "fallback_model",
    "timeout_seconds": "timeout",
    "max_retries": "max_retries",
}


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
        self._spare(call)
        await _require_change(call, preferences, wanted)
        await preferences.put(call.principal.id, stored_preferences(wanted))
        return _shown(wanted)

    async def _delete(self, call: Call, preferences: OwnPreferences) -> Reply:
        self._spare(call)
        await _require_change(call, preferences, PreferencesShape())
        await preferences.delete(call.principal.id)
        return Reply(204)

    def _spare(self, call: Call) -> None:
        user, now = call.principal.id, self._clock.monotonic()
        writes = [moment for moment in self._writes.pop(user, ()) if now - moment < _WINDOW]
        self._writes[user] = writes
        while len(self._writes) > _USERS:
            self._writes.popitem(last=False)
        if len(writes) >= _MOST:
            wait = _WINDOW - (now - writes[0])
            raise CapacityError("Too many changes of your configuration.", status=429, code="rate_limit_exceeded", retry_after=wait)
        writes.append(now)


async def _require_change(call: Call, preferences: OwnPreferences, wanted: PreferencesShape) -> None:
    """Raises ClientError: 412 for a version that the client has not read, 403 where something changes that its key may not set."""
    version, may_set = call.headers.get("if-match"), call.principal.may_set
    if version is None and may_set is None:
        return
    current = shown_preferences(await preferences.read(call.principal.id))
    if version not in (None, "*", tag(current)):
        raise ClientError("It has changed since you read it; read it again.", status=412, code="precondition_failed")
    _require_settable(current, wanted, "", may_set)
    was, will_be = current.task_type_configs, wanted.task_type_configs
    for name in sorted(was.keys() | will_be.keys()):
        _require_settable(was.get(name), will_be.get(name), f"task_type_configs.{name}.", may_set)


def _require_settable(was: BaseModel | None, will_be: BaseModel | None, at: str, may_set: frozenset[str] | None) -> None:
    for member, name in _FIELDS.items():
        if getattr(was, member, None) != getattr(will_be, member, None):
            require_settable(name, at + member, may_set)


def _shown(shape: PreferencesShape) -> Reply:
    return Reply(200, {"content-type": "application/json", "etag": tag(shape)}, shape.model_dump_json().encode())
