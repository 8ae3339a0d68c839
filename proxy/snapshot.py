"""What a configuration is made into: providers ready to be used, the table that routes to them, the policies around. Built, never changed.

A reload builds another; requests that began with this one end with it, and then its connections are closed.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import policies
import providers
from policies.authenticate import Authenticate
from policies.fallback import Fallback
from policies.hedge import Hedge
from policies.record import Record
from policies.resolve import Resolve
from policies.retry import Retry
from policies.route import Bound, Route
from providers.settings import NetworkSettings, TimeoutSettings
from proxy.catalogue import Catalogue, table_of
from proxy.core import events
from proxy.core.call import Credential
from proxy.core.hierarchy import Hierarchy
from proxy.core.protocols import Clock, Handler, OwnPreferences, Policy, Services, Transport
from proxy.dispatch import Dispatch, Upstream
from proxy.fields import Section
from proxy.http import stranger
from proxy.http.cors import Cors
from proxy.http.llm import Llm
from proxy.http.models import Models
from proxy.http.named_models import Naming, by_path, rename
from proxy.http.serving import EdgeLimits, Serving
from proxy.pipeline import INSTALLED, PER_ATTEMPT, PER_REQUEST, acting, compose, is_off, receive
from proxy.routing.bill import Bill
from proxy.routing.binding import BINDING
from proxy.routing.router import Router
from proxy.routing.table import Table
from proxy.routing.walk import leads_on
from proxy.secrets import Followed, SecretError, Store
from proxy.settings import SIMULATED, Settings
from proxy.settings.access import is_open
from proxy.transport import ClientTransport, PinnedResolver, PooledTransport

#: What stands outside of everything, also of what is answered here.
_ALWAYS = PER_REQUEST[: PER_REQUEST.index("authenticate") + 1]


class Snapshot:
    """One configuration, ready to serve."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        services: Services,
        *,
        before: Snapshot | None = None,
        exposed: bool | None = None,
        ground: Groundwork | None = None,
    ) -> None:
        """Providers that are in `before` with the same settings and the same keys are taken from there, with their connections.

        `exposed` says whether other machines reach the listener; None: as the configuration has it. `ground` is what `groundwork` made of
        `settings`; None: it is made here, and no reference to a key is followed into the store.
        """
        self.settings = settings
        self._exposed = exposed
        ground = ground or groundwork(settings, environ, before=before)
        self.table = ground.table
        # Asked for once: where a plug-in is configured, each time goes through the metadata of everything that is installed.
        same = before if before is not None and before.settings is settings else None
        self._kinds: Mapping[str, Any] = policies.kinds(settings.policies) if same is None else same._kinds
        named = (_kind(name, section) for name, section in settings.providers.items())
        self._providers: Mapping[str, Any] = providers.kinds(named) if same is None else same._providers
        self.followed = find = ground.followed
        self.upstreams = {
            name: _kept(name, section, find, before) or build_upstream(name, section, self._providers, find, services.clock, ground.trust)
            for name, section in settings.providers.items()
        }
        self._services = services
        self._hierarchy = None if settings.llm is None else settings.llm.hierarchy()
        windows = (self._hierarchy or Hierarchy()).context_windows
        self._router = Router(self.table, self.upstreams, services.board, services.clock, windows=windows)
        self._resolve = Resolve(self._hierarchy, services, self._router.may_have)
        self.serving = self._serving()

    def succeed(self, before: Snapshot) -> None:
        """Serve from now on, in the place of `before`."""
        for name, upstream in self.upstreams.items():
            if before.upstreams.get(name, upstream) is not upstream:
                self._services.board.pardon(name)

    def say_missing(self) -> None:
        """Log the keys that were not found."""
        for name, section in self.settings.providers.items():
            for reference in getattr(section, "references", ()):
                if (reason := self.followed.missing.get(reference)) is not None:
                    events.warning("credential_missing", provider=name, reference=reference, reason=reason)

    def _serving(self) -> Serving:
        server, services = self.settings.server, self._services
        # Bound once: an object that is called has its method looked up each time.
        dispatch = Dispatch(self.upstreams, services.clock, services.metrics).__call__
        stages, attempt = self._stages(PER_REQUEST), self._chain(PER_ATTEMPT, dispatch)
        gateway = compose(stages, attempt)
        named = self._named(self._chain(PER_ATTEMPT, dispatch))
        catalogue = Catalogue(self.table, self.upstreams, services.clock)
        models = self._chain(_ALWAYS, Models(catalogue, named, (self._hierarchy or Hierarchy()).allows))
        limits = EdgeLimits(
            max_body=server.max_body,
            max_upload=server.largest_upload,
            body_timeout=server.body_timeout,
            write_timeout=server.write_timeout,
            ping=server.ping or float("inf"),
            max_in_flight=server.max_in_flight,
        )
        tuning = by_path(self._chain(_ALWAYS, named), gateway)
        own = self._chain((*_ALWAYS, "receive"), self._own())
        local = {"models": models, "fine_tuning": tuning, "llm": self._llm(catalogue), "llm_config": own}
        # The same way, and the same policies, but for who keeps what lies at providers in mind, and who chooses the target.
        bill, choose = Bill(services.unpaid), self._bound if len(self.upstreams.keys() - {SIMULATED}) > 1 else None
        bound = [one for each in stages for one in ([bill, choose() if choose else each] if isinstance(each, Route) else [each])]
        local |= dict.fromkeys(BINDING, compose(bound, attempt))
        record = self.settings.policies.get("record", Record.Settings())
        emit = services.emit if isinstance(record, Record.Settings) and record.log else None
        cors = None if server.cors is None else Cors(server.cors.origins, server.cors.max_age)
        return Serving(gateway, local, limits, emit, cors)

    def _named(self, attempt: Handler) -> Handler:
        """What sends a request for the model that its path names, behind who asks: that one it is, so there is no fallback."""
        read = PER_REQUEST.index("receive") + 1
        after = tuple(name for name in PER_REQUEST[read:] if name != "fallback")
        onward = compose([Naming(self.table)], self._chain(after, compose([rename], attempt)))
        return self._chain(PER_REQUEST[len(_ALWAYS) : read], onward)

    def _own(self) -> Handler:
        """Answers about what a user has set for itself, where that is stored."""
        stored = self._services.preferences
        if not isinstance(stored, OwnPreferences):
            return stranger.refuse
        from proxy.http.user_config import UserConfig

        return UserConfig(stored, self._services.clock)

    def _llm(self, listing: Catalogue) -> Handler:
        """Answers about the hierarchy, to whom a request would be received from."""
        passed = [name for names in (PER_REQUEST, PER_ATTEMPT) for name in acting(names, self.settings.policies, self._kinds)]
        answering = Llm(self._resolve, self._hierarchy or Hierarchy(), listing, passed, self._router.candidates)
        return self._chain(PER_REQUEST[: PER_REQUEST.index("receive")], answering)

    def _policy(self, name: str) -> list[Policy]:
        """A built-in or installed policy with its settings; none where it is switched off, or was not asked for."""
        kind = self._kinds[name]
        section = self.settings.policies.get(name)
        return (
            []
            if is_off(name, self.settings.policies, self._kinds)
            else [kind(section if section is not None else kind.Settings(), self._services)]
        )

    def _bound(self) -> Policy:
        section = self.settings.policies.get("fallback", Fallback.Settings())
        most = section.attempts if isinstance(section, Fallback.Settings) else 1
        return Bound(self._router, self._services, most, [name for name in self.upstreams if name != SIMULATED])

    def _fallback(self) -> list[Policy]:
        section = self.settings.policies.get("fallback", Fallback.Settings())
        return [Fallback(section, self._services, self._router)] if isinstance(section, Fallback.Settings) else []

    def _retry(self) -> list[Policy]:
        section = self.settings.policies.get("retry", Retry.Settings())
        if not isinstance(section, Retry.Settings):
            return []
        fallback = self.settings.policies.get("fallback", Fallback.Settings())
        if not isinstance(fallback, Fallback.Settings):
            return [Retry(section, self._services)]
        return [Retry(section, self._services, leads_on=partial(leads_on, self._router, fallback.attempts))]

    def _hedge(self) -> list[Policy]:
        section = self.settings.policies.get("hedge")
        return [Hedge(section, self._services, self._router)] if isinstance(section, Hedge.Settings) else []

    def _authenticate(self) -> list[Policy]:
        section = self.settings.policies.get("authenticate", Authenticate.Settings())
        if not isinstance(section, Authenticate.Settings):
            return []
        decided = section.model_copy(update={"open": is_open(self.settings, exposed=self._exposed)})
        return [Authenticate(decided, self._services)]

    def _installed(self, *, per_attempt: bool) -> list[Policy]:
        kinds = self._kinds
        names = [name for name in self.settings.policies if name not in policies.BUILT_IN]
        return [policy for name in names if getattr(kinds[name], "per_attempt", False) is per_attempt for policy in self._policy(name)]

    def _chain(self, names: tuple[str, ...], innermost: Handler) -> Handler:
        return compose(self._stages(names), innermost)

    def _stages(self, names: tuple[str, ...]) -> list[Policy]:
        fixed: dict[str, list[Policy]] = {
            "authenticate": self._authenticate(),
            "receive": [receive],
            "resolve": [self._resolve],
            "route": [Route(self._router)],
            "fallback": self._fallback(),
            "hedge": self._hedge(),
            "retry": self._retry(),
            INSTALLED: self._installed(per_attempt=names is PER_ATTEMPT),
        }
        return [policy for name in names for policy in (fixed[name] if name in fixed else self._policy(name))]

    async def close(self, *, but: Iterable[Snapshot] = ()) -> None:
        """Close the connections to providers that are in none of the snapshots `but`."""
        kept = {id(upstream) for other in but for upstream in other.upstreams.values()}
        for upstream in self.upstreams.values():
            if id(upstream) not in kept:
                await upstream.transport.close()


