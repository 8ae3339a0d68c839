"""What became of the last requests, over HTTP: a list, and each one explained. What is told comes from `proxy.core.recent`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from proxy.core.errors import ClientError
from proxy.http.api import Asked, Endpoint

#: The longest id that anybody may look for.
_LONGEST = 100

_MOST = 1000


class _Shape(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid")


class RequestShown(_Shape):
    id: str = Field(description="what the client got as `x-request-id`")
    at: datetime
    worker: int | None = None
    operation: str
    model: str | None
    provider: str | None
    user: str
    key: str | None = Field(description="the key's public id")
    status: int
    outcome: str
    error: str | None
    attempts: int
    fallback: str | None
    total_ms: float


class RequestList(_Shape):
    data: list[RequestShown]


class AskedShown(_Shape):
    operation: str
    method: str
    model: str | None = Field(description="as the request named it, before the configuration decided")
    stream: bool
    user: str
    key: str | None
    tier: str | None
    end_user: str | None
    address: str | None = Field(description="the client's, as far as trusted proxies say it; null where they do not")


class ValueShown(_Shape):
    value: Any
    source: str = Field(description="system, task_type, user or request")


class ConfigurationShown(_Shape):
    source: str
    task_type: str | None
    known_task_type: bool
    values: dict[str, ValueShown]


class TargetShown(_Shape):
    provider: str
    model: str | None
    public: str | None


class TokensShown(_Shape):
    prompt: int
    completion: int
    cached: int
    reasoning: int
    usage: str = Field(description="reported or estimated")


class AttemptShown(TargetShown):
    credential: str | None = Field(description="the reference of the provider's key, never the key")
    why: str = Field(description="first, retry or fallback")
    error: str | None = Field(description="a kind of docs/faults.md")
    tokens: TokensShown | None = Field(None, description="what it may have cost, where it failed")
    not_repeated: str | None = Field(description="why no other try followed at this target")
    started_ms: float
    ended_ms: float | None = Field(description="when the answer, of a stream its first content, was there")


class TimeoutsShown(_Shape):
    """Seconds. The deadline counts from the request's head."""

    connect: float | None
    first_token: float | None
    idle: float | None
    total: float | None
    min_tokens_per_second: float | None
    deadline: float | None


class TimingShown(_Shape):
    total_ms: float
    first_token_ms: float | None
    overhead_ms: float
    upstream_ms: float


class Explanation(_Shape):
    """Everything that is known of one request. Times count from its head."""

    id: str
    at: datetime
    worker: int | None = None
    status: int
    outcome: str
    error: str | None
    asked: AskedShown
    configuration: ConfigurationShown | None
    served: TargetShown | None
    attempts: list[AttemptShown]
    retries: int
    fallback: str | None = Field(description="the kind of the failure that made another target serve")
    not_asked: list[TargetShown] = Field(description="further targets of the model that there was no need for")
    timeouts: TimeoutsShown | None = Field(description="of the last attempt")
    tokens: TokensShown | None
    timing: TimingShown
    bytes_in: int
    bytes_out: int


class Knowing(Protocol):
    """Who has served: a process, or several of them."""

    async def requests(self, most: int) -> list[dict[str, Any]]:
        """The newest requests, as `proxy.core.recent.summary` tells them."""

    async def explain(self, id: str) -> dict[str, Any] | None:
        """One request, as `proxy.core.recent.explained` tells it; None where nobody has it any more."""


class Requests:
    """The endpoints."""

    def __init__(self, knowing: Knowing) -> None:
        self._knowing = knowing

    def endpoints(self) -> list[Endpoint]:
        where = "/admin/requests"
        bounds = (("limit", f"how many at most, 1 to {_MOST}"),)
        return [
            Endpoint("GET", where, "The last requests that have ended, the newest first.", self.list, RequestList, query=bounds),
            Endpoint("GET", where + "/{id}/explain", "What became of one request, and why.", self.explain, Explanation),
        ]

    async def list(self, asked: Asked) -> RequestList:
        text = asked.query.get("limit", "100")
        if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= _MOST):
            raise ClientError(f"limit: a whole number from 1 to {_MOST}.", param="limit", code="invalid_value")
        return RequestList.model_validate({"data": await self._knowing.requests(int(text))})

    async def explain(self, asked: Asked) -> Explanation:
        id = asked.path["id"]
        found = await self._knowing.explain(id) if len(id) <= _LONGEST else None
        if found is None:
            message = f"There is no request {id[:_LONGEST]!r} among the last ones: it has not ended, or server.recent_requests is too few."
            raise ClientError(message, status=404, code="not_found")
        return Explanation.model_validate(found)
