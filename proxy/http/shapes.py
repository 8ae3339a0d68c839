"""What the administration's JSON holds, as pydantic models: the same words as `proxy.storage` keeps."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from proxy.fields import NUMERAL

Name = Annotated[str, Field(min_length=1, max_length=200)]
ModelName = Annotated[str, Field(min_length=1, max_length=100)]
Seconds = Annotated[float, Field(gt=0, le=300), NUMERAL]
Retries = Annotated[int, Field(ge=0, le=10), NUMERAL]


def _instant(value: Any, read: ValidatorFunctionWrapHandler) -> datetime:
    found: datetime | None = None if isinstance(value, bool) else read(value)
    if found is None or found.tzinfo is None:
        raise PydanticCustomError("instant", "Input should be a time with its offset from UTC, such as 2027-01-31T00:00:00Z")
    return found


#: A time is the same wherever the gateway runs: one without an offset would be the machine's own.
Instant = Annotated[datetime, WrapValidator(_instant)]


class Shape(BaseModel):
    """Read from the repositories' dataclasses; unknown members are refused, so that nobody sets what cannot be set."""

    # Built when it is first used: a start waits for none of them.
    model_config = ConfigDict(defer_build=True, extra="forbid", from_attributes=True)


class UserNew(Shape):
    id: Name
    name: Name | None = None
    tier: Annotated[str, Field(max_length=100)] | None = None


class UserChange(Shape):
    """Members that are left out stay as they are."""

    name: Name | None = None
    tier: Annotated[str, Field(max_length=100)] | None = None
    active: bool = True


class UserShown(UserNew):
    active: bool
    created_at: datetime
    updated_at: datetime


class UserList(Shape):
    data: list[UserShown]


class LimitsShape(Shape):
    """What a key may. Null is no limit; `grants` are operations on objects of the shared upstream account."""

    models: list[Name] | None = None
    providers: list[Name] | None = None
    operations: list[Name] | None = None
    task_types: list[Name] | None = None
    addresses: list[Name] | None = None
    grants: list[Name] = []
    may_set: list[Name] | None = None
    names_users: bool = False


class KeyNew(Shape):
    user_id: Name
    name: Name | None = None
    limits: LimitsShape = LimitsShape()
    expires_at: Instant | None = None


class KeyChange(Shape):
    """Members that are left out stay as they are, those of `limits` too; null removes a limit."""

    name: Name | None = None
    limits: LimitsShape = LimitsShape()
    expires_at: Instant | None = None


class KeyRotation(Shape):
    overlap_seconds: Annotated[float, Field(ge=0, le=30 * 86_400), NUMERAL] = Field(86_400.0, description="how long the old key goes on")
    expires_at: Instant | None = Field(None, description="the new key's end; left out, it is the old one's; null is none")


class KeyShown(Shape):
    """A key by its public id and its last characters; the key itself is shown once, by what makes it."""

    id: str
    user_id: str
    last4: str
    name: str | None
    limits: LimitsShape
    expires_at: datetime | None
    revoked_at: datetime | None
    replaced_by: str | None
    created_at: datetime


class KeyMade(KeyShown):
    key: str = Field(description="shown this once")


class KeyList(Shape):
    data: list[KeyShown]


class TaskTypePreferences(Shape):
    model: ModelName | None = None
    fallback_model: ModelName | None = None
    timeout_seconds: Seconds | None = None
    max_retries: Retries | None = None


class PreferencesShape(Shape):
    """What a user has set. Null inherits."""

    preferred_model: ModelName | None = None
    fallback_model: ModelName | None = None
    timeout_seconds: Seconds | None = None
    max_retries: Retries | None = None
    task_type_configs: dict[ModelName, TaskTypePreferences] = Field({}, max_length=1000)


class AuditShown(Shape):
    seq: int
    at: datetime
    actor: str
    action: str
    object: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    hash: str


class AuditList(Shape):
    data: list[AuditShown]


class AuditVerdict(Shape):
    whole: bool
    first_broken: int | None = Field(description="the row from which on the log cannot be believed")
