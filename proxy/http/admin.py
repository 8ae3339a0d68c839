"""The admin plane: metrics in Prometheus' text form, and health. On its own port, loopback by default.

What is served beside these is loaded for the first who asks for it; see `Desk`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from proxy.core.late import Late
from proxy.core.metrics import Registry
from proxy.door import Door
from proxy.http.backstop import backstop
from proxy.http.callers import Callers, Patience
from proxy.http.guard import GUARD, MOST, Guard

if TYPE_CHECKING:
    from proxy.http.api import Desk
    from proxy.http.exposition import Exposition

#: The numbers of now, of this process or of several.
Numbers = Callable[[], Awaitable[Registry]]

#: What `/readyz` tells; `status` is `ready` or `draining`.
State = Callable[[], dict[str, Any]]

#: What answers one path.
Page = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminPlane:
    """The admin plane's server."""

    def __init__(self, numbers: Numbers, state: State, *, key: str | None = None, desk: Callable[[], Desk]) -> None:
        app = admin_app(numbers, state, key=key, desk=desk)
        self._guard = app[GUARD]
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._patience = Patience()
        self._callers: Callers | None = None
        self._door: Door | None = None

    async def start(self, listening: socket.socket) -> None:
        await self._runner.setup()
        assert self._runner.server is not None
        self._callers = Callers(self._runner.server)
        self._callers.patience = self._patience
        self._door = Door(listening, self._callers)
        await self._door.open()

    def wait_for(self, patience: Patience) -> None:
        """Have this patience with connections that are made from now on."""
        self._patience = patience
        if self._callers is not None:
            self._callers.patience = patience

    def ask_for(self, key: str | None) -> None:
        """Ask for another key from now on, or for none."""
        self._guard.ask_for(key)

    async def stop(self) -> None:
        if self._door is not None:
            self._door.close()
        await self._runner.cleanup()


def admin_app(numbers: Numbers, state: State, *, key: str | None = None, desk: Callable[[], Desk]) -> web.Application:
    """The admin plane's application. With a `key`, everything asks for it but short answers about health and what describes the endpoints.

    That is `/healthz`, `/readyz` without `verbose`, `/openapi.json`, and `/admin/docs` with its files. The key may change: see `GUARD`.
    `desk` makes what is served beside numbers and health, for the first who asks for any of that.
    """
    check = Guard(key)
    exposition, writing = Late(_exposition), asyncio.Lock()

    async def metrics(request: web.Request) -> web.Response:
        if check.has_key:
            check(request)
        async with writing:  # one after the other: scrapes in step would share the processor with requests
            write = (await exposition()).written
            written, kind = await asyncio.to_thread(write, (await numbers()).dump(), request.headers.get("Accept", ""))
        return web.Response(body=written, headers={"Content-Type": kind})

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readiness(request: web.Request) -> web.Response:
        found = state()
        if "verbose" in request.query:
            check(request)
            found |= await (await opened()).told()
        return web.json_response(found, status=200 if found["status"] == "ready" else 503)

    async def others(request: web.Request) -> web.StreamResponse:
        return await (await opened()).answer(request)

    own: dict[str, Page] = {"/metrics": metrics, "/healthz": health, "/readyz": readiness}
    opened = Late(lambda: desk().opened(check, own))
    app = web.Application(client_max_size=MOST, middlewares=[backstop])
    app[GUARD] = check
    for path, page in own.items():
        app.router.add_get(path, page)
    app.router.add_route("*", r"/{other:[\s\S]*}", others)  # a name may hold whatever a path can say, a line's end too
    return app


def _exposition() -> Exposition:
    from proxy.http.exposition import Exposition

    return Exposition()
