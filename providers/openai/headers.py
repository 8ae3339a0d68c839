"""Which of a client's headers an administrator may have passed on to a provider."""

from __future__ import annotations

import re

#: What a name is made of (RFC 9110, 5.6.2).
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: What may hold the client's key to the gateway, or to another site.
_KEYS = frozenset({"authorization", "api-key", "x-api-key", "cookie", "cookie2", "set-cookie"})

#: What holds for the client's connection and for how its body is written there (RFC 9110, 7.6.1), and what would change the answer's form
#: from that which the gateway reads: another coding, or none at all because the client has it already.
_OF_THE_CONNECTION = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-unmodified-since",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def forwardable(name: str) -> str:
    """The name of a header, in lower case. Raises ValueError, with the reason, for what cannot be passed on."""
    if _NAME.fullmatch(name) is None:
        raise ValueError("it holds what is no name of a header")
    name = name.lower()
    if name in _KEYS:
        raise ValueError(f"{name} is never passed on: it may be the client's key, and the provider gets its own")
    if name in _OF_THE_CONNECTION or name.startswith("proxy-"):
        raise ValueError(f"{name} is never passed on: it is a matter of the client's connection, or of how the gateway reads an answer")
    if name.startswith("x-comporta-"):
        raise ValueError(f"{name} is never passed on: it is for the gateway")
    return name
