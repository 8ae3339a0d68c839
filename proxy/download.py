"""Answers that are a file's own content: any type may be meant, even a page, and the provider may say that it lies elsewhere.

Where it lies elsewhere the client is told, as it would be without a gateway. The gateway itself follows no redirect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from proxy.core.call import Call
from proxy.core.hiding import shows

#: Statuses that name another place for what was asked (RFC 9110, 15.4).
REDIRECTS = frozenset({301, 302, 303, 307, 308})

#: Headers of a file's content that the client may see beside those of every answer: for what was kept, and for going on in the middle.
SHOWN = frozenset({"cache-control", "etag", "expires", "last-modified"})

#: What is added. A browser runs nothing of a file in the gateway's name, and no cache between gives one client's file to another.
ADDED = {"content-security-policy": "sandbox", "x-content-type-options": "nosniff", "vary": "authorization, api-key, x-api-key"}

#: The content of a vector store's file is not one: it is an object that holds the file's text.
_CONTENT = re.compile(
    r"/(?:files/[^/]+|videos/[^/]+|containers/[^/]+/files/[^/]+|skills/[^/]+(?:/versions/[^/]+)?"
    r"|agents/sessions/[^/]+/artifacts/[^/]+|live/sessions/[^/]+)/content"
)
_PLAIN = re.compile(r"[!-~]+")


def is_download(call: Call) -> bool:
    """Whether the answer to a call is a file's content."""
    return call.method == "GET" and _CONTENT.fullmatch(call.path) is not None


def location_of(headers: Mapping[str, str], secret: str) -> str | None:
    """Where a redirect leads, if the client may be told: to a whole address of http or https in which no credential stands.

    An address without its host would lead back to the gateway. `secret` is the credential that was sent, empty for none.
    """
    location = headers.get("location", "")
    if _PLAIN.fullmatch(location) is None or (secret and _holds(location, secret)):
        return None
    try:
        parts = urlsplit(location)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return None
    return location if is_address else None


def _holds(text: str, secret: str) -> bool:
    """Whether `secret` stands in it, however often it is escaped."""
    while not shows(text, secret):
        plain = unquote(text)
        if plain == text:
            return False
        text = plain
    return True
