"""Where a request goes: its line, read once for every request that repeats it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, unquote_plus

from aiohttp.http import RawRequestMessage

from proxy.core.keys import PREFIX
from proxy.http import routes
from proxy.http.routes import Route

#: Parameters that can be nothing but a client's key: no route has one of these names.
_KEYS = frozenset({"api_key", "api-key", "apikey", "access_token"})

#: Azure's paths are OpenAI's below `/openai`, with the name of a deployment before those that have a model, which is that one; some clients
#: put it before others, too. Clients join them to an endpoint that ends with a slash.
#: Source: https://learn.microsoft.com/azure/ai-foundry/openai/reference
_AZURE = re.compile(
    r"/+openai(?:/+deployments/(.+?)(?=/(?:chat/completions|completions|embeddings|audio/[a-z]+|images/[a-z]+)/?$)|/+deployments/[^/]+)?(?P<path>/.+)"
)


@dataclass(frozen=True, slots=True)
class RequestLine:
    """What a request line comes to.

    `allowed`: the methods that the path takes, where it does not take this one. `model`: the one that the path says is asked for.
    """

    operation: str
    method: str
    path: str
    query: str
    allowed: tuple[str, ...] | None
    model: str | None = None


def read(message: RawRequestMessage) -> RequestLine:
    path, _, query = _target_of(message).partition("?")
    method = "GET" if message.method == "HEAD" else message.method
    found, model = routes.find(method, path), None
    azure = _AZURE.fullmatch(path) if found == () else None
    if azure is not None:
        found, model = routes.find(method, azure["path"]), unquote(azure[1]) if azure[1] else None
    query = _onward(query, _KEYS if azure is None else _KEYS | {"api-version"}) if query else ""
    if isinstance(found, Route):
        return RequestLine(found.operation, method, found.path, query, None, model)
    return RequestLine("unknown", method, path, query, found)


def _target_of(message: RawRequestMessage) -> str:
    """Path and query as they came; of an absolute target (a client that takes us for a proxy) only these."""
    return message.path if message.path.startswith("/") else message.url.raw_path_qs


def _onward(query: str, without: frozenset[str]) -> str:
    """A query without the parameters named, and without what is a key of ours under whatever name.

    Some clients put their key there, and it is not for the provider.
    """
    return "&".join(part for part in query.split("&") if not _is_for_us(part, without))


def _is_for_us(part: str, names: frozenset[str]) -> bool:
    plain = unquote_plus(part)
    return PREFIX in plain or plain.partition("=")[0].lower() in names
