"""Whose pages in browsers may read what the data plane answers."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from proxy.fields import Duration, Section

#: Among the origins: any page's.
ANY = "*"

#: The origin of pages that have none, such as those of files.
_NONE = "null"

_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}
_LOCAL = re.compile(r"(?:localhost|127\.[0-9.]+|\[::1\])(?::|$)", re.IGNORECASE)


def parse_origin(text: str) -> str:
    """An origin as browsers write it: in lower case, without the port that goes without saying. Raises ValueError."""
    if text in (ANY, _NONE):
        return text
    match = _ORIGIN.fullmatch(text)
    if match is None or (host := _host(match["host"].lower())) is None:
        raise ValueError(_wanted(text))
    scheme, port = match["scheme"].lower(), int(match["port"] or 0)
    if match["port"] and not 0 < port < 65536:
        raise ValueError("has a port that is none: ports go from 1 to 65535")
    return f"{scheme}://{host}" if port in (0, _PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


def _host(host: str) -> str | None:
    """None where it stands in brackets and is no address."""
    if not host.startswith("["):
        return host
    try:
        return f"[{ipaddress.IPv6Address(host[1:-1])}]"
    except ValueError:
        return None


def _wanted(text: str) -> str:
    begun = _ORIGIN.match(text)
    if begun is not None and text[begun.end() :].startswith(("/", "?", "#")):
        return f'has something behind the origin; write "{begun[0]}"'
    scheme = "http" if _LOCAL.match(text) else "https"
    if _ORIGIN.fullmatch(f"{scheme}://{text}"):
        return f'has no scheme; write "{scheme}://{text}"'
    if ANY in text:
        return 'has a "*" inside: list each origin, or "*" alone for every page'
    return (
        'wants SCHEME://HOST or SCHEME://HOST:PORT, such as "https://app.example.com"; letters beyond ASCII as browsers send them (xn--...)'
    )


def _whole(origins: tuple[str, ...]) -> tuple[str, ...]:
    if not origins:
        raise ValueError("names no page: list origins, or leave cors out")
    if ANY in origins and len(origins) > 1:
        raise ValueError('"*" is every page: it stands alone')
    return origins


OriginText = Annotated[str, AfterValidator(parse_origin), Field(examples=["https://app.example.com", "http://localhost:3000", "null", "*"])]


class CorsSettings(Section):
    """Pages of these origins may read answers; of others a browser shows nothing. Without this section no page may."""

    origins: Annotated[tuple[OriginText, ...], AfterValidator(_whole)] = Field(
        description='origins of pages that may read answers; "null" is that of files, "*" every page, for keys that users hold themselves',
    )
    max_age: Annotated[Duration, Field(ge=0)] = Field(
        600.0, description="how long a browser need not ask again whether it may send such a request"
    )
