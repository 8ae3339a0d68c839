"""A JSON API as a literal table of endpoints: checked by pydantic, described by OpenAPI, guarded by one key.

Shapes of errors are those of the data plane, so that one client library reads both.
Sources: https://spec.openapis.org/oas/v3.1.0 and RFC 9110 (ETag, If-Match).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from proxy.core.errors import ClientError
from proxy.core.names import nearest
from proxy.http import reference
from proxy.http.guard import MOST
from proxy.http.misfit import misfit

#: How long an administrator's body may take to come, in seconds.
_BODY = 30.0

#: What the names in a path stand for, in one request.
_PATH: web.RequestKey[dict[str, str]] = web.RequestKey("path", dict[str, str])

#: Answers, by the endpoint's model; None answers 204.
Handled: TypeAlias = Callable[["Asked"], Awaitable[BaseModel | None]]


@dataclass(frozen=True, slots=True)
class Asked:
    """One administrative request: who asks, the path's and the query's values, the checked body, and the version it is meant for."""

    actor: str
    path: dict[str, str]
    query: dict[str, str]
    body: Any
    if_match: str | None

    def require(self, current: BaseModel | None) -> None:
        """Refuse to change what is not what the client has read. Raises ClientError (412); without `If-Match` anything goes."""
        if self.if_match is not None and self.if_match not in ("*", tag(current) if current is not None else None):
            raise ClientError("It has changed since you read it; read it again.", status=412, code="precondition_failed")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A row of the table. `query` names what the query may hold, each with its meaning."""

    method: str
    path: str
    summary: str
    handle: Handled
    answer: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    status: int = 200
    query: tuple[tuple[str, str], ...] = ()

    @property
    def operation(self) -> str:
        words = [part.strip("{}") for part in self.path.split("/") if part]
        return "_".join([self.method.lower(), *words])

    @property
    def subject(self) -> str:
        """What it is about: the first word of its path, `/admin/` left out."""
        return self.path.removeprefix("/admin/").strip("/").partition("/")[0]


def tag(model: BaseModel) -> str:
    """A strong entity tag of what is shown."""
    return f'"{hashlib.sha256(orjson.dumps(model.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)).hexdigest()[:20]}"'


async def _nothing() -> dict[str, Any]:
    return {}


class Desk:
    """All that administrators are served with beside numbers and health: `endpoints`, their description as `/openapi.json` and as a page.

    The description tells nothing secret, and needs no key. `told` is what `/readyz?verbose` tells beside the state. What an endpoint raises
    is for the application's `backstop` to answer.
    """

    def __init__(self, endpoints: Sequence[Endpoint], told: Callable[[], Awaitable[dict[str, Any]]] = _nothing) -> None:
        self._endpoints = endpoints
        self.told = told
        # A table of its own, because that of an application takes no more once the application has been started.
        self._table = web.UrlDispatcher()

    def opened(self, check: Callable[[web.Request], str], own: Mapping[str, reference.Page]) -> Desk:
        """Itself, ready to answer whom `check` lets pass. `own` are the paths that the application serves itself, for GET alone."""
        for endpoint in self._endpoints:
            self._table.add_route(endpoint.method, endpoint.path, _served(endpoint, check))
        for path, page in own.items():
            self._table.add_get(path, page)

        @cache
        def document() -> dict[str, Any]:
            return openapi(self._endpoints)

        @cache
        def described() -> bytes:
            return orjson.dumps(document(), option=orjson.OPT_INDENT_2)

        async def description(_request: web.Request) -> web.Response:
            # Made for the first who asks: it takes a tenth of a start, or a turn of the event loop that others would notice.
            return web.Response(body=await asyncio.to_thread(described), content_type="application/json")

        self._table.add_get("/openapi.json", description)
        reference.add(self._table, document, reference.swagger_files())
        return self

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """What the table has for it. Raises HTTPNotFound, HTTPMethodNotAllowed."""
        found = await self._table.resolve(request)
        if found.http_exception is not None:
            raise found.http_exception
        request[_PATH] = dict(found)
        return await found.handler(request)


def _served(endpoint: Endpoint, check: Callable[[web.Request], str]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def serve(request: web.Request) -> web.Response:
        actor = check(request)
        unknown = sorted(set(request.query) - {name for name, _ in endpoint.query})
        if unknown:
            near = nearest(unknown[0][:100], [name for name, _ in endpoint.query])
            raise ClientError(f"There is no parameter {unknown[0][:100]!r}; {near}.", param=unknown[0][:100], code="unknown_parameter")
        body = None if endpoint.body is None else await _body(request, endpoint.body)
        asked = Asked(actor, request[_PATH], dict(request.query), body, request.headers.get("If-Match"))
        answer = await endpoint.handle(asked)
        if answer is None:
            return web.Response(status=204)
        # Thousands of values, of a configuration with many models, take several turns of the event loop.
        etag, text = await asyncio.to_thread(lambda: (tag(answer), answer.model_dump_json()))
        headers = {"ETag": etag, "Cache-Control": "no-store"}
        return web.Response(status=endpoint.status, body=text.encode(), content_type="application/json", headers=headers)

    return serve


async def _body(request: web.Request, model: type[BaseModel]) -> BaseModel:
    if request.content_type != "application/json":
        # What a foreign page may send without being asked first is never JSON.
        raise ClientError("Send the body as application/json.", status=415, code="unsupported_media_type")
    try:
        async with asyncio.timeout(_BODY):
            raw = await request.read()
    except TimeoutError:
        raise ClientError("The request's body did not arrive in time.", status=408, code="request_timeout") from None
    except web.HTTPRequestEntityTooLarge:
        raise ClientError(f"The request's body is larger than {MOST} bytes.", status=413, code="request_too_large") from None
    except Exception:  # noqa: BLE001 - aiohttp sets whatever ended the body
        raise ClientError("The request's body broke off, or is not encoded as its headers say.") from None
    try:
        return model.model_validate(orjson.loads(raw or b"{}"))
    except orjson.JSONDecodeError as error:
        raise ClientError(f"The request's body is not valid JSON: {error}", code="invalid_json") from None
    except ValidationError as error:
        raise misfit(error, model) from None


def openapi(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `endpoints`."""
    models = {model for endpoint in endpoints for model in (endpoint.body, endpoint.answer) if model is not None}
    ordered = sorted(models, key=lambda model: model.__name__)
    references, definitions = models_json_schema(
        [(model, "serialization") for model in ordered], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _described(endpoint, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": "comporta: administration", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _described(endpoint: Endpoint, references: Any) -> dict[str, Any]:
    def content(model: type[BaseModel]) -> dict[str, Any]:
        return {"content": {"application/json": {"schema": references[model, "serialization"]}}}

    named = [part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")]
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in named]
    parameters += [{"name": name, "in": "query", "description": text, "schema": {"type": "string"}} for name, text in endpoint.query]
    good = {"description": "Done."} if endpoint.answer is None else {"description": "Good.", **content(endpoint.answer)}
    found: dict[str, Any] = {
        "operationId": endpoint.operation,
        "summary": endpoint.summary,
        "tags": [endpoint.subject],
        "parameters": parameters,
        "responses": {str(204 if endpoint.answer is None else endpoint.status): good, "4XX": {"description": "An error object."}},
    }
    if endpoint.body is not None:
        found["requestBody"] = {"required": True, **content(endpoint.body)}
    return found
