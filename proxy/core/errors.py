"""What can go wrong, as one tree. Each error says whose fault it is, what the client sees, and whether another try may help.

    GatewayError
    ├── ClientError            the request is at fault: the client must change it
    │   └── ClientDisconnected the client left; nobody is there to be told (recorded as 499)
    ├── CapacityError          the gateway cannot take this now: the client may come back
    └── UpstreamError          a provider failed; `kind` names how, and is the metric's label
        └── StreamError        it failed after content had gone out: told by an event, never repaired

Anything outside this tree that reaches the edge is a bug: it becomes an opaque 500 with the request's id.
Shapes and codes: OpenAI's error object, https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.core.hiding import event_without, json_without, shows, without

if TYPE_CHECKING:
    from proxy.core.call import Usage


class GatewayError(Exception):
    """An answer that is not the one asked for.

    `message`, `type`, `param` and `code` are what the client may read: they are the whole allow-list, so nothing secret goes into
    them. `retry_after` is in seconds; `should_retry` tells the client whether to try again by itself, None says nothing. `detail` is for
    the log only.
    """

    fault: str = "gateway"
    status: int = 500
    type: str = "server_error"
    code: str | None = "internal_error"
    retryable: bool = False
    should_retry: bool | None = None
    #: The number of its event, where it ends a stream that numbers them.
    sequence_number: int = 0
    #: The provider's own event that tells it, where that is what the client of a broken stream gets.
    event: bytes = b""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if status is not None:
            self.status = status
        if type is not None:
            self.type = type
        if code is not None:
            self.code = code
        self.param = param
        self.retry_after = retry_after
        self.detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword arguments do not survive copying by default.
        return (_rebuild, (type(self), self.message, dict(self.__dict__)))


def _rebuild(kind: type[GatewayError], message: str, state: dict[str, object]) -> GatewayError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class ClientError(GatewayError):
    """The request cannot be served as it stands."""

    fault = "client"
    status = 400
    type = "invalid_request_error"
    code: str | None = None

    @property
    def closes_connection(self) -> bool:
        """Whether bytes of this request may still be on their way, so that the connection cannot be used again."""
        return self.status == 413


class ClientDisconnected(ClientError):
    status = 499
    code = "client_disconnected"


class CapacityError(GatewayError):
    """Full, draining, or failing to reach what it needs: not the client's fault, and worth another try later."""

    status = 503
    code = "overloaded"
    retryable = True


#: What the wire calls a kind, where it is not the kind's own name.
_CODES = {"reset": "bad_upstream"}

#: kind -> (status, type, whether a retry or another target may help). Rows of docs/faults.md.
UPSTREAM_KINDS: dict[str, tuple[int, str, bool]] = {
    "connect_failed": (502, "server_error", True),
    "dns": (502, "server_error", True),
    "tls": (502, "server_error", False),
    "reset": (502, "server_error", True),
    "bad_upstream": (502, "server_error", True),
    "upstream_timeout": (504, "server_error", True),
    "connect_timeout": (504, "server_error", True),
    "invalid_response": (502, "server_error", True),
    "response_too_large": (502, "server_error", False),
    "provider_auth": (502, "server_error", False),
    "rate_limit_exceeded": (429, "requests", True),
    "insufficient_quota": (429, "insufficient_quota", False),
    "overloaded": (503, "server_error", True),
    "server_error": (500, "server_error", True),
    "response_failed": (502, "server_error", True),
    "rejected": (400, "invalid_request_error", False),
    "stream_interrupted": (502, "server_error", True),
    "stream_truncated": (502, "server_error", True),
}

#: Types and codes by which clients, and fallbacks by cause, tell errors apart: whatever a key is, these are no part of one.
_WORDS = frozenset(UPSTREAM_KINDS) | {kind[1] for kind in UPSTREAM_KINDS.values()} | {"context_length_exceeded", "content_policy_violation"}


#: Errors have that many causes at most whose frames are let go: a chain might be a circle.
_MOST_CAUSES = 32


class UpstreamError(GatewayError):
    """A provider's failure, in our words.

    `kind` is a key of `UPSTREAM_KINDS`; it gives status, type and code unless they are given. `reached` says whether the provider may have
    begun to work on (and charge for) the request, `should_retry` what it said of trying again, `headers` what the client may see of its
    own (by lower-case name), `usage` what it reported before it failed, `more` what else of its error object the client may see (JSON by
    name), and `spare_credential` that it refused, or limits, a credential while there is another. `answered`: it came with or behind a
    good status, where no client would repeat by itself. `bound` names the limit of ours that ended it,
    one of `BOUNDS`, None where none did; `is_impatience`: that limit was stricter than the administrator's.
    """

    fault = "upstream"
    spare_credential = False
    answered = False
    bound: str | None = None
    is_impatience = False
    usage: Usage | None = None

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        detail: str | None = None,
        reached: bool = True,
    ) -> None:
        default_status, default_type, retryable = UPSTREAM_KINDS[kind]
        super().__init__(
            message,
            status=status or default_status,
            type=type or default_type,
            code=code,
            param=param,
            retry_after=retry_after,
            detail=detail,
        )
        self.kind = kind
        if kind == "rejected":
            self.fault = "client"
        self.code = code if code is not None else _CODES.get(kind, kind)
        self.retryable = retryable
        self.reached = reached
        self.headers: dict[str, str] = {}
        self.more: dict[str, str] = {}

    def acquit(self) -> None:
        """It had less time than the administrator gives it: that is for the client to know, and speaks against nobody."""
        self.is_impatience = True
        self.fault = "client"
        self.code = "deadline_exceeded"
        self.message = "The provider did not answer in the time that the request leaves it."

    def redact(self, secret: str) -> None:
        """Take a secret out of everything that the client may see; what that leaves no JSON goes with it."""
        self.message = without(self.message, secret)
        if self.type not in _WORDS:
            self.type = without(self.type, secret)
        if self.code is not None and self.code not in _WORDS:
            self.code = without(self.code, secret)
        self.param = self.param and without(self.param, secret)
        if self.event:
            self.event = event_without(self.event, secret)
        self.headers = {name: value for name, value in self.headers.items() if not shows(value, secret)}
        more = {name: json_without(value, secret) for name, value in self.more.items()}
        self.more = {name: value for name, value in more.items() if value is not None}


def let_go(error: BaseException) -> None:
    """Drop the frames of an error that is over, and of those that it came from: they hold what their request held, the error among it.

    Until the collector comes by, which may be long, such a circle would keep the bodies of failed answers in memory.
    """
    each: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if each is None:
            break
        each.__traceback__ = None
        each = each.__cause__ or each.__context__


#: What bounds an attempt, named as in `proxy.core.call.Timeouts`: a connection, the first content, a silence, the whole, a stream's pace.
BOUNDS = CONNECT, START, IDLE, TOTAL, PACE = "connect", "first_token", "idle", "total", "min_tokens_per_second"


def late(
    bound: str, message: str = "The provider did not answer in time.", *, kind: str = "upstream_timeout", reached: bool = True
) -> UpstreamError:
    """What ends an attempt that has reached a limit of ours."""
    error = UpstreamError(kind, message, reached=reached)
    error.bound = bound
    return error


class StreamError(UpstreamError):
    """A stream that had begun and could not be finished. It reaches the client as one error event, without `[DONE]`."""