def _kept(name: str, section: Section, find: Callable[[str], str], before: Snapshot | None) -> Upstream | None:
    if before is None or before.settings.providers.get(name) != section:
        return None
    upstream = before.upstreams[name]
    if isinstance(section, NetworkSettings) and upstream.credentials != tuple(_credentials(section, find)):
        return None
    return upstream


def build_upstream(
    name: str,
    section: Section,
    kinds: Mapping[str, Any],
    find: Callable[[str], str],
    clock: Clock,
    trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
) -> Upstream:
    """A provider of the one of `kinds` that its section names, with its transport and its credentials.

    `find` follows references; `trust` makes the context of those that are spoken to with TLS.
    """
    kind: Any = kinds[_kind(name, section)]
    provider = kind(section)
    if not isinstance(section, NetworkSettings):
        own = getattr(provider, "transport", None)
        if own is None:
            raise TypeError(f"the provider kind {kind.__name__} has neither network settings nor a transport of its own")
        timeouts = TimeoutSettings()
        return Upstream(name, provider, own(clock), timeouts.decided(stream=False), timeouts.decided(stream=True))
    transport = _transport(section, trust)
    return Upstream(
        name,
        provider,
        transport,
        section.timeouts.decided(stream=False),
        section.timeouts.decided(stream=True),
        section.limits.body,
        tuple(_credentials(section, find)),
    )


