"""What is written in one turn of the event loop goes out together at its end, where there is much of it.

A write wakes who waits for it. Where answers leave one by one, a tenth of a millisecond apart, their readers sleep in between and are
woken for each, and that is a third of what a request costs. Of many writes in a row all but the first find their readers awake.
"""

from __future__ import annotations

import asyncio

#: Writes that wait for each other at most: who waits longest waits for the work of so many requests.
_MOST = 16

#: A turn with fewer writes gains nothing by holding them: the next `_ALONE` go out at once, then it is tried again.
_FEW = 3
_ALONE = 64

#: So many bytes may make a transport say that it has enough, which their writer must learn at once: asyncio's high-water mark.
_LARGE = 64 * 1024


class Outbox:
    """Writes to the transports of one event loop. The order of what is sent to one transport is kept.

    Whoever writes to a transport itself, or closes it, flushes first; whose transport is lost, drops.
    """

    __slots__ = ("_alone", "_waiting", "_written")

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []
        self._written = 0  # in this turn
        self._alone = 0

    def send(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write `data`, by the end of the loop's turn."""
        if self._alone:
            self._alone -= 1
            transport.write(data)
            return
        if len(data) >= _LARGE:
            self.flush()
            transport.write(data)
            return
        waiting = self._waiting
        if not waiting and not self._written:
            asyncio.get_running_loop().call_soon(self._end_turn)
        waiting.append((transport, data))
        if len(waiting) == _MOST:
            self.flush()

    def _end_turn(self) -> None:
        self.flush()
        if self._written < _FEW:
            self._alone = _ALONE
        self._written = 0

    def flush(self) -> None:
        """Write all that waits, now."""
        waiting = self._waiting
        if waiting:
            self._waiting = []
            self._written += len(waiting)
            for transport, data in waiting:
                transport.write(data)

    def drop(self, transport: asyncio.Transport) -> None:
        """Write nothing to a transport that is lost."""
        if self._waiting:
            self._waiting = [entry for entry in self._waiting if entry[0] is not transport]
