"""Which pages in browsers may read the answers: cross-origin resource sharing. It keeps nobody out; keys do that.

Source: https://fetch.spec.whatwg.org/#http-cors-protocol. No credentials of a browser's (cookies) are ever allowed: the gateway takes none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from aiohttp.http import RawRequestMessage

from proxy.core.reply import PROVIDER_REQUEST_ID
from proxy.http.own_head import OURS
from proxy.http.write import Writer

#: Every method of the routes: who uses one that a path does not take may read so.
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"

#: Beside our own: what pages may read of an answer's head. The star is for what providers and policies add; some clients do not know it.
_EXPOSED = (
    "accept-ranges",
    "allow",
    "content-disposition",
    "content-range",
    "etag",
    "location",
    "openai-model",
    "openai-processing-ms",
    "openai-version",
    "retry-after",
    "retry-after-ms",
    "www-authenticate",
    PROVIDER_REQUEST_ID,
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-should-retry",
    "*",
)

#: So many headers may a page ask for, in lines of so many characters; an SDK asks for about a dozen.
_MOST_ASKED, _LONGEST = 64, 4096

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Cors:
    """`origins` as browsers write them, or `*` for all. `max_age`: how long a browser may remember what it was allowed, in seconds."""

    def __init__(self, origins: Sequence[str], max_age: float) -> None:
        exposed = f"access-control-expose-headers: {', '.join((*sorted(OURS), *_EXPOSED))}\r\n"
        self._any = f"access-control-allow-origin: *\r\n{exposed}" if "*" in origins else None
        # Every answer differs by who asks, so also those that allow nothing say so to caches.
        self._listed = {origin: f"access-control-allow-origin: {origin}\r\nvary: Origin\r\n{exposed}" for origin in origins}
        self._max_age = int(max_age)

    def lines(self, origin: str | None) -> str:
        """Header lines of every answer to `origin` (None: the request named none), each ended by CRLF."""
        return self._any or self._listed.get(origin or "", "vary: Origin\r\n")

    def is_preflight(self, message: RawRequestMessage) -> bool:
        """Whether a browser asks by this request if it may send another, for a page that is allowed to."""
        headers = message.headers
        if message.method != "OPTIONS" or "Access-Control-Request-Method" not in headers:
            return False
        origin = headers.get("Origin")
        return origin is not None and (self._any is not None or origin in self._listed)

    async def preflight(self, message: RawRequestMessage, writer: Writer, id: str) -> bool:
        """Answer it, whoever asks; says whether the connection may carry another request. A browser shows no key here."""
        asked = message.headers
        headers = {"x-request-id": id, "access-control-allow-methods": _METHODS, "access-control-max-age": str(self._max_age)}
        if names := _asked_for(asked.getall("Access-Control-Request-Headers", ())):
            headers["access-control-allow-headers"] = ", ".join(names)
        if asked.get("Access-Control-Request-Private-Network") == "true":
            headers["access-control-allow-private-network"] = "true"
        writer.whole(204, headers, b"")
        return writer.keep_alive


def _asked_for(lines: Sequence[str]) -> list[str]:
    """The names of headers in `lines`; none where they are too long to be a browser's."""
    if sum(map(len, lines)) > _LONGEST:
        return []
    names = [name for line in lines for part in line.split(",") if _NAME.fullmatch(name := part.strip())]
    return names if len(names) <= _MOST_ASKED else []
