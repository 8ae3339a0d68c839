"""How a connection closes: the rest of a body that nobody wants is read and dropped, and what was cut is reset.

A connection that is closed while its client still sends is reset, and the answer that the client has not read yet is lost with it.
"""

from __future__ import annotations

import asyncio
import socket
import struct

from proxy.http.known_head import Payload

#: How long nothing may come; how long the whole may take; in seconds.
PAUSE = 2.0
_LONGEST = 30.0

#: SO_LINGER: on, for no time at all (`struct linger`).
_NOT_AT_ALL = struct.pack("ii", 1, 0)


def be_reset(transport: asyncio.Transport) -> None:
    """Have a connection end by a reset when it is aborted next.

    Over TLS, too: most clients take an end without a goodbye (close_notify) for a good one. A Unix socket knows no resets.
    """
    found = transport.get_extra_info("socket")
    if found is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOT_AT_ALL)


class Lingering:
    """What the connections of one listener read for nobody."""

    __slots__ = ("_is_hurried", "_limits")

    def __init__(self) -> None:
        self._limits: set[asyncio.Timeout] = set()
        self._is_hurried = False

    async def take_in(self, payload: Payload, most: int) -> bool:
        """Read to the end, as long as it comes; says whether it did. Where `most` others do so, no longer than a pause may be."""
        limit = asyncio.timeout(PAUSE if self._is_hurried or len(self._limits) >= most else _LONGEST)
        self._limits.add(limit)
        try:
            async with limit:
                while not payload.is_eof():
                    async with asyncio.timeout(PAUSE):
                        await payload.readany()
        except Exception:  # noqa: BLE001 - it is late, or no HTTP: aiohttp sets whatever it finds
            return False
        finally:
            self._limits.discard(limit)
        return True

    def hurry(self) -> None:
        """The gateway stops: from now on nobody takes longer than a pause may be."""
        self._is_hurried = True
        latest = asyncio.get_running_loop().time() + PAUSE
        for limit in self._limits:
            if not limit.expired() and (limit.when() or 0.0) > latest:
                limit.reschedule(latest)
