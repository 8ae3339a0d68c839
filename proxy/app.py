"""The composition root: one process that serves, or several under a supervisor. Everything is started and stopped here."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import uvloop

from proxy import hangup, log
from proxy.core.clock import SystemClock
from proxy.core.errors import CapacityError
from proxy.core.metrics import Registry
from proxy.core.protocols import Emit, Services
from proxy.gateway import Gateway
from proxy.health import require_listed
from proxy.http.admin import AdminPlane, Numbers, State
from proxy.http.callers import Patience
from proxy.http.certificate import context_for
from proxy.pressure import descriptors
from proxy.reload import FileWatch, Reload
from proxy.secrets import SecretError, resolve
from proxy.settings import Loaded, ServerSettings, Settings
from proxy.settings.storage import StorageSettings, is_there
from proxy.snapshot import Snapshot
from proxy.sockets import bind, bind_several, handed_over, is_exposed
from proxy.turns import PATIENCE, Turns

if TYPE_CHECKING:
    from proxy.http.api import Desk
    from proxy.http.providers import Standings
    from proxy.keeping import Keeper
    from proxy.supervisor import Supervisor

#: Reads a configuration's file (None: the one that the process was started with, if any), as the start does.
Load: TypeAlias = Callable[[Path | None], Loaded]

__all__ = ["Gateway", "Ready", "serve"]


@dataclass(frozen=True, slots=True)
class Ready:
    """What a started gateway says of itself. `listen` and `admin` are URLs."""

    listen: str
    admin: str
    providers: list[str]
    models: list[str]


def serve(loaded: Loaded, *, ready: Callable[[Ready], None], load: Load) -> int:
    """Run until SIGTERM or SIGINT; `ready` is told once requests can come, `load` reads a configuration's file. Returns the exit status.

    Raises OSError where an address cannot be had (its `filename`), SecretError where the administrator's key cannot.
    """
    writer = log.writer_for()
    log.configure(writer)
    writer.start()
    descriptors()
    given = handed_over(os.environ)
    run = _alone if loaded.settings.server.workers == 1 else _supervised
    try:
        return uvloop.run(run(_Opened(loaded, given), ready, load, writer))
    finally:
        # The loop has handed them back to the system: the exit status is no longer theirs to change.
        for number in Signals.NUMBERS:
            signal.signal(number, signal.SIG_IGN)
        writer.stop()


class _Opened:
    """The listening sockets, made here or handed over."""

    def __init__(self, loaded: Loaded, given: dict[str, Any]) -> None:
        server = loaded.settings.server
        self.loaded = loaded
        self.settings = loaded.settings
        self.file = loaded.file
        self.given = "data" in given
        with _named(server.admin_listen):
            self.admin = given.get("admin") or bind(*server.admin_address)
        try:
            self.admin_key = _admin_key(server, self.admin)
            if self.given:
                self.data = [given["data"]] * server.workers
            else:
                with _named(server.listen):
                    self.data = [bind(*server.address)] if server.workers == 1 else bind_several(*server.address, server.workers)
        except (OSError, SecretError):
            self.admin.close()
            raise
        scheme = "http" if server.tls is None else "https"
        self.urls = (url(scheme, self.data[0].getsockname()), url("http", self.admin.getsockname()))


@contextmanager
def _named(address: str) -> Iterator[None]:
    """An OSError says as its `filename` which address could not be had."""
    try:
        yield
    except OSError as error:
        error.filename = address
        raise


def _admin_key(server: ServerSettings, listening: socket.socket) -> str | None:
    """What the administration on `listening` asks for. Raises SecretError where it cannot be had, OSError where one is needed."""
    key = None if server.admin_key is None else resolve(server.admin_key, os.environ)
    if key is None and is_exposed(listening):
        # The configuration was checked for the address that it names: the socket may be bound to another, handed over or from before.
        raise OSError("the administration's socket can be reached from other machines, and there is no key: set server.admin_key")
    return key


async def _alone(opened: _Opened, ready: Callable[[Ready], None], load: Load, emit: Emit) -> int:
    signals = Signals()
    gateway = Gateway(opened.settings, environ=os.environ, emit=emit, exposed=is_exposed(opened.data[0]))

    async def numbers() -> Registry:
        return gateway.numbers()

    async def standings() -> list[dict[str, Any]]:
        return [{"worker": 0, **await gateway.standing.now()}]

    await gateway.start(opened.data[0], validates=True, stored=is_there(os.environ))
    served = _Served(gateway, gateway.reload, gateway.keeper, numbers, lambda: {"status": gateway.state}, standings)
    return await _run(served, signals, opened, ready, load)


async def _supervised(opened: _Opened, ready: Callable[[Ready], None], load: Load, emit: Emit) -> int:
    from proxy.supervisor import Supervisor

    signals = Signals()
    services = Services(SystemClock(), Registry(), emit)
    await _validated(opened.settings, services)
    context_for(opened.settings.server.tls)  # raises once, where each worker would
    supervisor = Supervisor(opened.settings, opened.data, services, given=opened.given)
    await supervisor.start(signals.stopped)
    if signals.stopped.is_set():
        opened.admin.close()
        return 0
    cabinet = Cabinet(supervisor)

    def state() -> dict[str, Any]:
        return {"status": supervisor.state, "workers": supervisor.workers}

    served = _Served(supervisor, cabinet.reload, cabinet.keeper, supervisor.numbers, state, supervisor.standings, cabinet.close)
    return await _run(served, signals, opened, ready, load)


async def _validated(settings: Settings, services: Services) -> None:
    """What the one process of a gateway without workers asks the providers before it starts. Raises RuntimeError."""
    if settings.health.unlisted_models == "refuse":
        tried = Snapshot(settings, os.environ, Services(services.clock, Registry(), services.emit))
        try:
            await require_listed(settings, tried.table, tried.upstreams, services.clock)
        finally:
            await tried.close()


@dataclass(frozen=True, slots=True)
class _Served:
    """Who serves, what the admin plane asks of it, and what is closed after it has stopped."""

    serving: Gateway | Supervisor
    put: Callable[[Settings], Awaitable[None]]
    keeper: Callable[[], Awaitable[Keeper]]
    numbers: Numbers
    state: State
    standings: Standings
    close: Callable[[], Awaitable[None]] | None = None


class Cabinet:
    """The storage of a process that serves nobody itself: opened when it is first asked for, and then by every worker."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._changing = Turns()
        self._keeper: Keeper | None = None

    async def keeper(self) -> Keeper:
        """Raises CapacityError once the gateway shuts down, RuntimeError where it cannot be used."""
        async with self._changing:
            if self._keeper is None:
                try:
                    self._keeper = await self._opened()
                except RuntimeError as error:
                    if self._supervisor.state != "draining":
                        raise
                    # Workers that end refuse whatever they are told: nothing is wrong with the storage.
                    raise CapacityError("The gateway is shutting down.", code="shutting_down") from error
        return self._keeper

    async def _opened(self) -> Keeper:
        from proxy.keeping import Keeper

        settings = _storing(self._supervisor.settings)
        made = Keeper(settings, os.environ, SystemClock(), self._supervisor.metrics)
        try:
            await made.open()
            if settings is not self._supervisor.settings:
                await self._supervisor.reload(settings)
        except BaseException:
            await made.close()
            raise
        return made

    async def reload(self, settings: Settings) -> None:
        """As the supervisor does it. Workers that have the storage keep it, and so do those that are started in their place."""
        async with self._changing:
            try:
                await self._supervisor.reload(settings if self._keeper is None else _storing(settings))
            except RuntimeError as error:
                if self._supervisor.state != "draining":
                    raise
                raise CapacityError("The gateway is shutting down.", code="shutting_down") from error

    async def close(self) -> None:
        """What is just being opened is waited for: connecting to a database is not to be broken off."""
        await self._changing.end(PATIENCE)
        if self._keeper is not None:
            await self._keeper.close()


