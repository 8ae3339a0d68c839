"""Connections of aiohttp's client: nothing that is said on one while it lies idle is an answer, and an answer that breaks off has begun."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace


class _Handler(ResponseHandler):
    is_idle = False
    #: Whether bytes of an answer have come, and whether its head has.
    has_begun = has_head = False

    def data_received(self, data: bytes) -> None:
        if data:  # without any aiohttp goes on with what has come
            if self.is_idle:
                # aiohttp would keep it for the next request, whose answer it would become.
                self.abort()
                return
            self.has_begun = True
        super().data_received(data)

    def feed_data(self, data: Any, size: int = 0) -> None:
        message, _ = data
        self.has_head = message.code >= 200
        super().feed_data(data, size)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.has_begun and not self.has_head:
            # aiohttp would say no more than that it was lost, as where it had been closed while it lay idle.
            exc = aiohttp.ClientPayloadError("cut off in its head")
        super().connection_lost(exc)

    def await_request(self) -> None:
        self.is_idle = True
        self.has_begun = self.has_head = False


class Connector(aiohttp.TCPConnector):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = cast(partial[ResponseHandler], partial(_Handler, loop=self._loop))

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        super()._release(key, protocol, should_close=should_close)
        if isinstance(protocol, _Handler):
            protocol.await_request()

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        found = await super()._get(key, traces)
        if found is not None and isinstance(found.protocol, _Handler):
            found.protocol.is_idle = False
        return found
