"""Which models there are: the table that requests are routed by, and the list that clients are shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from proxy.core.call import Call, Target, Timeouts
from proxy.core.errors import ClientError, GatewayError, UpstreamError
from proxy.core.hierarchy import Hierarchy
from proxy.core.protocols import Clock, UpstreamRequest
from proxy.core.sse import BOM
from proxy.dispatch import Upstream
from proxy.routing.conditions import Condition, Range
from proxy.routing.strategies import Candidate, Price
from proxy.routing.table import ModelRoute, Rule, Table
from proxy.settings import SIMULATED, Settings
from proxy.settings.models import Entry, FallbackRule, ModelTargets, RangeSettings, TargetEntry
from proxy.stream import read_whole
from proxy.sweeper import Sweeper
from proxy.watch import Watch

#: A provider's own list is asked for at most this often, in seconds.
_LIST_LASTS = 60.0

#: After a failure it is asked again only so many seconds later: a list is not worth a wait for each client that wants one.
_FAILURE_LASTS = 10.0

_LIST_LIMIT = 8 * 2**20
_PATIENCE = Timeouts(connect=2.0, first_token=5.0, idle=5.0, total=8.0)


def table_of(settings: Settings) -> Table:
    """The routing table that the configuration describes. Without a `models` section every name goes to the default provider."""
    real = [name for name in settings.providers if name != SIMULATED]
    default = settings.default_provider or (real[0] if real else SIMULATED if SIMULATED in settings.providers else None)
    models = settings.models or {}
    targets = {name: Target(entry.provider, entry.model or name, name) for name, entry in models.items()}
    if SIMULATED in settings.providers:
        targets.setdefault(SIMULATED, Target(SIMULATED, SIMULATED, SIMULATED))
    is_open = settings.models is None and default is not None and default != SIMULATED
    allows = (settings.llm.hierarchy() if settings.llm is not None else Hierarchy()).allows
    routes = {name: _route(name, entry, allows) for name, entry in models.items() if _is_more(entry)}
    hidden = frozenset(name for name in targets if not allows(name))
    return Table(targets, frozenset(settings.providers), default, open=is_open, routes=routes, hidden=hidden)


def _is_more(entry: Entry) -> bool:
    """Whether there is more to a model than the one target that serves it."""
    return bool(entry.fallback) or len(entry.targets) > 1 or bool(entry.targets[0].when)


def _route(name: str, entry: Entry, allows: Callable[[str], bool]) -> ModelRoute:
    """A model that is not allowed is nobody's fallback."""
    chain = [Rule(rule.on, rule.to) if isinstance(rule, FallbackRule) else Rule("any", rule) for rule in entry.fallback]
    rules = [rule for rule in chain if allows(rule.to)]
    candidates = tuple(_candidate(name, target) for target in entry.targets)
    if not isinstance(entry, ModelTargets):
        return ModelRoute(candidates, fallback=tuple(rules))
    return ModelRoute(candidates, entry.strategy, tuple(rules), entry.latency)


def _candidate(name: str, entry: TargetEntry) -> Candidate:
    price = Price(entry.price.input, entry.price.output) if entry.price is not None else None
    return Candidate(Target(entry.provider, entry.model or name, name), entry.weight, entry.priority, price, _condition(entry))


def _condition(entry: TargetEntry) -> Condition:
    return tuple(
        (
            name,
            Range(wanted.above, wanted.below)
            if isinstance(wanted, RangeSettings)
            else tuple(wanted if isinstance(wanted, list) else [wanted]),
        )
        for name, wanted in entry.when.items()
    )


class ProvidersList:
    """What one provider says that it has, remembered for a while."""

    def __init__(self, upstream: Upstream, clock: Clock) -> None:
        self._upstream = upstream
        self._clock = clock
        self._listed: dict[str, dict[str, Any]] | None = None
        self._until: float | None = None
        self._lock = asyncio.Lock()

    async def __call__(self) -> Mapping[str, dict[str, Any]] | None:
        """Its own model objects by id; None where it has never given a list."""
        async with self._lock:
            now = self._clock.monotonic()
            if self._until is None or now > self._until:
                try:
                    self._listed = await listed_by(self._upstream, self._clock)
                    self._until = now + _LIST_LASTS
                except GatewayError:
                    # A provider that does not answer keeps the list that it gave last; the request for a model will tell what is wrong.
                    self._until = self._clock.monotonic() + _FAILURE_LASTS
            return self._listed


