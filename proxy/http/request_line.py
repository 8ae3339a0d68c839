"""Where a request goes: its line, read once for every request that repeats it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote_plus

from aiohttp.http import RawRequestMessage

from proxy.core.keys import PREFIX
from proxy.http import routes
from proxy.http.routes import Route

#: Parameters that can be nothing but a client's key: no route has one of these names.
_KEYS = frozenset({"api_key", "api-key", "apikey", "access_token"})


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
    """A query without what is a key, one of ours under whatever name: some clients put theirs there, and it is not for the provider."""
    return "&".join(part for part in query.split("&") if not _shows_key(part))


def _shows_key(part: str) -> bool:
    plain = unquote_plus(part)
    return PREFIX in plain or plain.partition("=")[0].lower() in _KEYS
