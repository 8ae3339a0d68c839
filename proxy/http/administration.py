"""Users, their keys and their preferences, and who changed what: the administration's endpoints over `proxy.storage`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxy.core import keys as tokens
from proxy.core.errors import ClientError
from proxy.core.names import nearest
from proxy.core.permissions import FURTHER_GRANTS, PLAIN
from proxy.core.resolved import Preferences
from proxy.core.wishes import SETTABLE
from proxy.http import shapes
from proxy.http.api import Asked, Endpoint
from proxy.http.routes import OPERATIONS

if TYPE_CHECKING:
    from proxy.storage.audit import Audit
    from proxy.storage.keys import Keys, NewKey, VirtualKey
    from proxy.storage.limits import Limits
    from proxy.storage.preferences import PreferenceTable
    from proxy.storage.users import Users

_PAGE = (("after", "the last id of the page before"), ("limit", "how many at most, 1 to 1000"))

#: What limits may name. An operation either is for all whose `operations` have it, or needs a grant.
_KNOWN = {
    "operations": sorted(PLAIN),
    "grants": sorted({*OPERATIONS, *FURTHER_GRANTS} - PLAIN),
    "may_set": SETTABLE,
}

PAGE_BACK = (("before", "those with a smaller number"), ("limit", "how many at most, 1 to 1000"))


@dataclass(frozen=True, slots=True)
class Records:
    """What lasts, and how the others are told of a change. `new_key` and `limits` make what `keys` takes."""

    users: Users
    keys: Keys
    preferences: PreferenceTable
    audit: Audit
    pepper: bytes
    tell: Callable[[str, str], Awaitable[bool]]
    new_key: type[NewKey]
    limits: type[Limits]


class Administration:
    """`opened` opens the storage when it is first needed. Raises what it raises: CapacityError where it cannot be reached."""

    def __init__(self, opened: Callable[[], Awaitable[Records]]) -> None:
        self._opened = opened

    def endpoints(self) -> list[Endpoint]:
        of_user, of_key, of_preferences = "/admin/users/{id}", "/admin/keys/{id}", "/admin/users/{id}/llm-config"
        by_user = (("user", "of this user only"), *_PAGE)
        return [
            Endpoint("GET", "/admin/users", "Users, by id.", self.list_users, shapes.UserList, query=_PAGE),
            Endpoint("POST", "/admin/users", "Make a user.", self.create_user, shapes.UserShown, shapes.UserNew, 201),
            Endpoint("GET", of_user, "One user.", self.show_user, shapes.UserShown),
            Endpoint("PATCH", of_user, "Change a user.", self.update_user, shapes.UserShown, shapes.UserChange),
            Endpoint("DELETE", of_user, "Delete a user, with all keys and preferences.", self.delete_user),
            Endpoint("GET", of_preferences, "What a user has set.", self.show_preferences, shapes.PreferencesShape),
            Endpoint("PUT", of_preferences, "Set it for the user.", self.put_preferences, shapes.PreferencesShape, shapes.PreferencesShape),
            Endpoint("DELETE", of_preferences, "Have the user inherit everything.", self.delete_preferences),
            Endpoint("GET", "/admin/keys", "Keys, by id.", self.list_keys, shapes.KeyList, query=by_user),
            Endpoint("POST", "/admin/keys", "Make a key; it is shown this once.", self.create_key, shapes.KeyMade, shapes.KeyNew, 201),
            Endpoint("GET", of_key, "One key.", self.show_key, shapes.KeyShown),
            Endpoint("PATCH", of_key, "Change a key.", self.update_key, shapes.KeyShown, shapes.KeyChange),
            Endpoint("POST", of_key + "/revoke", "Let nobody in by it any more.", self.revoke_key, shapes.KeyShown),
            Endpoint(
                "POST",
                of_key + "/rotate",
                "Make its successor; the old one goes on for a while.",
                self.rotate_key,
                shapes.KeyMade,
                shapes.KeyRotation,
                201,
            ),
            Endpoint("GET", "/admin/audit", "Who changed what, the newest first.", self.list_audit, shapes.AuditList, query=PAGE_BACK),
            Endpoint("GET", "/admin/audit/verify", "Whether the log is as it was written.", self.verify_audit, shapes.AuditVerdict),
        ]

    # -- users --

    async def list_users(self, asked: Asked) -> shapes.UserList:
        found = await (await self._opened()).users.list(**_page(asked))
        return shapes.UserList(data=[shapes.UserShown.model_validate(user) for user in found])

    async def create_user(self, asked: Asked) -> shapes.UserShown:
        new: shapes.UserNew = asked.body
        user = await (await self._opened()).users.create(asked.actor, new.id, name=new.name, tier=new.tier)
        return shapes.UserShown.model_validate(user)

    async def show_user(self, asked: Asked) -> shapes.UserShown:
        user = await (await self._opened()).users.get(asked.path["id"])
        if user is None:
            raise _missing("user", asked.path["id"])
        return shapes.UserShown.model_validate(user)

    async def update_user(self, asked: Asked) -> shapes.UserShown:
        if asked.if_match is not None:
            asked.require(await self.show_user(asked))
        records = await self._opened()
        user = await records.users.update(asked.actor, asked.path["id"], asked.body.model_dump(exclude_unset=True))
        await records.tell("user", user.id)
        return shapes.UserShown.model_validate(user)

    async def delete_user(self, asked: Asked) -> None:
        records = await self._opened()
        await records.users.delete(asked.actor, asked.path["id"])
        await records.tell("user", asked.path["id"])

    # -- preferences --

    async def show_preferences(self, asked: Asked) -> shapes.PreferencesShape:
        return shown_preferences(await (await self._opened()).preferences.find(asked.path["id"]))

    async def put_preferences(self, asked: Asked) -> shapes.PreferencesShape:
        if asked.if_match is not None:
            asked.require(await self.show_preferences(asked))
        records = await self._opened()
        stored = await records.preferences.put(asked.actor, asked.path["id"], stored_preferences(asked.body))
        await records.tell("user", asked.path["id"])
        return shown_preferences(stored.preferences)

    async def delete_preferences(self, asked: Asked) -> None:
        records = await self._opened()
        await records.preferences.delete(asked.actor, asked.path["id"])
        await records.tell("user", asked.path["id"])

    # -- keys --

    async def list_keys(self, asked: Asked) -> shapes.KeyList:
        found = await (await self._opened()).keys.list(user=asked.query.get("user"), **_page(asked))
        return shapes.KeyList(data=[_key(key) for key in found])

    async def create_key(self, asked: Asked) -> shapes.KeyMade:
        wanted: shapes.KeyNew = asked.body
        records = await self._opened()
        limits = records.limits(**_named(wanted.limits, shapes.LimitsShape.model_fields))
        new, token = _made(records, wanted.user_id, wanted.name, limits, wanted.expires_at)
        key = await records.keys.create(asked.actor, new)
        return shapes.KeyMade(**_key(key).model_dump(), key=token)

    async def show_key(self, asked: Asked) -> shapes.KeyShown:
        return _key(await self._existing(asked))

    async def update_key(self, asked: Asked) -> shapes.KeyShown:
        if asked.if_match is not None:
            asked.require(await self.show_key(asked))
        records = await self._opened()
        wanted: shapes.KeyChange = asked.body
        fields: dict[str, Any] = {name: getattr(wanted, name) for name in wanted.model_fields_set}
        if "limits" in fields:
            fields["limits"] = _named(wanted.limits, wanted.limits.model_fields_set)
        key = await records.keys.update(asked.actor, asked.path["id"], fields)
        await records.tell("key", key.id)
        return _key(key)

    async def revoke_key(self, asked: Asked) -> shapes.KeyShown:
        records = await self._opened()
        key = await records.keys.revoke(asked.actor, asked.path["id"])
        await records.tell("key", key.id)
        return _key(key)

    async def rotate_key(self, asked: Asked) -> shapes.KeyMade:
        records = await self._opened()
        old = await self._existing(asked)
        wanted: shapes.KeyRotation = asked.body
        end = wanted.expires_at if "expires_at" in wanted.model_fields_set else old.expires_at
        new, token = _made(records, old.user_id, old.name, old.limits, end)
        key = await records.keys.rotate(asked.actor, old.id, new, overlap=wanted.overlap_seconds)
        await records.tell("key", old.id)
        return shapes.KeyMade(**_key(key).model_dump(), key=token)

    async def _existing(self, asked: Asked) -> VirtualKey:
        key = await (await self._opened()).keys.get(asked.path["id"])
        if key is None:
            raise _missing("key", asked.path["id"])
        return key

    # -- audit --

    async def list_audit(self, asked: Asked) -> shapes.AuditList:
        before = asked.query.get("before")
        rows = await (await self._opened()).audit.list(before=None if before is None else whole("before", before), limit=limit_of(asked))
        return shapes.AuditList(
            data=[shapes.AuditShown(**{name: getattr(row, name) for name in shapes.AuditShown.model_fields}) for row in rows]
        )

    async def verify_audit(self, _asked: Asked) -> shapes.AuditVerdict:
        broken = await (await self._opened()).audit.verify()
        return shapes.AuditVerdict(whole=broken is None, first_broken=broken)


def _made(records: Records, user: str, name: str | None, limits: Limits, expires_at: Any) -> tuple[NewKey, str]:
    public, token = tokens.generate()
    digest = tokens.digest(token, records.pepper)
    return records.new_key(public, user, digest, token[-4:], name, limits, expires_at), token


def _named(wanted: shapes.LimitsShape, names: Iterable[str]) -> dict[str, Any]:
    """Those limits, as `proxy.storage.limits` has them. Raises ClientError (400) for what no request asks for."""
    made: dict[str, Any] = {}
    for name in names:
        value = getattr(wanted, name)
        for entry in value or () if name in _KNOWN else ():
            _require_known(name, entry)
        if isinstance(value, list):
            made[name] = tuple(value) if name in ("models", "addresses") else frozenset(value)
        else:
            made[name] = value
    return made


def _require_known(name: str, entry: str) -> None:
    if entry in _KNOWN[name]:
        return
    elsewhere = next((other for other in ("operations", "grants") if other != name and entry in _KNOWN[other]), None)
    said = nearest(entry[:100], _KNOWN[name]) if elsewhere is None or name == "may_set" else f"`{elsewhere}` has it"
    raise ClientError(f"limits.{name}: there is no {entry[:100]!r} here; {said}", param=f"limits.{name}", code="invalid_value")


def _key(key: VirtualKey) -> shapes.KeyShown:
    named = {name: getattr(key, name) for name in shapes.KeyShown.model_fields if name != "limits"}
    limits = {name: getattr(key.limits, name) for name in shapes.LimitsShape.model_fields}
    listed = {name: sorted(value) if isinstance(value, (tuple, frozenset)) else value for name, value in limits.items()}
    return shapes.KeyShown(**named, limits=shapes.LimitsShape.model_validate(listed))


def stored_preferences(shape: shapes.PreferencesShape) -> Preferences:
    """As `proxy.core.resolved` has them."""
    return Preferences(
        shape.preferred_model,
        shape.fallback_model,
        shape.timeout_seconds,
        shape.max_retries,
        {
            name: Preferences(entry.model, entry.fallback_model, entry.timeout_seconds, entry.max_retries)
            for name, entry in shape.task_type_configs.items()
        },
    )


def shown_preferences(preferences: Preferences) -> shapes.PreferencesShape:
    """As the API has them."""
    return shapes.PreferencesShape(
        preferred_model=preferences.model,
        fallback_model=preferences.fallback_model,
        timeout_seconds=preferences.timeout,
        max_retries=preferences.max_retries,
        task_type_configs={
            name: shapes.TaskTypePreferences(
                model=entry.model, fallback_model=entry.fallback_model, timeout_seconds=entry.timeout, max_retries=entry.max_retries
            )
            for name, entry in preferences.task_types.items()
        },
    )


def _page(asked: Asked) -> dict[str, Any]:
    return {"after": asked.query.get("after", ""), "limit": limit_of(asked)}


def limit_of(asked: Asked) -> int:
    limit = whole("limit", asked.query.get("limit", "100"))
    if not 1 <= limit <= 1000:
        raise ClientError("limit: from 1 to 1000.", param="limit", code="invalid_value")
    return limit


def whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ClientError(f"{name}: a whole number.", param=name, code="invalid_value")
    return int(text)


def _missing(what: str, id: str) -> ClientError:
    return ClientError(f"There is no {what} {id[:200]!r}.", status=404, code="not_found")
