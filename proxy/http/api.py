"""A JSON API as a literal table of endpoints: checked by pydantic, described by OpenAPI, guarded by one key.

Shapes of errors are those of the data plane, so that one client library reads both.
Sources: https://spec.openapis.org/oas/v3.1.0 and RFC 9110 (ETag, If-Match).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from proxy.core.errors import ClientError
from proxy.http import reference

#: The largest body that an administrator may send, in bytes.
MOST = 4 * 2**20

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


def guarded(key: str | None) -> Callable[[web.Request], str]:
    """Who asks, if that one may: with a key, whoever shows it as `Authorization: Bearer`; without one, anybody on this machine.

    Without a key, a page in a browser on this machine must not pass for its user: the request names this machine by its address, so that
    no foreign name that was made to resolve to it will do. Raises ClientError (401, 403).
    """
    wanted = None if key is None else hashlib.sha256(key.encode()).digest()

    def check(request: web.Request) -> str:
        if wanted is None:
            if not _names_this_machine(request.host):
                raise ClientError("Without an administrator's key, ask 127.0.0.1 or localhost.", status=403, code="permission_denied")
            return "local"
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        # Both sides are hashed first: lengths differ from nothing, and the comparison takes always as long.
        given = hashlib.sha256(shown.strip().encode("utf-8", "surrogateescape")).digest()
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, wanted):
            raise ClientError("This needs the administrator's key.", status=401, code="invalid_api_key")
        return "admin"

    return check


def _names_this_machine(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def add(app: web.Application, endpoints: Sequence[Endpoint], check: Callable[[web.Request], str]) -> None:
    """Have `app` serve `endpoints`, and their description as `/openapi.json` and as a page: it tells nothing secret, and needs no key.

    What they raise is for the application's `backstop` to answer.
    """
    for endpoint in endpoints:
        app.router.add_route(endpoint.method, endpoint.path, _served(endpoint, check))

    @cache
    def document() -> dict[str, Any]:
        return openapi(endpoints)

    @cache
    def described() -> bytes:
        return orjson.dumps(document(), option=orjson.OPT_INDENT_2)

    async def description(_request: web.Request) -> web.Response:
        # Made for the first who asks: it takes a tenth of a start, or a turn of the event loop that others would notice.
        return web.Response(body=await asyncio.to_thread(described), content_type="application/json")

    app.router.add_get("/openapi.json", description)
    reference.add(app, document, reference.swagger_files())


def _served(endpoint: Endpoint, check: Callable[[web.Request], str]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def serve(request: web.Request) -> web.Response:
        actor = check(request)
        unknown = sorted(set(request.query) - {name for name, _ in endpoint.query})
        if unknown:
            raise ClientError(f"There is no parameter {unknown[0][:100]!r}.", param=unknown[0][:100], code="unknown_parameter")
        body = None if endpoint.body is None else await _body(request, endpoint.body)
        asked = Asked(actor, dict(request.match_info), dict(request.query), body, request.headers.get("If-Match"))
        answer = await endpoint.handle(asked)
        if answer is None:
            return web.Response(status=204)
        headers = {"ETag": tag(answer), "Cache-Control": "no-store"}
        return web.Response(
            status=endpoint.status, body=answer.model_dump_json().encode(), content_type="application/json", headers=headers
        )

    return serve


async def _body(request: web.Request, model: type[BaseModel]) -> BaseModel:
    if request.content_type != "application/json":
        # What a foreign page may send without being asked first is never JSON.
        raise ClientError("Send the body as application/json.", status=415, code="unsupported_media_type")
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise ClientError(f"The request's body is larger than {MOST} bytes.", status=413, code="request_too_large") from None
    except Exception:  # noqa: BLE001 - aiohttp sets whatever ended the body
        raise ClientError("The request's body broke off, or is not encoded as its headers say.") from None
    try:
        return model.model_validate(orjson.loads(raw or b"{}"))
    except orjson.JSONDecodeError as error:
        raise ClientError(f"The request's body is not valid JSON: {error}", code="invalid_json") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ClientError(f"{place or 'The body'}: {first['msg']}", param=place or None, code="invalid_value") from None


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
