"""One client request, from its first header to its record."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from proxy.core.errors import GatewayError, let_go
from proxy.core.estimate import BYTES_PER_TOKEN, wordless_bytes
from proxy.core.reply import Reply
from proxy.core.resolved import Resolved

#: Bytes of a request in which a picture may be.
_LARGE = 4096


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what that one may. None is no limit.

    id          the user's, which records show; never a key
    key         the public id of the virtual key that was shown
    tier        the user's tier: `premium`, `standard`, or a name of the administrator's
    models      patterns of the public model names (`gpt-4*`) that may be asked for
    providers, operations, task_types   names that may be used
    grants      operations on objects of the shared upstream account (files, batches, ...) that are allowed beside `operations`
    may_set     fields of the resolved configuration that a request may set itself (`model`, `timeout`, `temperature`, ...)
    names_users whether `x-comporta-user` may say on whose behalf it asks
    addresses   networks (`10.0.0.0/8`, `2001:db8::/32`) that it may ask from
    """

    id: str = "anonymous"
    key: str | None = None
    tier: str | None = None
    models: tuple[str, ...] | None = None
    providers: frozenset[str] | None = None
    operations: frozenset[str] | None = None
    task_types: frozenset[str] | None = None
    grants: frozenset[str] = frozenset()
    may_set: frozenset[str] | None = None
    names_users: bool = False
    addresses: tuple[str, ...] | None = None


#: Nobody in particular: it has shown no key, and no key keeps it from naming a user.
ANONYMOUS = Principal(names_users=True)


@dataclass(frozen=True, slots=True)
class Credential:
    """A provider's key. `id` is the reference that it came from, safe to show; `secret` is not."""

    id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Target:
    """Who serves: a configured provider's name, the model's name there, and the credential to use.

    `public` is the configured public name (the only model name that is used as a metric's label); None where the client addressed
    `provider/model` itself or the route names no model.
    """

    provider: str
    model: str | None
    public: str | None = None
    credential: Credential | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; None is no limit. Sources: `providers.<name>.timeouts`, narrowed by the client's own deadline.

    connect: name resolution, TCP and TLS. first_token: from sending to the first content. idle: between two contents.
    total: the whole attempt. min_tokens_per_second: of a stream, once content has begun, over `window` seconds.
    defaults: which of them nobody has set: a client that says how long it waits knows better. A `total` that is one of them bounds what
    comes whole or has not begun; what flows has no end but the request's, in `left` seconds, where that is later.
    """

    connect: float | None = 5.0
    first_token: float | None = 600.0
    idle: float | None = 600.0
    total: float | None = 600.0
    min_tokens_per_second: float | None = None
    window: float = 30.0
    defaults: frozenset[str] = frozenset()
    left: float | None = None

    def overridden(self, values: Mapping[str, float]) -> Timeouts:
        """With what a level of the configuration sets. A total that nobody has set gives way to a longer `first_token`."""
        first, total = values.get("first_token"), self.total
        if first is not None and total is not None and total < first and "total" in self.defaults and "total" not in values:
            return replace(self, **values, total=first, defaults=self.defaults.difference(values))
        return replace(self, **values, defaults=self.defaults.difference(values))


@dataclass(slots=True)
class Usage:
    """Tokens of one answer. `reported` is False for an estimate. Cached tokens are part of `prompt`, reasoning tokens of `completion`."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    reported: bool = False

    @property
    def provenance(self) -> str:
        return "reported" if self.reported else "estimated"


#: The `error` of an attempt whose answer nobody waited for any more: the other one of the two was there first.
HEDGE_LOST = "hedge_lost"


@dataclass(slots=True)
class Attempt:
    """One try at one target. Times are `Clock.monotonic()` seconds.

    `is_hedge`: it was made beside another one that took long. `usage` is what it may have cost where it gave no answer; of the one that is
    told of, it is the call's own, too.
    """

    target: Target
    started: float
    ended: float | None = None
    error: str | None = None
    is_hedge: bool = False
    usage: Usage | None = None


class Content(Protocol):
    """A body that is passed on as it arrives (multipart, binary). It can be read once.

    `length` is in bytes, None where it was not announced.
    """

    length: int | None

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def named(self, model: str) -> Content:
        """The same body, its `model` field replaced."""


