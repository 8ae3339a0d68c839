"""The composition root: everything is built, started and stopped here, and nothing anywhere else."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
import uvloop
from aiohttp import http, http_parser

import policies
import providers
from policies.route import Route, Table
from providers.settings import NetworkSettings
from proxy import log
from proxy.catalogue import Catalogue, table_of
from proxy.core.call import Credential, Timeouts
from proxy.core.clock import SystemClock
from proxy.core.metrics import Registry
from proxy.core.protocols import Clock, Emit, Handler, Policy, Services, Transport
from proxy.dispatch import Dispatch, Upstream
from proxy.fields import Section
from proxy.http.admin import AdminPlane
from proxy.http.data_plane import DataPlane, EdgeLimits
from proxy.http.models import Models
from proxy.http.server import Listener, bind
from proxy.loop import LagMeter
from proxy.pipeline import INSTALLED, PER_ATTEMPT, PER_REQUEST, compose, receive
from proxy.secrets import SecretError, resolve
from proxy.settings import Settings
from proxy.transport import ClientTransport, PinnedResolver, PooledTransport


@dataclass(frozen=True, slots=True)
class Ready:
    """What a started gateway says of itself. `listen` and `admin` are URLs."""

    listen: str
    admin: str
    providers: list[str]
    models: list[str]


class Gateway:
    """One process's gateway. `start` and `stop` it in an event loop."""

    def __init__(self, settings: Settings, *, environ: Mapping[str, str], emit: Emit, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.metrics = Registry()
        self.table: Table = table_of(settings)
        self.upstreams = {name: build_upstream(name, section, environ, self.clock) for name, section in settings.providers.items()}
        self._services = Services(self.clock, self.metrics, emit)
        self._ready = False
        self._servers: list[asyncio.Server] = []
        self._admin = AdminPlane(self.metrics)
        self._listener: Listener | None = None
        self._lag = LagMeter(self.metrics)

    # -- building --

    def _policy(self, name: str) -> list[Policy]:
        """A built-in or installed policy with its settings; none where it is switched off."""
        kind = policies.kinds()[name]
        section = self.settings.policies.get(name)
        return [] if section is False else [kind(section if section is not None else kind.Settings(), self._services)]

    def _installed(self, *, per_attempt: bool) -> list[Policy]:
        kinds = policies.kinds()
        names = [name for name in self.settings.policies if name not in policies.BUILT_IN]
        return [policy for name in names if getattr(kinds[name], "per_attempt", False) is per_attempt for policy in self._policy(name)]

    def _chain(self, names: tuple[str, ...], innermost: Handler) -> Handler:
        fixed: dict[str, list[Policy]] = {
            "receive": [receive],
            "route": [Route(self.table, self.upstreams)],
            INSTALLED: self._installed(per_attempt=names is PER_ATTEMPT),
        }
        return compose([policy for name in names for policy in (fixed[name] if name in fixed else self._policy(name))], innermost)

    def _data_plane(self) -> DataPlane:
        server = self.settings.server
        dispatch = Dispatch(self.upstreams, self.clock, self.metrics)
        gateway = self._chain(PER_REQUEST, self._chain(PER_ATTEMPT, dispatch))
        onward = self._chain(PER_REQUEST[1:], self._chain(PER_ATTEMPT, dispatch))
        models = self._chain(("record",), Models(Catalogue(self.table, self.upstreams, self.clock), onward))
        return DataPlane(
            gateway,
            {"models": models},
            limits=EdgeLimits(server.max_body, server.body_timeout, server.write_timeout, server.ping or float("inf")),
            clock=self.clock,
            metrics=self.metrics,
            is_ready=lambda: self._ready,
            report=_report,
        )

    # -- life --

    async def start(self) -> Ready:
        """Listen. Raises OSError where an address cannot be had."""
        require_extensions()
        server = self.settings.server
        plane = self._data_plane()
        self._listener = Listener(
            plane,
            plane.refuse,
            most=server.max_connections,
            most_per_address=server.max_connections_per_address,
            options={
                "header_timeout": server.header_timeout,
                "keepalive_timeout": server.keep_alive,
                "access_log": None,
                "auto_decompress": False,
            },
        )
        loop = asyncio.get_running_loop()
        data = bind(*server.address)
        self._servers.append(await loop.create_server(self._listener, sock=data, ssl=_tls(self.settings)))
        admin = bind(*server.admin_address)
        await self._admin.start(admin)
        self._lag.start()
        self._ready = True
        settle_garbage()
        scheme = "http" if server.tls is None else "https"
        return Ready(
            _url(scheme, server.address.host, data.getsockname()[1]),
            _url("http", server.admin_address.host, admin.getsockname()[1]),
            list(self.upstreams),
            list(self.table.targets),
        )

    async def stop(self) -> None:
        """Stop accepting, let running requests finish within the grace time, close the rest."""
        self._ready = False
        self._lag.stop()
        for server in self._servers:
            server.close()
        if self._listener is not None:
            await self._listener.shutdown(self.settings.server.grace)
        for upstream in self.upstreams.values():
            await upstream.transport.close()
        await self._admin.stop()


def build_upstream(name: str, section: Section, environ: Mapping[str, str], clock: Clock) -> Upstream:
    """A provider of the kind that its section names, with its transport and its credentials."""
    kind: Any = providers.kinds()[getattr(section, "kind", name)]
    provider = kind(section)
    if not isinstance(section, NetworkSettings):
        own = getattr(provider, "transport", None)
        if own is None:
            raise TypeError(f"the provider kind {kind.__name__} has neither network settings nor a transport of its own")
        return Upstream(name, provider, own(clock), Timeouts(first_token=None), Timeouts())
    transport = _transport(section)
    return Upstream(
        name,
        provider,
        transport,
        section.timeouts.decided(stream=False),
        section.timeouts.decided(stream=True),
        section.limits.body,
        tuple(_credentials(name, section, environ)),
    )


def _transport(section: NetworkSettings) -> Transport:
    resolver = PinnedResolver(allow_private=section.allow_private)
    limits = {"header_limit": section.limits.header, "body_limit": section.limits.body}
    pool = section.pool
    if section.proxy is None and section.ca is None:
        return PooledTransport(section.base_url, connections=pool.connections, keep_alive=pool.keep_alive, resolver=resolver, **limits)
    return ClientTransport(
        connections=pool.connections, keep_alive=pool.keep_alive, resolver=resolver, proxy=section.proxy, ca=section.ca, **limits
    )


def _credentials(name: str, section: NetworkSettings, environ: Mapping[str, str]) -> list[Credential]:
    found = []
    for reference in section.references:
        try:
            found.append(Credential(reference, resolve(reference, environ)))
        except SecretError as error:
            structlog.get_logger().warning("credential_missing", provider=name, reference=reference, reason=str(error))
    return found


def serve(settings: Settings, *, ready: Callable[[Ready], None]) -> int:
    """Run until SIGTERM or SIGINT; `ready` is told once requests can come. Returns the exit status."""
    writer = log.writer_for()
    log.configure(writer)
    writer.start()
    try:
        return uvloop.run(_serve(settings, ready, writer))
    finally:
        writer.stop()


async def _serve(settings: Settings, ready: Callable[[Ready], None], emit: Emit) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    gateway = Gateway(settings, environ=os.environ, emit=emit)
    try:
        ready(await gateway.start())
        await stopped.wait()
    finally:
        await gateway.stop()
    return 0


def _report(error: BaseException, call_id: str) -> None:
    """A bug: where it is and of what type, without its text, which may hold a client's bytes."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace is not None else "?"
    structlog.get_logger().error("unforeseen", id=call_id, error=type(error).__name__, place=place)


def settle_garbage() -> None:
    """What the start made stays for good: the collector need not look at it again. It also looks less often: requests make few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def require_extensions() -> None:
    """aiohttp without its C parser costs many times more, and is another parser than the one that was tested. Raises RuntimeError."""
    if http.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise RuntimeError("aiohttp was installed without its C extensions; install a binary wheel of it, or build one with a C compiler")


def _tls(settings: Settings) -> ssl.SSLContext | None:
    tls = settings.server.tls
    if tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.paths["certificate"], tls.paths["key"])
    return context


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
