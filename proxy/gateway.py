"""One process's gateway: it listens, changes its configuration while it serves, and stops without losing a request."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import proxy.trust  # noqa: F401 - before anything else imports aiohttp
from proxy.core import events
from proxy.core.clock import SystemClock
from proxy.core.errors import CapacityError
from proxy.core.metrics import Registry
from proxy.core.protocols import Clock, Emit, Services
from proxy.door import Door
from proxy.handshake import Terms
from proxy.health import require_listed
from proxy.http.backstop import report
from proxy.http.certificate import Shown, context_for
from proxy.http.data_plane import DataPlane
from proxy.http.forwarded import Proxies
from proxy.http.listener import Listener
from proxy.interpreter import require_extensions, settle_garbage, uncollected
from proxy.loop import LagMeter, Watchdog
from proxy.pressure import Pressure, descriptors
from proxy.recollection import Recollection
from proxy.settings import ServerSettings, Settings
from proxy.settings.access import is_open, is_said_open, needs_storage, stored_credentials
from proxy.snapshot import Groundwork, Snapshot, groundwork
from proxy.sockets import bind
from proxy.standing import Standing
from proxy.turns import PATIENCE, Turns

if TYPE_CHECKING:
    from proxy.keeping import Keeper

#: Seconds between two looks whether a configuration that was replaced is still in use.
_RETIRING = 0.25

#: How long the last bytes to clients may take after their requests were given up, in seconds.
_FLUSH = 1.0

#: What a client that must come back later is told to wait, in seconds.
_RETRY_AFTER = 1.0

#: File descriptors that are no connections: the log, the listeners, the event loop's own.
_SPARE = 64


@dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration that can be served by, the storage that it uses, and the certificate that it shows (None: the same)."""

    snapshot: Snapshot
    keeper: Keeper | None
    tls: ssl.SSLContext | None


