"""The configuration over HTTP: read with the source of every value, tried, applied, and taken back to an earlier version."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from proxy.core.errors import ClientError
from proxy.core.wishes import MODEL_LENGTH, TASK_TYPE_LENGTH, invalid, is_name
from proxy.http.administration import PAGE_BACK, limit_of, whole
from proxy.http.api import Asked, Endpoint

_ASKED = (("user", "whose preferences count"), ("task_type", "what the request is for"), ("model", "what the request asks for"))


class _Shape(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", from_attributes=True)


class Value(_Shape):
    path: str
    value: Any
    source: str


class Trouble(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="ignore", from_attributes=True)

    line: int | None = None
    path: str
    message: str
    hint: str | None = None


class Current(_Shape):
    """What is in the file now, what is wrong with it, and what is in force. Secrets are references, so none is shown."""

    file: str | None
    digest: str | None = Field(description="send it back as `digest` of a change, and nobody else's change is overwritten")
    text: str | None = Field(description="null where there is no file, or none that can be read; of one with problems, without keys")
    problems: list[Trouble] = Field(description="why the file as it is now cannot be put into force; empty where it can")
    values: list[Value] = Field(description="in force: what all sources came to when they were last read and found good")


class Checked(_Shape):
    valid: bool
    problems: list[Trouble]
    warnings: list[Trouble]
    values: list[Value] = Field([], description="what the text comes to, with what the environment says")


class Chosen(_Shape):
    value: Any
    source: str = Field(description="the level: system, task_type, user or request")


class Previewed(_Shape):
    """What a chat completion would get."""

    user: str | None
    tier: str | None
    task_type: str | None
    known_task_type: bool
    source: str = Field(description="the most specific level that set anything")
    values: dict[str, Chosen]
    policies: list[str] = Field(description="that it passes, outermost first")


class Text(_Shape):
    text: str = Field(max_length=2**20, description="the whole file, as YAML")


class Change(Text):
    comment: str | None = Field(None, max_length=500)
    digest: str | None = Field(None, description="of the file that it was made from")


class VersionShown(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="ignore", from_attributes=True)

    id: int
    digest: str
    actor: str
    comment: str | None
    created_at: datetime
    text: str | None = None


class Applied(VersionShown):
    needs_restart: list[str] = Field(
        [], description="paths of what the file says and the process, which decided it at its start, does not do"
    )


class VersionList(_Shape):
    data: list[VersionShown]


#: What a chat completion of a user, of a task type, for a model would get. Raises ClientError (403, 404) and CapacityError.
Previewing: TypeAlias = Callable[[str | None, str | None, str | None], Awaitable[Previewed]]


class Configuring(Protocol):
    """Who does it; see `proxy.configuration`."""

    async def current(self) -> Current: ...
    async def check(self, text: str) -> Checked: ...
    async def apply(self, actor: str, text: str, comment: str | None, *, digest_before: str | None = None) -> Applied: ...
    async def roll_back(self, actor: str, id: int) -> Applied: ...


class Listing(Protocol):
    """Versions as they are kept."""

    async def get(self, id: int) -> Any: ...
    async def list(self, *, before: int | None = None, limit: int = 100) -> Sequence[Any]: ...


class Configuration:
    """The endpoints."""

    def __init__(self, configuring: Configuring, versions: Callable[[], Awaitable[Listing]], previewing: Previewing) -> None:
        self._configuring = configuring
        self._versions = versions
        self._previewing = previewing

    def endpoints(self) -> list[Endpoint]:
        where, version = "/admin/config", "/admin/config/versions/{id}"
        return [
            Endpoint("GET", where, "What is configured, each value with its source.", self.show, Current),
            Endpoint("GET", where + "/preview", "What a user's chat completion would get.", self.preview, Previewed, query=_ASKED),
            Endpoint("POST", where + "/validate", "Try a file without applying it.", self.validate, Checked, Text),
            Endpoint("PUT", where, "Put a file in place and into force, or change nothing.", self.apply, Applied, Change),
            Endpoint("GET", where + "/versions", "What was applied, the newest first.", self.history, VersionList, query=PAGE_BACK),
            Endpoint("GET", version, "One version with its text.", self.show_version, VersionShown),
            Endpoint("POST", version + "/rollback", "Apply that version again, as a new one.", self.roll_back, Applied),
        ]

    async def show(self, _asked: Asked) -> Current:
        return await self._configuring.current()

    async def preview(self, asked: Asked) -> Previewed:
        task_type, model = (_name(asked, name, most) for name, most in (("task_type", TASK_TYPE_LENGTH), ("model", MODEL_LENGTH)))
        return await self._previewing(asked.query.get("user"), task_type, model)

    async def validate(self, asked: Asked) -> Checked:
        return await self._configuring.check(asked.body.text)

    async def apply(self, asked: Asked) -> Applied:
        wanted: Change = asked.body
        return await self._configuring.apply(asked.actor, wanted.text, wanted.comment, digest_before=wanted.digest)

    async def history(self, asked: Asked) -> VersionList:
        before = asked.query.get("before")
        found = await (await self._versions()).list(before=None if before is None else whole("before", before), limit=limit_of(asked))
        return VersionList(data=[VersionShown.model_validate(one) for one in found])

    async def show_version(self, asked: Asked) -> VersionShown:
        found = await (await self._versions()).get(_id(asked))
        if found is None:
            raise ClientError("There is no such version.", status=404, code="not_found")
        return VersionShown.model_validate(found)

    async def roll_back(self, asked: Asked) -> Applied:
        return await self._configuring.roll_back(asked.actor, _id(asked))


def _name(asked: Asked, name: str, most: int) -> str | None:
    value = asked.query.get(name)
    if value is not None and not is_name(value, most):
        raise invalid(name, f"a name of at most {most} printable characters")
    return value


def _id(asked: Asked) -> int:
    text = asked.path["id"]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ClientError("A version's id is a whole number.", param="id", code="invalid_value")
    return int(text)
