"""The seams: what a policy, a provider, a transport and a clock must be. Structural, so nothing needs to be inherited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from proxy.core.board import Board
from proxy.core.call import Call, Content, Principal, Target, Timeouts, Usage
from proxy.core.errors import UpstreamError
from proxy.core.metrics import Registry
from proxy.core.recent import Recent
from proxy.core.reply import Reply
from proxy.core.resolved import Preferences
from proxy.core.unpaid import Unpaid
from proxy.core.whereabouts import Whereabouts

Handler: TypeAlias = Callable[[Call], Awaitable[Reply]]

#: One record of the log: allow-listed fields only.
Emit: TypeAlias = Callable[[dict[str, Any]], None]


@runtime_checkable
class JSONLog(Protocol):
    """An `Emit` that also takes what is JSON already."""

    def __call__(self, event: dict[str, Any], /) -> None:
        """One record."""

    def members(self, shared: bytes, own: bytes) -> None:
        """One record of this moment: members as JSON, `"a":1,"b":2`, that it shares with others, and an object as JSON of its own."""


class Clock(Protocol):
    """Where time comes from. Deadlines are monotonic, so a wall clock that jumps moves none of them."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary origin."""

    def time(self) -> float:
        """Seconds since the epoch."""


class Identities(Protocol):
    """Whose key that is. What is known is kept for a bounded time, so that few requests wait for the database."""

    def mark(self, token: str) -> bytes:
        """What the key is known by: always the same for the same token, and of no use to anybody else."""

    def recall(self, mark: bytes) -> Principal | None:
        """The principal of the key with this mark, if it is in hand and fresh enough; never waits."""

    async def find(self, token: str) -> Principal | None:
        """The key's principal, asking the database; None for a key that is unknown, revoked or expired.

        Raises CapacityError (503) when the database cannot be asked and nothing usable is in hand.
        """


class UserPreferences(Protocol):
    """What users have set for themselves, kept like `Identities`."""

    def recall(self, user: str) -> Preferences | None:
        """The user's preferences (empty ones where nothing is set), with the tier, if they are in hand and fresh enough; never waits."""

    async def find(self, user: str) -> Preferences:
        """The same, asking the database. A database that cannot be asked: what was last known, or empty ones of an unknown user."""


@runtime_checkable
class OwnPreferences(UserPreferences, Protocol):
    """Preferences that their users may change."""

    async def read(self, user: str) -> Preferences:
        """What the database has now, for who is about to change it. Raises CapacityError."""

    async def put(self, user: str, preferences: Preferences) -> None:
        """Set all of them, by the user, and tell every instance. Raises ClientError (400, 404), CapacityError."""

    async def delete(self, user: str) -> None:
        """Set none any more, by the user. Raises ClientError (404), CapacityError."""


@dataclass(frozen=True, slots=True)
class Services:
    """What a policy may be given to work with: `Policy(settings, services)`.

    `identities` and `preferences` are None where there is no storage. `board` has the state of every target, `recent` the last
    requests, `whereabouts` what is known of what lies at providers, `unpaid` what of it is not accounted for; they outlive reloads.
    """

    clock: Clock
    metrics: Registry
    emit: Emit
    identities: Identities | None = None
    preferences: UserPreferences | None = None
    board: Board = field(default_factory=Board)
    recent: Recent = field(default_factory=Recent)
    whereabouts: Whereabouts = field(default_factory=Whereabouts)
    unpaid: Unpaid = field(default_factory=Unpaid)


class Policy(Protocol):
    """One concern of a request. It may answer itself, change the call, await `call_next` any number of times, and wrap the reply."""

    def __call__(self, call: Call, call_next: Handler) -> Awaitable[Reply]:
        """Mostly an `async def`; what waits for nothing may hand on what `call_next` returns."""


@dataclass(slots=True)
class UpstreamRequest:
    """What goes to a provider. `url` is absolute and comes from configuration; `headers` have lower-case names; a `host` among
    them is sent in the place of the address's own.

    `body` is bytes, or the client's content where that is passed on as it arrives. In `kept` a transport may keep what it makes of the
    rest: requests that share it are the same but for their bodies, and their `headers` are one object.
    """

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Content = b""
    kept: dict[Any, bytes] | None = None


class ResponseHead(Protocol):
    """An answer's status and headers. Header names are lower case; a repeated header is joined by `, `."""

    status: int
    headers: dict[str, str]


#: Makes what takes a connection's bytes in the stead of what is given first, to which it hands on whatever it does not know. That says
#: whether the next bytes begin where a chunk of HTTP/1.1 does. What is given second is called when it has had enough.
ShortCut: TypeAlias = Callable[[Callable[[bytes], bool], Callable[[], None]], Callable[[bytes], object]]