class Catalogue:
    """Lists models by public name: the table's, and, of an open table, what the default provider says that it has."""

    def __init__(self, table: Table, upstreams: Mapping[str, Upstream], clock: Clock) -> None:
        self._table = table
        self._upstreams = upstreams
        self._clock = clock
        self._created = int(clock.time())
        self._lists = {name: ProvidersList(upstream, clock) for name, upstream in upstreams.items()}

    async def __call__(self) -> Mapping[str, dict[str, Any]]:
        own = {name: self._model(name, target.provider) for name, target in self._table.targets.items()}
        default = self._table.default
        if not self._table.open or default is None:
            return own
        provided = await self._lists[default]() or {}
        return {**{name: self._model(name, default, said) for name, said in provided.items()}, **own}

    async def find(self, model: str) -> dict[str, Any] | None:
        """A model of any name that requests would be sent on with, listed or not; None where nobody has it.

        Its provider decides: by its list, else by what it says to the name. Where it cannot be asked, the request for the model will tell.
        """
        try:
            target = self._table.find(model)
        except ClientError:
            return None
        name = target.model or model
        listed = None if target.public is not None else await self._lists[target.provider]()
        if listed is None:
            return self._model(model, target.provider)
        try:
            said = listed.get(name) or await described_by(self._upstreams[target.provider], name, self._clock)
        except GatewayError:
            said = {}
        return None if said is None else self._model(model, target.provider, said)

    def providers(self, model: str) -> tuple[str, ...]:
        """Who serves a model of that name, the first choice first; nobody where it is unknown."""
        route = self._table.routes.get(model)
        if route is not None:
            return tuple(dict.fromkeys(candidate.target.provider for candidate in route.candidates))
        try:
            return (self._table.find(model).provider,)
        except ClientError:
            return ()

    def _model(self, name: str, provider: str, said: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """OpenAI's model object: all that the provider `said`, and whatever of OpenAI's members it did not."""
        said = said or {}
        created, owner = said.get("created"), said.get("owned_by")
        if not isinstance(created, (int, float)) or isinstance(created, bool):
            created = self._created
        return {
            **said,
            "id": name,
            "object": "model",
            "created": int(created),
            "owned_by": owner if isinstance(owner, str) else provider,
        }


async def listed_by(upstream: Upstream, clock: Clock, patience: Timeouts = _PATIENCE) -> dict[str, dict[str, Any]]:
    """A provider's own list of models, by id. Raises UpstreamError."""
    found = await _asked(upstream, clock, patience, "/models")
    try:
        # Some have no object around it: https://docs.together.ai/reference/models
        models = found if isinstance(found, list) and found else found["data"]
        return {model["id"]: model for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)}
    except (KeyError, TypeError):
        raise UpstreamError("invalid_response", "The provider's list of models is no list.") from None


async def described_by(upstream: Upstream, model: str, clock: Clock, patience: Timeouts = _PATIENCE) -> dict[str, Any] | None:
    """What a provider says of one model; None: that it has none of that name. Raises GatewayError where it says neither."""
    try:
        found = await _asked(upstream, clock, patience, f"/models/{quote(model, safe='')}")
    except UpstreamError as error:
        if error.kind == "rejected":
            return None
        raise
    return found if isinstance(found, dict) and isinstance(found.get("id"), str) else None


async def _asked(upstream: Upstream, clock: Clock, patience: Timeouts, path: str) -> Any:
    """What a provider answers to a GET, out of JSON. Raises UpstreamError."""
    call = Call("list", "models", "GET", path, "", {}, clock.monotonic(), _no_body)
    request: UpstreamRequest = upstream.provider.encode(call, Target(upstream.name, None, credential=upstream.credential()))
    response = await upstream.transport.send(request, patience)
    watch = Watch(clock, response, patience, clock.monotonic(), Sweeper(clock.monotonic))
    try:
        body = await read_whole(response, _LIST_LIMIT, watch)
        if response.status != 200:
            raise upstream.provider.decode_error(response, body)
        found = orjson.loads(body.removeprefix(BOM))
        response.close(reuse=True)
        return found
    except orjson.JSONDecodeError:
        raise UpstreamError("invalid_response", "The provider's answer about its models is not JSON.") from None
    finally:
        watch.stop()
        response.close()


async def _no_body(_call: Call) -> None:
    """A list is asked for without a body."""
