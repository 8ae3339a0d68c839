"""A request's body on its way to a provider, which may answer, and go, before its end."""

from __future__ import annotations

import asyncio
import select
import time
from typing import TYPE_CHECKING

from proxy.core.call import Content, Timeouts
from proxy.core.errors import START, TOTAL
from proxy.transport.answer import HEAD

if TYPE_CHECKING:
    from proxy.transport.connection import Connection

FOREVER = float("inf")

#: So many turns of the loop hand on what has come to a socket.
_TURNS = 2


class Sending:
    """A body on its way over a connection; at its end its answer may take as long as `first_token`.

    A total that nobody has set begins anew with each piece. `bound` is the limit by which the connection is due.
    """

    def __init__(self, connection: Connection, content: Content, timeouts: Timeouts) -> None:
        self._connection = connection
        self._content = content
        self._timeouts = timeouts
        self._poll = select.poll()
        if connection.descriptor >= 0:
            self._poll.register(connection.descriptor, select.POLLIN)
        self.bound = TOTAL

    async def run(self) -> None:
        connection, limits = self._connection, self._timeouts
        chunked = self._content.length is None
        end = time.monotonic() + least(limits.left, None)
        pause = least(limits.total, None) if "total" in limits.defaults else None
        async for piece in self._content:
            if not await self._write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece):
                return
            if pause is not None:
                connection.due = min(time.monotonic() + pause, end)
        if chunked and not await self._write(b"0\r\n\r\n"):
            return
        due = time.monotonic() + least(limits.first_token, None)
        if due < connection.due:
            connection.due, self.bound = due, START

    async def _write(self, data: bytes) -> bool:
        """Says whether it was sent: not once an answer has come, which is read first. Its provider may have closed the connection behind
        it, and a write that fails would lose it.
        """
        if self._poll.poll(0):
            for _ in range(_TURNS):
                await asyncio.sleep(0)
        if self._connection.stage >= HEAD:
            self._connection.keep_alive = False  # what was announced is not sent
            return False
        await self._connection.write(data)
        return True


def has_left(transport: asyncio.Transport | None, status: int) -> bool:
    """Whether a request that was answered with `status` has left, as far as can be told: the next one would wait behind the rest of it.

    Over TLS, what is encrypted counts as sent, wherever it lies. Who served the request has read it; who refused it may not have.
    """
    if transport is None or transport.get_write_buffer_size():
        return False
    return status < 300 or transport.get_extra_info("ssl_object") is None


def least(one: float | None, other: float | None) -> float:
    """The shorter of two limits in seconds; infinity where there is none."""
    if one is None:
        return FOREVER if other is None else other
    return one if other is None or one < other else other