def _kind(name: str, section: Section) -> str:
    return str(getattr(section, "kind", name))


def _transport(section: NetworkSettings, trust: Callable[[], ssl.SSLContext]) -> Transport:
    resolver = PinnedResolver(allow_private=section.allow_private)
    limits = {"header_limit": section.limits.header, "body_limit": section.limits.body}
    pool = section.pool
    own = None if section.ca is None else ssl.create_default_context(cafile=section.ca)
    if section.proxy is None:
        trust = trust if own is None else lambda: own
        return PooledTransport(
            section.base_url, connections=pool.connections, keep_alive=pool.keep_alive, resolver=resolver, trust=trust, **limits
        )
    return ClientTransport(
        connections=pool.connections, keep_alive=pool.keep_alive, resolver=resolver, proxy=section.proxy, tls=own or trust(), **limits
    )


def _credentials(section: NetworkSettings, find: Callable[[str], str]) -> list[Credential]:
    found = []
    for reference in section.references:
        try:
            found.append(Credential(reference, find(reference)))
        except SecretError:
            continue  # `Snapshot.say_missing` tells it.
    return found


def follow(settings: Settings, environ: Mapping[str, str], store: Store | None = None) -> Followed:
    """What the references to providers' keys lead to. It reads files and asks the keyring: a thread's work."""
    references = [reference for section in settings.providers.values() for reference in getattr(section, "references", ())]
    return Followed(references, environ, store)


@dataclass(frozen=True, slots=True)
class Groundwork:
    """What takes time of a snapshot and follows from the configuration alone. `trust` makes the context that providers share."""

    followed: Followed
    table: Table
    trust: Callable[[], ssl.SSLContext]


def groundwork(settings: Settings, environ: Mapping[str, str], store: Store | None = None, *, before: Snapshot | None = None) -> Groundwork:
    """Nothing that serves is touched, so that a thread can do it: a thousand models take some ten milliseconds, and the certificates
    that new providers are held against twenty.
    """
    followed = follow(settings, environ, store)
    trust = cache(ssl.create_default_context)  # it reads all CA certificates: once for all providers
    for name, section in settings.providers.items():
        if _is_held_against_all(section) and _kept(name, section, followed, before) is None:
            trust()
    return Groundwork(followed, table_of(settings), trust)


def _is_held_against_all(section: Section) -> bool:
    return isinstance(section, NetworkSettings) and section.ca is None and section.base_url.startswith("https:")