@runtime_checkable
class UpstreamResponse(ResponseHead, Protocol):
    """A provider's answer whose head has arrived."""

    def ready(self) -> bytes | None:
        """The whole body, if it has arrived; else None, and nothing is taken."""

    async def receive(self) -> bytes:
        """The next bytes of the body as they came, `b""` at its end.

        Raises UpstreamError (`reset`, `bad_upstream`, or what `fail` was given).
        """

    def attach(self, take: Callable[[bytes], bool], short_cut: ShortCut | None = None) -> Awaitable[None] | None:
        """Have `take` called with each piece as it arrives, with no task in between, until it returns False. None: that is not offered.

        What `short_cut` makes may be given bytes first, just as they come.

        What is returned is done when `take` has had enough, or nothing more comes; `receive` then goes on, and says why. Cancelling it
        detaches.
        """

    def fail(self, error: UpstreamError) -> None:
        """Make a pending or the next `receive` raise `error`."""

    def close(self, *, reuse: bool = False) -> None:
        """Be done with it. Never awaits; idempotent.

        `reuse`: the answer was good, and all of it that matters was read; its connection may serve again once its end has come.
        Otherwise the connection is closed at once, which also tells the provider to stop.
        """


class Outlet(Protocol):
    """A client's connection, for who writes to it himself. It has no transport once the client has left, and `lags` who reads slowly."""

    lags: bool
    transport: asyncio.Transport | None


class Sink(Protocol):
    """Where a stream is written to. `bytes_out` counts what was, without its framing."""

    bytes_out: int

    @property
    def is_full(self) -> bool:
        """Whether `drain` should be awaited before more is written."""

    def piece(self, data: bytes) -> bool:
        """One write. Says whether there is room for more; where there is not, `drain`. Raises ClientDisconnected."""

    @property
    def outlet(self) -> Outlet | None:
        """Where whole chunks of HTTP/1.1 may be written as they are, and counted; None where the body is not chunked."""

    async def drain(self) -> None:
        """Wait until there is room. Raises ClientDisconnected."""


@runtime_checkable
class Told(Protocol):
    """A reply's stream that tells its call how it goes: contents, their times, and the usage at the end."""

    def serve(self, call: Call) -> None:
        """Tell `call` from now on."""


#: The argument of a CancelledError that ended `Transport.send` before anything was sent: nothing can have been spent.
UNSENT = "unsent"


class Transport(Protocol):
    """Bytes to and from one provider.

    It bounds what it waits for by `timeouts` until the head is there, and translates every foreign exception.
    """

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        """Send and wait for the head. Raises UpstreamError only. Cancelling it closes the connection; see `UNSENT`."""

    async def close(self) -> None:
        """Close every connection."""


@runtime_checkable
class Reusing(Protocol):
    """A transport that keeps connections. It calls `stale` when one had been closed while it lay idle: the request is sent once more."""

    stale: Callable[[], None]


class Accounting(Protocol):
    """A provider that reads what an answer says of its usage where nothing else of it is read here: images, text of sound, rerankings."""

    def usage_of(self, body: bytes) -> Usage | None:
        """What a JSON body says, which may have been cut off, or be no more than its end; None where it says nothing. Never raises."""


class StreamDecoder(Protocol):
    """A provider's event stream, made into OpenAI's. Pure: bytes in, whole events out.

    usage     as last reported, None so far; what of it is not `reported` and 0 is estimated
    tokens    contents decoded so far (about one token each): the estimate where a provider reports none
    started   content has begun: what was decoded so far may go to the client, and that is the commit point
    done      the end was seen; nothing further will be decoded
    mended    the provider left out the end of a stream that was whole otherwise; it was added here
    failure   what broke the stream: an error event, nonsense, a cut. The events before it have been handed out, wherever the
              bytes were split

    One whose events are numbered has also `following`, the number that an event of the gateway's own would have. One whose events differ
    mostly in their text has also `frame`, whose `cast` tells such events: who passes one on without `feed` counts it in `tokens`.
    """

    tokens: int
    started: bool
    done: bool
    mended: bool
    failure: UpstreamError | None

    @property
    def usage(self) -> Usage | None: ...

    def feed(self, data: bytes) -> bytes:
        """The client's events that `data` completed. Never raises; once `failure` is set, it is not called again."""

    def eof(self) -> bytes:
        """What remains to be sent when the provider has closed the stream."""


class LLMProvider(Protocol):
    """One provider's dialect, sans-io: values in, values out; no session, no clock, no environment.

    It is built from its own settings by the factory (`providers.build`) and shared by all requests, so it keeps no state of any of them.
    """

    def encode(self, call: Call, target: Target) -> UpstreamRequest:
        """The provider's request for `call`, authenticated. Raises ClientError for what the provider cannot do."""

    def decode(self, call: Call, response: ResponseHead, body: bytes) -> Reply:
        """The client's answer for a whole 2xx `body`; sets `call.usage`. Raises UpstreamError for an error in disguise or nonsense."""

    def decode_error(self, response: ResponseHead, body: bytes) -> UpstreamError:
        """What an answer outside 2xx means; returned, not raised."""

    def stream_decoder(self, call: Call) -> StreamDecoder:
        """A fresh decoder for the event stream that answers `call`."""