class Gateway:
    """One process's gateway. `start`, `reload` and `stop` it in an event loop; `stop` it once."""

    def __init__(
        self,
        settings: Settings,
        *,
        environ: Mapping[str, str],
        emit: Emit,
        clock: Clock | None = None,
        exposed: bool | None = None,
    ) -> None:
        """`exposed`: whether other machines reach its listener; None: as the configuration has it.

        Raises RuntimeError for storage that cannot be used.
        """
        self.metrics = Registry()
        self._environ = environ
        self._services = services = Services(clock or SystemClock(), self.metrics, emit)
        self.recollection = Recollection(services.recent, services.clock)
        self.whereabouts = services.whereabouts
        self.unpaid = services.unpaid
        self._exposed = exposed
        self._keeper = _keeping()(settings, environ, services.clock, self.metrics) if needs_storage(settings, exposed=exposed) else None
        #: Held from where a change is prepared to where it is taken or dropped: there is one at a time.
        self._changing = Turns()
        self._current = Snapshot(settings, environ, self._lent(self._keeper), exposed=exposed)
        self._retired: list[Snapshot] = []
        self._retiring: asyncio.Task[None] | None = None
        self._ready = False
        self._hurry = asyncio.Event()
        tls = context_for(settings.server.tls)
        self._shown = None if tls is None else Shown(tls)
        self.standing = Standing(self._services, exposed=exposed)
        self._plane = DataPlane(
            self._current.serving,
            clock=self._services.clock,
            metrics=self.metrics,
            state=lambda: self.state,
            report=report,
            told=self.standing.told,
        )
        self._listener: Listener | None = None
        self._door: Door | None = None
        self._lag = LagMeter(self.metrics)
        self._watchdog = Watchdog(self._lag, self.metrics)
        self._pressure = Pressure(self.metrics, self._plane.shed)

    @property
    def settings(self) -> Settings:
        return self._current.settings

    @property
    def state(self) -> str:
        """`ready`; `draining` once it is being stopped; `keys_unavailable` while it asks for keys and has never seen the database."""
        if not self._ready:
            return "draining"
        if self._keeper is None or self._keeper.is_open or is_open(self.settings, exposed=self._exposed):
            return "ready"
        return "keys_unavailable"

    @property
    def described(self) -> tuple[list[str], list[str]]:
        """The names of its providers, and of the models in its table."""
        return list(self._current.upstreams), list(self._current.table.targets)

    def numbers(self) -> Registry:
        """What was counted, with what is only looked at when somebody asks."""
        self.standing.count()
        return self.metrics

    # -- start --

    async def start(self, listening: socket.socket | None = None, *, validates: bool = False, stored: bool = False) -> None:
        """Serve the data plane on `listening`, or where the configuration says.

        `validates`: providers are asked before that, where the configuration wants it, whether they have its models. `stored`: something
        was stored before, which is used also where no storage is needed. Raises OSError where that address cannot be had, RuntimeError
        where the storage that is needed cannot, or where they do not.
        """
        require_extensions()
        if self._keeper is not None:
            await self._keeper.start()
        server = self.settings.server
        plane = self._plane
        self._listener = Listener(plane, plane.refuse, most=1, most_per_address=1, options={}, too_many=plane.turn_away)
        self._bound(server)
        tls = None if self._shown is None else Terms(self._shown.listening, self._listener, server.header_timeout)
        self._door = Door(listening or bind(*server.address), self._listener, metrics=self.metrics, tls=tls)
        if stored_credentials(self.settings):
            await self.reload(self.settings)  # what was made before the storage was open has none of the keys in it
        elif self._keeper is not None or not (stored and await self._took_up()):
            self._say()
            self._watch()
        if validates:
            await self._require_listed(self._current)
        await self._door.open()
        self._lag.start()
        self._watchdog.start()
        self._pressure.start()
        self._ready = True
        settle_garbage()

    async def _took_up(self) -> bool:
        """Whether what was stored before is used. Whoever needs no storage starts without it as well."""
        try:
            await self.keeper()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, clients without a key are served
            events.error("storage_unusable", reason=str(error), hint="no client's key is known until it is mended")
            return False
        return True

    def _watch(self) -> None:
        """Have the providers of the configuration in force checked."""
        answers = None if self._keeper is None else self._keeper.database.answers
        self.standing.use(self.settings, self._current.table, self._current.upstreams, answers)

    async def _require_listed(self, made: Snapshot) -> None:
        try:
            await require_listed(made.settings, made.table, made.upstreams, self._services.clock)
        except BaseException:
            await made.close(but=[self._current, *self._retired])
            raise

    def _bound(self, server: ServerSettings) -> None:
        """Put the limits of connections into force, for those that are made from now on."""
        assert self._listener is not None
        free = descriptors()
        pools = sum(getattr(getattr(section, "pool", None), "connections", 0) for section in self.settings.providers.values())
        # Requests need a second descriptor, for their provider: a quarter of all is kept for that, unless the pools are smaller.
        self._listener.most = max(1, min(server.max_connections, free - min(free // 4, pools) - _SPARE))
        self._listener.most_per_address = server.max_connections_per_address
        self._listener.proxies = Proxies(server.trusted_proxies) if server.trusted_proxies else None
        self._services.recent.resize(server.recent_requests)
        self._listener.options = {
            "header_timeout": server.header_timeout,
            "keepalive_timeout": server.keep_alive,
            "access_log": None,
            "auto_decompress": False,
        }
        self._pressure.most = server.max_memory

    # -- reload --

    async def reload(self, settings: Settings) -> None:
        """Serve by `settings` from now on. Requests in flight keep what they began with. Whatever this raises, nothing has changed."""
        self.take(await self.prepare(settings))

    async def prepare(self, settings: Settings) -> Prepared:
        """Build what serving by `settings` takes. Whatever this raises, nothing has changed.

        What it returns is for `take` or `drop`, whatever happens: until then every other change waits.
        """
        await self._changing.acquire()
        try:
            return await self._prepare(settings, stores=needs_storage(settings, exposed=self._exposed))
        except BaseException:
            self._changing.release()
            raise

    async def _prepare(self, settings: Settings, *, stores: bool) -> Prepared:
        """With the storage that is there; else, where it `stores`, with a new one, which is opened and not yet ours."""
        # A certificate that does not fit its key is found before anything changes. Nobody has asked for another where the settings stay.
        tls = None if settings is self.settings else context_for(settings.server.tls)
        keeper = await self._opened_keeper(settings) if self._keeper is None and stores else self._keeper
        try:
            ground = await self._groundwork(settings, keeper)
            lent = self._lent(keeper)
            made = Snapshot(settings, self._environ, lent, before=self._current, exposed=self._exposed, ground=ground)
            if self.standing.checker.asks and settings is not self.settings:
                await self._require_listed(made)
        except BaseException:
            await self._drop_keeper(keeper)
            raise
        return Prepared(made, keeper, tls)

    async def _groundwork(self, settings: Settings, keeper: Keeper | None) -> Groundwork:
        """A thread's work, but for the keys in the store, which are read before."""
        if keeper is not None:
            await keeper.read_credentials(settings)
        store = None if keeper is None else keeper.secrets
        return await asyncio.to_thread(groundwork, settings, self._environ, store, before=self._current)

    async def _renew(self) -> None:
        """Serve with other keys where the store has others now."""
        async with self._changing:
            keeper, settings = self._keeper, self.settings
            if keeper is None or not self._current.followed.differs(keeper.secrets):
                return
            self._take(await self._prepare(settings, stores=False))
        events.info("credentials_renewed")

    def take(self, prepared: Prepared) -> None:
        """Serve by what was prepared."""
        try:
            self._take(prepared)
        finally:
            self._changing.release()

    def _take(self, prepared: Prepared) -> None:
        before, settings = self._current, prepared.snapshot.settings
        if self._shown is not None and prepared.tls is not None:
            self._shown.now = prepared.tls
        self._keeper = prepared.keeper
        if self._keeper is not None:
            self._keeper.note(settings)
            self._keeper.watch_credentials(lambda: self.settings, self._renew)
        self._current = prepared.snapshot
        self._current.succeed(before)
        self._say()
        self._plane.serving = self._current.serving
        self._bound(settings.server)
        self._watch()
        self._retired.append(before)
        if self._retiring is None or self._retiring.done():
            self._retiring = asyncio.create_task(self._retire())

    async def drop(self, prepared: Prepared) -> None:
        """Go on as before."""
        try:
            await prepared.snapshot.close(but=[self._current, *self._retired])
            await self._drop_keeper(prepared.keeper)
        finally:
            self._changing.release()

    async def _drop_keeper(self, keeper: Keeper | None) -> None:
        if keeper is not None and keeper is not self._keeper:
            await keeper.close()

    async def _opened_keeper(self, settings: Settings) -> Keeper:
        made = (await asyncio.to_thread(_keeping))(settings, self._environ, self._services.clock, self.metrics)
        try:
            await made.open()
        except BaseException:
            await made.close()
            raise
        return made

    def _lent(self, keeper: Keeper | None) -> Services:
        """What policies get to work with."""
        return self._services if keeper is None else keeper.lend(self._services)

    def _say(self) -> None:
        """What its operator should know of the configuration that is in force now."""
        settings = self.settings
        self._current.say_missing()
        if is_said_open(settings):
            hint = "whoever reaches this address uses your providers' accounts; policies: {authenticate: {open: false}} asks for keys"
            events.warning("open_to_everyone", listen=settings.server.listen, hint=hint)

    async def keeper(self) -> Keeper:
        """The storage, opened for who administers it; from then on keys that are shown are looked up there. Raises CapacityError."""
        if (there := self._keeper) is not None:
            return there
        async with self._changing:
            if self._keeper is None:
                self._take(await self._prepare(self.settings, stores=True))
            assert self._keeper is not None
            return self._keeper

    async def _retire(self) -> None:
        """Close what replaced configurations hold, each when its last request has ended."""
        while self._retired:
            await asyncio.sleep(_RETIRING)
            for snapshot in [snapshot for snapshot in self._retired if not self._plane.serves(snapshot.serving)]:
                self._retired.remove(snapshot)
                await snapshot.close(but=[self._current, *self._retired])

    # -- stop --

    def hurry(self) -> None:
        """Make a `stop` that is under way end at once."""
        self._hurry.set()

    async def stop(self) -> None:
        """Take no new requests, let running ones finish within the grace time, give up the rest: each gets its answer and its record."""
        self._ready = False
        self.standing.checker.stop()
        server = self.settings.server
        events.info("stopping", requests=self._plane.in_flight, grace=server.grace)
        await self._pause(server.drain_delay)
        if self._door is not None:
            self._door.close()
        interrupted = 0
        if self._listener is not None:
            self._plane.drain()
            empty = self._listener.drain()
            if not await self._emptied(empty, server.grace):
                self._plane.shed("The gateway is shutting down.")
                interrupted = self._plane.interrupt(
                    CapacityError("The gateway is shutting down.", code="shutting_down", retry_after=_RETRY_AFTER)
                )
                self._listener.drain()
                await self._flushed(empty)
        await self._release()
        events.info("stopped", interrupted=interrupted)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass

    async def _emptied(self, empty: asyncio.Event, seconds: float) -> bool:
        waiting = [asyncio.ensure_future(event.wait()) for event in (empty, self._hurry)]
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        return empty.is_set()

    async def _flushed(self, empty: asyncio.Event) -> None:
        assert self._listener is not None
        try:
            async with asyncio.timeout(_FLUSH):
                await empty.wait()
        except TimeoutError:
            self._listener.abort()

    async def _release(self) -> None:
        self._pressure.stop()
        self._watchdog.stop()
        self._lag.stop()
        await self._changing.end(PATIENCE)
        if self._retiring is not None:
            self._retiring.cancel()
        for snapshot in (self._current, *self._retired):
            await snapshot.close()
        if self._keeper is not None:
            await self._keeper.close()


def _keeping() -> type[Keeper]:
    """The database's part, imported for the first configuration that needs it; while requests are served, that is a thread's work."""
    with uncollected():
        from proxy.keeping import Keeper

        return Keeper
