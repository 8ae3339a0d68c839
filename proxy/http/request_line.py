"""Where a request goes: its line, read once for every request that repeats it."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp.http import RawRequestMessage

from proxy.http import routes
from proxy.http.routes import Route

_KEYS = frozenset({"api_key", "api-key", "apikey", "key", "token", "access_token"})


@dataclass(frozen=True, slots=True)
class RequestLine:
    """What a request line comes to. `allowed`: the methods that the path takes, where it does not take this one."""

    operation: str
    method: str
    path: str
    query: str
    allowed: tuple[str, ...] | None


def read(message: RawRequestMessage) -> RequestLine:
    path, _, query = _target_of(message).partition("?")
    method = "GET" if message.method == "HEAD" else message.method
    found = routes.find(method, path)
    query = _onward(query) if query else ""
    if isinstance(found, Route):
        return RequestLine(found.operation, method, found.path, query, None)
    return RequestLine("unknown", method, path, query, found)


def _target_of(message: RawRequestMessage) -> str:
    """Path and query as they came; of an absolute target (a client that takes us for a proxy) only these."""
    return message.path if message.path.startswith("/") else message.url.raw_path_qs


def _onward(query: str) -> str:
    """A query without what may be a key: some clients put theirs there, and it is not for the provider."""
    return "&".join(part for part in query.split("&") if part.partition("=")[0].lower() not in _KEYS)
