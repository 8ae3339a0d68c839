"""Where a host name leads, checked before anything connects to it: the address that was checked is the address that is used."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from proxy.core.hosts import is_literal
from proxy.transport.lookups import look_up


class PrivateAddress(OSError):
    """A name leads to where configuration did not permit to go."""


class PinnedResolver(AbstractResolver):
    """Resolves, and refuses addresses that configuration did not permit; the connection goes to the address that was checked."""

    def __init__(self, *, allow_private: bool, lookup: Callable[..., Any] | None = None) -> None:
        self._allow_private = allow_private
        self._lookup = lookup or look_up

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        try:
            infos = await self._lookup(host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG)
        except UnicodeError as error:
            # Such as an empty label, or one of over 63 characters: no name server can be asked for it (RFC 5890).
            raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
        found = [(str(info[4][0]), info[0]) for info in infos]
        # A literal address, or localhost, is what the administrator wrote: that is the permission.
        if not self._allow_private and host != "localhost" and not is_literal(host):
            found = [(address, kind) for address, kind in found if is_public(address)]
            if not found:
                raise PrivateAddress(f"{host} resolves to a private address")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for address, kind in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


#: Prefixes of IPv6 addresses whose last 32 bits are the IPv4 address that they lead to: RFC 4291, 2.5.5.1; RFC 6052, 2.1.
_EMBEDDING = tuple(map(ipaddress.IPv6Network, ("::/96", "64:ff9b::/96")))


#: What a network translates for itself: it may lead anywhere inside. RFC 8215.
_LOCAL_TRANSLATION = ipaddress.IPv6Network("64:ff9b:1::/48")


def _embedded(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for."""
    found = ip.ipv4_mapped or ip.sixtofour
    if found is None and any(ip in network for network in _EMBEDDING):
        found = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return found


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet's; a mapped or translated IPv4 address is judged by what it stands for."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _LOCAL_TRANSLATION:
            return False
        ip = _embedded(ip) or ip
    return ip.is_global and not ip.is_multicast
