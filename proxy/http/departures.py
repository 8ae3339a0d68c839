"""Clients that leave while nothing is read from them.

The event loop asks the kernel nothing about a connection whose reading is paused: it would learn of a reset when it reads again, and
meanwhile a provider works for nobody. So these connections are asked about here, all at once, at each tick.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import struct
import termios
from typing import TYPE_CHECKING

from proxy.ticks import on_tick

if TYPE_CHECKING:
    from proxy.http.server import Connection

#: That a client has ended its side. Where a kernel does not tell it (macOS), resets and hang-ups are told all the same.
_ENDED: int = getattr(select, "POLLRDHUP", 0)


class Departures:
    """Watches the connections of one event loop whose reading is paused, while there are any."""

    __slots__ = ("_connections", "_descriptors", "_handle", "_poll")

    def __init__(self) -> None:
        self._poll = select.poll()
        self._connections: dict[int, Connection] = {}
        self._descriptors: dict[Connection, int] = {}
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._connections)

    def watch(self, connection: Connection, transport: asyncio.Transport) -> None:
        """Have `connection` closed when its client leaves. Its transport is closed or forgotten before its descriptor is another's."""
        found = transport.get_extra_info("socket")
        descriptor = -1 if found is None else found.fileno()
        if descriptor < 0:
            return
        self._connections[descriptor] = connection
        self._descriptors[connection] = descriptor
        self._poll.register(descriptor, _ENDED)  # resets and errors are told in any case
        if self._handle is None:
            self._handle = on_tick(self._look)

    def forget(self, connection: Connection) -> None:
        descriptor = self._descriptors.pop(connection, -1)
        if descriptor >= 0 and self._connections[descriptor] is connection:
            del self._connections[descriptor]
            self._poll.unregister(descriptor)

    def _look(self) -> None:
        self._handle = None
        try:
            for descriptor, events in self._poll.poll(0):
                self._judge(self._connections[descriptor], descriptor, events)
        finally:
            if self._connections and self._handle is None:
                self._handle = on_tick(self._look)

    def _judge(self, connection: Connection, descriptor: int, events: int) -> None:
        # Over TLS nobody who still reads ends the connection below it, and what is unread there is not to be counted.
        if events != _ENDED or connection.is_secure:
            self.forget(connection)
            connection.abort_body()
        elif connection.ends_after(_unread(descriptor)):
            self.forget(connection)
            connection.end()


def _unread(descriptor: int) -> int:
    """Bytes that have come and were not read."""
    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0"))[0])
