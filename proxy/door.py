"""Where connections are accepted; shut while no file descriptor is left for them.

libuv cuts the connections that it has no descriptor for by means of one that it keeps in reserve. Once that is lost it asks for the same
connection again and again, and the process stands at 100 %. So we look ourselves, and meanwhile clients wait in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from proxy.core import events
from proxy.core.metrics import Registry
from proxy.handshake import Agreeing, Terms
from proxy.ticks import on_tick

#: Connections that wait to be accepted. Said again, since who serves a socket listens on it anew.
_BACKLOG = 4096

#: Seconds between two looks.
_EVERY = 0.25

#: As many descriptors must be free; and as many before a door that was shut opens again, since shutting the doors has freed some.
_SPARE = 2
_AGAIN = 8


class Door:
    """Accepts on `listening`, which it takes over. `factory` makes a protocol for each connection.

    With `tls` that is once both sides have agreed.
    """

    def __init__(
        self,
        listening: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        metrics: Registry | None = None,
        tls: Terms | None = None,
    ) -> None:
        self._listening = listening
        self._factory = factory
        self._tls = tls
        self._shut = (metrics or Registry()).counter(
            "comporta_accept_paused_total", "Times that no connections were accepted because no file descriptor was left."
        )
        self._shut.labels()
        self._server: asyncio.Server | Agreeing | None = None
        self._opening: asyncio.Task[None] | None = None
        self._handle: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        await self._accept()
        self._handle = on_tick(self._look, _EVERY)

    def close(self) -> None:
        """Accept nothing any more."""
        if self._handle is not None:
            self._handle.cancel()
        if self._opening is not None:
            self._opening.cancel()
        if self._server is not None:
            self._server.close()
            self._server = None
        self._listening.close()

    async def _accept(self) -> None:
        listening = self._listening.dup()
        if self._tls is None:
            self._server = await asyncio.get_running_loop().create_server(self._factory, sock=listening, backlog=_BACKLOG)
        else:
            self._server = Agreeing(listening, self._tls, self._factory)

    def _look(self) -> None:
        self._handle = on_tick(self._look, _EVERY)
        if self._server is not None and not has_descriptors():
            self._server.close()
            self._server = None
            self._shut.labels().value += 1
            events.error("no_file_descriptors", accepting=False)
        elif self._server is None and has_descriptors(_AGAIN) and (self._opening is None or self._opening.done()):
            self._opening = asyncio.get_running_loop().create_task(self._accept())
            events.warning("file_descriptors_again", accepting=True)


def has_descriptors(count: int = _SPARE) -> bool:
    """Whether this process may open so many files more."""
    taken: list[int] = []
    try:
        while len(taken) < count:
            taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    finally:
        for each in taken:
            os.close(each)
    return True
