"""Connections of aiohttp's client: what is said on one while it lies idle is nobody's answer, and closes it."""

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

    def data_received(self, data: bytes) -> None:
        if self.is_idle and data:  # without any it goes on with what has come
            # aiohttp would keep it for the next request, whose answer it would become.
            self.abort()
        else:
            super().data_received(data)


class Connector(aiohttp.TCPConnector):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = cast(partial[ResponseHandler], partial(_Handler, loop=self._loop))

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        super()._release(key, protocol, should_close=should_close)
        if isinstance(protocol, _Handler):
            protocol.is_idle = True

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        found = await super()._get(key, traces)
        if found is not None and isinstance(found.protocol, _Handler):
            found.protocol.is_idle = False
        return found
