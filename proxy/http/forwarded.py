"""For whom a proxy asks: `X-Forwarded-For` and `Forwarded` (RFC 7239), believed as far as proxies that are trusted have written them.

Every proxy adds the address that it was asked from at the right. So the client is the rightmost one that is no trusted proxy; what stands
left of it is the client's own word, and nobody believes that. What cannot be read there is no address: limits by address then refuse.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, TypeAlias

from proxy.core.permissions import may_come_from

#: How `Call.peer` and the configuration name whoever asks over a Unix socket.
LOCAL = "local"

#: Says who asked a proxy, by a request's headers; empty where they do not say so clearly.
Behind: TypeAlias = Callable[[Mapping[str, str]], str]

_X_FORWARDED_FOR, _FORWARDED = "x-forwarded-for", "forwarded"

#: The longest address with a port, in brackets and with a zone, is shorter.
_LONGEST = 80

#: Longer lines are no proxy's: they say nothing, and cost nothing.
_LONGEST_LINE = 2048

_HOP = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<v4>[0-9.]+))(?::(?:\d{1,5}|_[\w.-]+))?")

#: One `name=value` of `Forwarded`, and what ends it; values that hold `:` need quotes, and some proxies forget them.
#: Possessive throughout: what does not match is given up at once, however long it is.
_PAIR = re.compile(r"""[ \t]*+(?:([!#$%&'*+.^_`|~0-9A-Za-z-]++)=(?:([^",; \t]++)|"((?:[^"\\]|\\.)*+)"))?+[ \t]*+([;,]|$)""")


class Proxies:
    """`trusted` are networks (`10.0.0.0/8`), and `local` for whoever asks over a Unix socket."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._networks = tuple(each for each in trusted if each != LOCAL)
        self._local = LOCAL in trusted

    def trust(self, address: str) -> bool:
        return self._local if address == LOCAL else may_come_from(self._networks, address)

    def behind(self, peer: str) -> Behind | None:
        """What tells clients behind `peer` apart; None where it is no trusted proxy, but a client itself."""
        return partial(self._client, peer) if self.trust(peer) else None

    def _client(self, peer: str, headers: Mapping[str, str]) -> str:
        """A proxy mostly writes one of the two headers, and hands the other one on as it came: where they differ, neither is believed."""
        plain, standard = _all(headers, _X_FORWARDED_FOR), _all(headers, _FORWARDED)
        if not plain and not standard:
            return peer
        found = {self._nearest(hops) for lines, hops in ((plain, _plain_hops(plain)), (standard, _standard_hops(standard))) if lines}
        return found.pop() if len(found) == 1 else ""

    def _nearest(self, hops: Iterator[str]) -> str:
        """The first of `hops`, which come nearest first, that is no trusted proxy; the last one where all are."""
        address = ""
        for hop in hops:
            address = address_of(hop)
            if not address or not self.trust(address):
                break
        return address


def _plain_hops(lines: Sequence[str]) -> Iterator[str]:
    for line in reversed(lines):
        if len(line) > _LONGEST_LINE:
            yield ""
        for hop in reversed(line.split(",")):
            if hop.strip():
                yield hop.strip()


def _standard_hops(lines: Sequence[str]) -> Iterator[str]:
    for line in reversed(lines):
        yield from reversed(list(_elements(line))) if len(line) <= _LONGEST_LINE else ("",)


def _elements(line: str) -> Iterator[str]:
    """The `for` of each element; empty for one that has none. A line that breaks the grammar says nothing at all from its right end on."""
    at, said = 0, []
    while True:
        pair = _PAIR.match(line, at)
        if pair is None:
            yield ""
            return
        name, bare, quoted, end = pair.groups()
        if name is not None and name.lower() == "for":
            said.append(bare if bare is not None else re.sub(r"\\(.)", r"\1", quoted))
        if end != ";":
            yield said[0] if len(said) == 1 else ""
            said = []
        if not end:
            return
        at = pair.end()


@lru_cache(maxsize=4096)
def address_of(hop: str) -> str:
    """The IP address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`; empty for anything else (`unknown`, `_hidden`).

    An IPv4 address in an IPv6 one counts as itself.
    """
    if len(hop) > _LONGEST:
        return ""
    match = _HOP.fullmatch(hop)
    try:
        address = ipaddress.ip_address(hop if match is None else match["v6"] or match["v4"])
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)


def _all(headers: Mapping[str, str], name: str) -> Sequence[str]:
    """Every value of a header, where `headers` can hold several."""
    getall: Any = getattr(headers, "getall", None)
    if getall is not None:
        found: Sequence[str] = getall(name, ())
        return found
    value = headers.get(name)
    return () if value is None else (value,)