@dataclass(slots=True, eq=False)
class Call:
    """A request on its way through the policies.

    id            `req_…`, shown to the client as `x-request-id`
    operation     what is asked: `chat`, `completion`, `embedding`, `models`, or a pass-through group such as `responses`, `files`
    method, path  of the upstream request; the path is relative to the provider's base URL and never has `/v1`
    headers       the client's, case-insensitive, read only; its content-length may be missing: `bytes_in` and `content` tell
    recorder      writes its record; `end` calls it, last of all
    memo          for what is worked out of `headers` but for their content-length, and of nothing else: it lives as long as the client goes
                  on to send the same head on its connection
    receive       reads and checks the body; the pipeline calls it once the caller is known, so nothing is read for a stranger, and awaits
                  what it returns, which is None for a body that had arrived
    raw, body     the body's bytes as they came, and the object that they hold; both empty until `receive`
    content       a body that is streamed instead
    peer          the address at the other end of the connection, `local` for a Unix socket; empty where that is not known
    principal     who asks; `end_user` is the one on whose behalf, as the client says: see `on_behalf` before that decides anything
    resolved      the configuration that holds for it, each value with its source; None until `resolve`, or where that is off
    others        further targets of the model, in the order in which they are to be tried when `target` fails; the
                  first choice is one of them where it was passed over
    fallback      the kind of the failure that made another than the first target serve, or None
    stand_in      the name of the model that a fallback led to, None while it is the first one's turn
    refill        makes the parameters of the body, and of `resolved`, those of another model, before that one is asked; None where no
                  model has any
    started       `Clock.monotonic()` when the head had arrived
    deadline      `Clock.monotonic()` by which the answer must be complete, or None
    patience      seconds that its client waits for the next byte, or None where that is not said
    pinged        `Clock.monotonic()` when the client was last sent a ping; 0.0 before the first
    upstream_seconds  waited for providers until the answer was in hand
    overhead      seconds that the gateway itself added before the answer began
    interrupted   why the gateway gave it up while its client was still there (it is shutting down), or None
    arriving      seconds that the client's own body was waited for before anybody was asked
    awaited       seconds that the last attempt waited for the client's own body, of one that is passed on (`content`)
    tokens_seen   contents of a stream, about one token each; all of them are counted in it when the stream is over
    """

    id: str
    operation: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    started: float
    receive: Callable[[Call], Awaitable[None] | None]
    memo: dict[Any, Any] = field(default_factory=dict)
    peer: str = ""
    body: dict[str, Any] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    raw: bytes = b""
    content: Content | None = None
    model: str | None = None
    stream: bool = False
    principal: Principal = ANONYMOUS
    end_user: str | None = None
    resolved: Resolved | None = None
    target: Target | None = None
    others: tuple[Target, ...] = ()
    fallback: str | None = None
    stand_in: str | None = None
    refill: Callable[[Call, str], None] | None = None
    timeouts: Timeouts | None = None
    deadline: float | None = None
    patience: float | None = None
    pinged: float = 0.0
    interrupted: GatewayError | None = None
    usage: Usage | None = None
    upstream_seconds: float = 0.0
    overhead: float = 0.0
    first_token: float | None = None
    last_token: float | None = None
    tokens_seen: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    arriving: float = 0.0
    awaited: float = 0.0
    recorder: Callable[[Call, Reply | None, BaseException | None], None] | None = None

    def end(self, reply: Reply | None, error: BaseException | None) -> None:
        """It is over, with `reply` if there was one, and by `error` unless that was delivered whole. Idempotent.

        Whoever runs a call must end it, on every way out: the reply is closed, then the record is written.
        """
        recorder, self.recorder = self.recorder, None
        try:
            if reply is not None:
                reply.close(error)
        finally:
            if recorder is not None:
                recorder(self, reply, error)
            if error is not None:
                let_go(error)

    @property
    def on_behalf(self) -> str | None:
        """`end_user` where the caller may name one. What any other key says of users decides nothing: it asks for its own."""
        return self.end_user if self.principal.names_users else None

    @property
    def served(self) -> str | None:
        """The name of the model that serves: its public one, else as it was asked for, or as the fallback was named that has answered."""
        target, asked = self.target, self.model
        if target is None or target.public is not None:
            return asked if target is None else target.public
        if self.stand_in is not None:
            return self.stand_in
        return asked if asked is None or target.model is None or asked.endswith(target.model) else target.model

    @property
    def lost(self) -> list[tuple[Target, Usage]]:
        """What attempts may have cost whose answers nobody got, beside that which is told of."""
        own = self.usage
        return [(each.target, each.usage) for each in self.attempts if each.usage is not None and each.usage is not own]

    def estimated_usage(self) -> Usage:
        """What a provider may have charged where it did not say: four bytes of request to a token, one token to a content of the answer.

        Images, sound and files are left out: their bytes say nothing of their tokens.
        """
        size = len(self.raw)
        if size > _LARGE:
            size -= wordless_bytes(self.body)
        return Usage(prompt=(size + BYTES_PER_TOKEN - 1) // BYTES_PER_TOKEN, completion=self.tokens_seen)

    def accounted(self, told: Usage | None, completion: int | None = None) -> Usage:
        """What a provider has `told`, with an estimate of what it has not: of its answer's tokens `completion`, if that is known."""
        if told is not None and told.reported:
            return told
        usage = self.estimated_usage()
        if completion is not None:
            usage.completion = completion
        if told is not None:
            usage = replace(told, prompt=told.prompt or usage.prompt, completion=told.completion or usage.completion)
        return usage


def tier_of(principal: Principal, end_user: str | None, resolved: Resolved | None) -> str | None:
    """The tier that decides: that of the user whom the request names, where it may; else the key's own user's."""
    if end_user is None or not principal.names_users:
        return principal.tier
    return (resolved.tier or None) if resolved is not None else None