def _storing(settings: Settings) -> Settings:
    """The same with storage: where the configuration says nothing of it, at the default place."""
    return settings if settings.storage is not None else settings.model_copy(update={"storage": StorageSettings()})


async def _run(served: _Served, signals: Signals, opened: _Opened, ready: Callable[[Ready], None], load: Load) -> int:
    serving = served.serving

    async def put(settings: Settings) -> None:
        try:
            key = await asyncio.to_thread(_admin_key, settings.server, opened.admin)  # a file's, or a keyring's
        except SecretError as error:
            raise SecretError(f"server.admin_key: {error}") from None
        await served.put(settings)
        admin.ask_for(key)
        admin.wait_for(_patience(settings.server))

    def read() -> Loaded:
        return load(opened.file)

    over = asyncio.Event()
    reload = Reload(opened.loaded, load=read, put=put, metrics=serving.metrics, is_over=over.is_set)
    signals.hurry = serving.hurry

    def desk() -> Desk:
        from proxy import administration

        return administration.desk(served, opened.file, load, reload)

    admin = AdminPlane(served.numbers, served.state, key=opened.admin_key, desk=desk)
    admin.wait_for(_patience(opened.settings.server))
    watch = FileWatch(opened.file, opened.loaded.mark, reload) if opened.file is not None and opened.settings.server.watch else None
    try:
        await admin.start(opened.admin)
        if watch is not None:
            watch.start()
        ready(Ready(*opened.urls, *serving.described))
        signals.obey(reload)
        await signals.stopped.wait()
    finally:
        if watch is not None:
            watch.stop()
        await serving.stop()
        over.set()
        if served.close is not None:
            await served.close()
        await admin.stop()
    return 0


def _patience(server: ServerSettings) -> Patience:
    """What the admin plane has with who connects, which is the data plane's."""
    return Patience(head=server.header_timeout, idle=server.keep_alive)


class Signals:
    """SIGTERM and SIGINT stop, the second of them at once. SIGHUP reads the configuration again. None of them harms a start."""

    NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self._reload: Callable[[], Awaitable[bool]] | None = None
        self._is_owed = False
        self.hurry: Callable[[], None] | None = None
        self._reloads: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._again)
        hangup.take()

    def obey(self, reload: Callable[[], Awaitable[bool]]) -> None:
        """Call `reload` for each SIGHUP from now on, and once for those that came while all was started."""
        self._reload = reload
        if self._is_owed:
            self._again()

    def _stop(self) -> None:
        if self.stopped.is_set() and self.hurry is not None:
            self.hurry()
        self.stopped.set()

    def _again(self) -> None:
        if self.stopped.is_set():
            return
        if self._reload is None:
            self._is_owed = True
            return
        task = asyncio.create_task(self._read_again(self._reload))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _read_again(self, reload: Callable[[], Awaitable[bool]]) -> None:
        """One after the other, and none that has waited until the gateway stops."""
        async with self._turn:
            if not self.stopped.is_set():
                await reload()


def url(scheme: str, address: Any) -> str:
    """The address of a socket as clients write it."""
    if not isinstance(address, tuple):
        return f"unix:{address}"
    host, port = address[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
