"""A connection whose bytes somebody else is given first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast


class _Shortened:
    """An `asyncio.Protocol` by its members. A class that derives from it has methods, and each read would cost one call more."""

    __slots__ = ("connection_lost", "data_received", "eof_received", "pause_writing", "resume_writing")

    def __init__(self, connection: asyncio.Protocol, data_received: Callable[[bytes], object]) -> None:
        self.data_received = data_received
        self.eof_received = connection.eof_received
        self.connection_lost = connection.connection_lost
        self.pause_writing = connection.pause_writing
        self.resume_writing = connection.resume_writing


def shortened(connection: asyncio.Protocol, data_received: Callable[[bytes], object]) -> asyncio.Protocol:
    """What a transport can have for its protocol in the stead of `connection`."""
    return cast(asyncio.Protocol, _Shortened(connection, data_received))
