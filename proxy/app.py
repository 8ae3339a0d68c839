"""The composition root: one process that serves, or several under a supervisor. Everything is started and stopped here."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import uvloop

from proxy import log
from proxy.core.clock import SystemClock
from proxy.core.metrics import Registry
from proxy.core.protocols import Emit, Services
from proxy.gateway import Gateway
from proxy.http.admin import AdminPlane
from proxy.pressure import descriptors
from proxy.reload import Reload
from proxy.secrets import resolve
from proxy.settings import Loaded, Settings
from proxy.sockets import bind, bind_several, handed_over, is_exposed
from proxy.supervisor import Supervisor

__all__ = ["Gateway", "Ready", "serve"]


@dataclass(frozen=True, slots=True)
class Ready:
    """What a started gateway says of itself. `listen` and `admin` are URLs."""

    listen: str
    admin: str
    providers: list[str]
    models: list[str]


def serve(loaded: Loaded, *, ready: Callable[[Ready], None], load: Callable[[], Loaded]) -> int:
    """Run until SIGTERM or SIGINT; `ready` is told once requests can come, `load` reads the configuration again. Returns the exit status.

    Raises OSError where an address cannot be had, SecretError where the administrator's key cannot.
    """
    writer = log.writer_for()
    log.configure(writer)
    writer.start()
    descriptors()
    given = handed_over(os.environ)
    run = _alone if loaded.settings.server.workers == 1 else _supervised
    try:
        return uvloop.run(run(_Opened(loaded.settings, given), ready, load, writer))
    finally:
        writer.stop()


class _Opened:
    """The listening sockets, made here or handed over."""

    def __init__(self, settings: Settings, given: dict[str, Any]) -> None:
        server = settings.server
        self.settings = settings
        self.admin_key = None if server.admin_key is None else resolve(server.admin_key, os.environ)
        self.given = "data" in given
        self.admin = given.get("admin") or bind(*server.admin_address)
        try:
            if self.given:
                self.data = [given["data"]] * server.workers
            elif server.workers == 1:
                self.data = [bind(*server.address)]
            else:
                self.data = bind_several(*server.address, server.workers)
        except OSError:
            self.admin.close()
            raise
        scheme = "http" if server.tls is None else "https"
        self.urls = (url(scheme, self.data[0].getsockname()), url("http", self.admin.getsockname()))


async def _alone(opened: _Opened, ready: Callable[[Ready], None], load: Callable[[], Loaded], emit: Emit) -> int:
    signals = Signals()
    gateway = Gateway(opened.settings, environ=os.environ, emit=emit, exposed=is_exposed(opened.data[0]))

    async def numbers() -> Registry:
        return gateway.metrics

    await gateway.start(opened.data[0])
    admin = AdminPlane(numbers, lambda: {"status": gateway.state}, key=opened.admin_key)
    return await _run(gateway, admin, signals, opened, ready, load)


async def _supervised(opened: _Opened, ready: Callable[[Ready], None], load: Callable[[], Loaded], emit: Emit) -> int:
    signals = Signals()
    services = Services(SystemClock(), Registry(), emit)
    supervisor = Supervisor(opened.settings, opened.data, services, given=opened.given)
    await supervisor.start()
    admin = AdminPlane(supervisor.numbers, lambda: {"status": supervisor.state, "workers": supervisor.workers}, key=opened.admin_key)
    return await _run(supervisor, admin, signals, opened, ready, load)


async def _run(
    serving: Gateway | Supervisor,
    admin: AdminPlane,
    signals: Signals,
    opened: _Opened,
    ready: Callable[[Ready], None],
    load: Callable[[], Loaded],
) -> int:
    signals.reload = Reload(opened.settings, load=load, put=serving.reload, metrics=serving.metrics)
    signals.hurry = serving.hurry
    try:
        await admin.start(opened.admin)
        ready(Ready(*opened.urls, *serving.described))
        await signals.stopped.wait()
    finally:
        await serving.stop()
        await admin.stop()
    return 0


class Signals:
    """SIGTERM and SIGINT stop, the second of them at once. SIGHUP reads the configuration again. None of them harms a start."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.reload: Callable[[], Awaitable[bool]] | None = None
        self.hurry: Callable[[], None] | None = None
        self._reloads: set[asyncio.Future[bool]] = set()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._again)

    def _stop(self) -> None:
        if self.stopped.is_set() and self.hurry is not None:
            self.hurry()
        self.stopped.set()

    def _again(self) -> None:
        if self.reload is None or self.stopped.is_set():
            return
        task = asyncio.ensure_future(self.reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)


def url(scheme: str, address: Any) -> str:
    """The address of a socket as clients write it."""
    if not isinstance(address, tuple):
        return f"unix:{address}"
    host, port = address[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
