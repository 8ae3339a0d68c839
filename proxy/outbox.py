"""What is written in one turn of the event loop goes out together at its end, where there is much of it.

A write wakes who waits for it. Where answers leave one by one, a tenth of a millisecond apart, their readers sleep in between and are
woken for each, and that is a third of what a request costs. Of many writes in a row all but the first find their readers awake.
"""

from __future__ import annotations

import asyncio

#: Writes that wait for each other at most: who waits longest waits for the work of so many requests.
_MOST = 16

#: A turn with fewer writes gains nothing by holding them: the next `_UNHELD` go out at once, then it is tried again.
_FEW = 3
_UNHELD = 64

#: So many bytes may make a transport say that it has enough, which their writer must learn at once: asyncio's high-water mark.
_LARGE = 64 * 1024


class Outbox:
    """Writes to the transports of one event loop. The order of what is sent to one transport is kept.

    Whoever writes to a transport itself, or closes it, flushes first, also where it closes by itself (`eof_received`); whose transport is
    lost, drops.
    """

    __slots__ = ("_is_scheduled", "_unheld", "_waiting", "_written")

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Transport, bytes] = {}
        self._is_scheduled = False
        self._written = 0  # of what waited in this turn
        self._unheld = 0

    def send(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write `data`, by the end of the loop's turn; at once what the transport may not take, so that it says so now."""
        if self._unheld:
            self._unheld -= 1
            transport.write(data)
            return
        waiting = self._waiting
        if len(data) >= _LARGE or transport in waiting or transport.get_write_buffer_size():
            self.flush()
            transport.write(data)
            return
        waiting[transport] = data
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._end_turn)
        elif len(waiting) == _MOST:
            self.flush()

    def _end_turn(self) -> None:
        self._is_scheduled = False
        self.flush()
        if self._written < _FEW:
            self._unheld = _UNHELD
        self._written = 0

    def flush(self) -> None:
        """Write all that waits, now."""
        waiting = self._waiting
        if waiting:
            self._waiting = {}
            self._written += len(waiting)
            for transport, data in waiting.items():
                try:
                    transport.write(data)
                except Exception as error:  # noqa: BLE001 - whatever is wrong with one of them, the others are other people's
                    transport.abort()
                    told = {"message": "An answer or a request could not be written.", "exception": error, "transport": transport}
                    asyncio.get_running_loop().call_exception_handler(told)

    def drop(self, transport: asyncio.Transport) -> None:
        """Write nothing to a transport that is lost."""
        self._waiting.pop(transport, None)
