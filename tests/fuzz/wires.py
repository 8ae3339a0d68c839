"""Transports without a wire, for protocols that are driven by hand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any


class Wire(asyncio.Transport):
    """Keeps what is written until it closes. Aborting it loses the connection at the loop's next turn, and so does closing it, as real ones
    do, where nothing is unsent."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": ("192.0.2.1", 50000)})
        self.protocol = protocol
        self.written = bytearray()
        self.reading = True
        self.lost = False
        self.unsent = 0
        self._closing = False
        self._ended = False
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        assert not self.lost, "written to after it was lost"
        assert not self._ended, "written to after its end"
        if not self._closing:
            self.written += data

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self.get_write_buffer_size():
                asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        self._closing = True
        asyncio.get_running_loop().call_soon(self.lose)

    def lose(self, error: Exception | None = None) -> None:
        self._closing = True
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(error)

    def feed(self, data: bytes) -> None:
        if data and not self._closing:
            self.protocol.data_received(data)

    def end(self) -> None:
        """The peer sends nothing more: as real ones do, it closes itself, and what is written from then on is lost."""
        if not self.protocol.eof_received():
            self.close()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Nobody reads it; but nothing may follow."""
        self._ended = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """It is never full."""


def pieces(data: bytes, dice: random.Random) -> Iterator[bytes]:
    """`data` in pieces of chance."""
    step = dice.choice((1, 2, 7, 50, 1000))
    start = 0
    while start < len(data):
        end = start + dice.randint(1, step)
        yield data[start:end]
        start = end


def dice_of(data: bytes) -> random.Random:
    """The same chance for the same input, so that a finding can be had again."""
    return random.Random(data)
