"""Who may ask the administration, and how much: whoever has its key, or where there is none, somebody on this machine."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Callable

from aiohttp import web

from proxy.core.errors import ClientError

#: The largest body that an administrator may send, in bytes.
MOST = 4 * 2**20


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


class Guard:
    """Says who asks, as `guarded` does, by the key of the moment."""

    def __init__(self, key: str | None) -> None:
        self.ask_for(key)

    def ask_for(self, key: str | None) -> None:
        """Another key, or none."""
        self.has_key = key is not None
        self._check = guarded(key)

    def __call__(self, request: web.Request) -> str:
        return self._check(request)


#: Where the application keeps it, for who changes its key.
GUARD = web.AppKey("guard", Guard)
