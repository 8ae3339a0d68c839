"""Every request ends in one record: a line of the log, and the metrics that it adds to."""

from __future__ import annotations

import re
from asyncio import CancelledError
from collections.abc import Awaitable
from math import floor
from typing import Any, Literal

import msgspec
import orjson
from pydantic import Field

from proxy.core.call import Call, Target, Usage
from proxy.core.errors import ClientDisconnected, GatewayError, UpstreamError
from proxy.core.metrics import MANY, Value
from proxy.core.protocols import Handler, JSONLog, Services
from proxy.core.reply import PROVIDER_REQUEST_ID, Reply
from proxy.fields import Section

#: Seconds. An answer takes from milliseconds (a cache, a small model) to many minutes (reasoning).
LATENCY_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0)
TOKEN_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
OVERHEAD_BOUNDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)
LENGTH_BOUNDS = (64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0)

#: Kinds of requests that are remembered, a few hundred bytes each.
MOST_KINDS = 1024

#: How a provider may call a request: what stands in the record is no text of its own.
_NAME = re.compile(r"[A-Za-z0-9_.:/=+-]{1,128}")

_FAULTS = {"client": "client_error", "upstream": "upstream_error", "gateway": "gateway_error"}


class RecordSettings(Section):
    """What is written down of each request."""

    log: bool = Field(True, description="write one line for each request; the metrics are kept either way")
    prompts: Literal["never"] = Field("never", description="whether prompts and answers are written down: never")


class _Series:
    """The metric children of one (operation, provider, model), looked up once."""

    __slots__ = ("_distributions", "completion", "first_token", "latency", "length", "overhead", "per_token", "prompt", "statuses")

    def __init__(self, metrics: _Metrics, operation: str, provider: str, model: str) -> None:
        who = (operation, provider, model)
        families = (metrics.latency, metrics.length, metrics.first_token, metrics.per_token)
        self._distributions = [*(family.labels(*who) for family in families), metrics.overhead.labels(operation)]
        # Values are handed over where they are gathered: a call for each of them costs more than to count it.
        self.latency, self.length, self.first_token, self.per_token, self.overhead = (one.fresh for one in self._distributions)
        self.prompt: Value = metrics.tokens.labels(*who, "prompt")
        self.completion: Value = metrics.tokens.labels(*who, "completion")
        self.statuses: dict[int, Value] = {}

    def observe(self, call: Call, total: float) -> None:
        latency, usage, first = self.latency, call.usage, call.first_token
        latency.append(total)
        if usage is not None:
            self.prompt.value += usage.prompt
            self.completion.value += usage.completion
        if call.bytes_out:
            self.length.append(call.bytes_out)
            self.overhead.append(call.overhead)
        if first is not None:
            self.first_token.append(first - call.started)
            if call.tokens_seen > 1 and call.last_token is not None:
                self.per_token.append((call.last_token - first) / (call.tokens_seen - 1))
        if len(latency) >= MANY or len(self.overhead) >= MANY:
            for distribution in self._distributions:
                distribution.gather()


class _Metrics:
    def __init__(self, services: Services) -> None:
        registry = services.metrics
        who = ("operation", "provider", "model")
        self.requests = registry.counter(
            "llm_requests_total", "Requests by their final status.", "operation", "status", "provider", "model"
        )
        self.rejected = registry.counter("llm_rejected_total", "Requests that the gateway itself refused.", "code")
        self.tokens = registry.counter("llm_tokens_total", "Tokens, as reported or estimated.", *who, "kind")
        self.lost = registry.counter("llm_lost_tokens_total", "Tokens of attempts whose answers nobody got.", "provider", "kind")
        self.active = registry.gauge("llm_active_requests", "Requests in flight.").labels()
        self.latency = registry.histogram("llm_latency_seconds", "From the request's head to the end of its answer.", LATENCY_BOUNDS, *who)
        self.length = registry.histogram("llm_response_length", "Bytes of answers.", LENGTH_BOUNDS, *who)
        self.first_token = registry.histogram(
            "llm_time_to_first_token_seconds", "From the head to the first content.", LATENCY_BOUNDS, *who
        )
        self.per_token = registry.histogram("llm_time_per_output_token_seconds", "Between contents, mean of a stream.", TOKEN_BOUNDS, *who)
        self.overhead = registry.histogram(
            "llm_overhead_seconds", "What the gateway added before the answer began.", OVERHEAD_BOUNDS, "operation"
        )


class _Own(msgspec.Struct, omit_defaults=True, gc=False):
    """What the line of a good answer says that others do not: the request's name, and numbers. See `line`."""

    id: str
    prompt_tokens: int
    completion_tokens: int
    total_ms: float
    overhead_ms: float
    bytes_in: int
    bytes_out: int
    first_token_ms: float | None = None
    per_token_ms: float | None = None


_own_json = msgspec.json.Encoder().encode


def _own(call: Call, usage: Usage, total: float) -> bytes:
    """A line's `_Own`, as JSON. Times are rounded as whole microseconds: `round` costs several times as much."""
    took, added = floor(total * 1e6 + 0.5) / 1e3, floor(call.overhead * 1e6 + 0.5) / 1e3
    own = _Own(call.id, usage.prompt, usage.completion, took, added, call.bytes_in, call.bytes_out)
    first, last, tokens = call.first_token, call.last_token, call.tokens_seen
    if first is not None:
        own.first_token_ms = floor((first - call.started) * 1e6 + 0.5) / 1e3
        if tokens > 1 and last is not None:
            own.per_token_ms = floor((last - first) / (tokens - 1) * 1e6 + 0.5) / 1e3
    return _own_json(own)


class _Kind:
    """Requests that were answered, and are alike in everything that their records say but for what is each one's own."""

    __slots__ = ("series", "shared", "status")

    def __init__(self, series: _Series, status: Value, fields: dict[str, Any]) -> None:
        """`fields`: the line of one of them. `shared`: the members that they all have, as JSON."""
        self.series = series
        self.status = status
        self.shared = orjson.dumps({name: value for name, value in fields.items() if name not in _Own.__struct_fields__})[1:-1]


class Record:
    """Outermost. What it is given to write is an allow-list of names, numbers and codes: no text of a prompt, an answer or an error."""

    Settings = RecordSettings

    def __init__(self, settings: RecordSettings, services: Services) -> None:
        self._now = services.clock.monotonic
        self._emit = services.emit if settings.log else None
        self._members = services.emit.members if settings.log and isinstance(services.emit, JSONLog) else None
        self._recent = services.recent
        self._metrics = _Metrics(services)
        self._active = self._metrics.active
        self._series: dict[tuple[str, str, str], _Series] = {}
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        self._recorder = self._finish  # bound once, not for each request

    def __call__(self, call: Call, call_next: Handler) -> Awaitable[Reply]:
        # Without a coroutine of its own: whatever becomes of a call, it is ended.
        self._active.value += 1.0
        call.recorder = self._recorder
        return call_next(call)

    def _finish(self, call: Call, reply: Reply | None, error: BaseException | None) -> None:
        self._active.value -= 1.0
        usage, target, notes, tries = call.usage, call.target, call.notes, len(call.attempts)
        if (
            error is not None
            or reply is None
            or usage is None
            or target is None
            or tries > 1
            or call.fallback is not None
            or (notes and "hedge" in notes)
        ):
            self._write(call, reply, error)
            return
        status, resolved = reply.status, call.resolved
        settled: object = None
        if resolved is not None:
            settled = resolved.source
            if resolved.task_type is not None:
                settled = (settled, resolved.task_type, resolved.is_known_task_type)
        # All that a line says but for numbers and the request's name.
        # fmt: off
        key = (
            call.operation, call.model, target.provider, target.model, target.public,
            status, call.stream, tries, usage.reported, settled,
        )
        # fmt: on
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kind(key, call, target, status)
        now = self._now()
        total = now - call.started
        kind.status.value += 1.0
        kind.series.observe(call, total)
        self._recent.note(call, status, "ok", None, now)
        if self._members is not None:
            self._members(kind.shared, _own(call, usage, total))
        elif self._emit is not None:
            self._emit(line(call, status, "ok", None, now))

    def _write(self, call: Call, reply: Reply | None, error: BaseException | None) -> None:
        """What can be said of any request, whatever became of it."""
        now = self._now()
        if isinstance(error, CancelledError) and call.interrupted is not None:
            error = call.interrupted
        status, outcome, code = verdict(reply, error)
        self._count(call, status, now - call.started)
        for target, usage in call.lost:
            self._metrics.lost.labels(target.provider, "prompt").value += usage.prompt
            self._metrics.lost.labels(target.provider, "completion").value += usage.completion
        is_ours = not isinstance(error, UpstreamError) or error.is_impatience
        if error is not None and is_ours and outcome in ("client_error", "gateway_error"):
            self._metrics.rejected.labels(code or "unknown").value += 1
        self._recent.note(call, status, outcome, code, now)
        if self._emit is not None:
            fields = line(call, status, outcome, code, now)
            if (name := _name_at_provider(reply, error)) is not None:
                fields["provider_request_id"] = name
            self._emit(fields)

    def _count(self, call: Call, status: int, total: float) -> None:
        target = call.target
        if target is None:
            # Refused before anyone was chosen to serve: counted, but there is nothing to measure.
            self._metrics.requests.labels(call.operation, str(status), "none", "none").value += 1
            return
        series, by_status = self._counted(call.operation, target, status)
        by_status.value += 1
        series.observe(call, total)

    def _kind(self, key: tuple[object, ...], call: Call, target: Target, status: int) -> _Kind:
        """Made for the first of its kind. Clients choose among models' names without end, so that all are forgotten when there are many."""
        if len(self._kinds) >= MOST_KINDS:
            self._kinds.clear()
        kind = self._kinds[key] = _Kind(*self._counted(call.operation, target, status), line(call, status, "ok", None, call.started))
        return kind

    def _counted(self, operation: str, target: Target, status: int) -> tuple[_Series, Value]:
        key = (operation, target.provider, target.public or "other")
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series(self._metrics, *key)
        by_status = series.statuses.get(status)
        if by_status is None:
            by_status = series.statuses[status] = self._metrics.requests.labels(operation, str(status), *key[1:])
        return series, by_status


def verdict(reply: Reply | None, error: BaseException | None) -> tuple[int, str, str | None]:
    """Status, outcome and code. A client that left is 499, whatever had been sent."""
    if error is None:
        return (reply.status if reply is not None else 500), "ok", None
    if isinstance(error, (CancelledError, ClientDisconnected)):
        return 499, "cancelled", "client_disconnected"
    if isinstance(error, GatewayError):
        return error.status, _FAULTS[error.fault], error.code
    return 500, "gateway_error", "internal_error"


def _name_at_provider(reply: Reply | None, error: BaseException | None) -> str | None:
    """How the provider whose answer, or failure, it was calls the request, if that is a name."""
    headers = error.headers if reply is None and isinstance(error, UpstreamError) else {} if reply is None else reply.headers
    name = headers.get(PROVIDER_REQUEST_ID, "")
    return name if _NAME.fullmatch(name) else None


def line(call: Call, status: int, outcome: str, code: str | None, now: float) -> dict[str, Any]:
    """The record's fields. Times are milliseconds, sizes bytes."""
    usage, target, resolved = call.usage, call.target, call.resolved
    fields: dict[str, Any] = {
        "event": "request",
        "operation": call.operation,
        "model": call.model,
        "served": target.model if target is not None else None,
        "provider": target.provider if target is not None else None,
        "status": status,
        "outcome": outcome,
        "stream": call.stream,
        "attempts": len(call.attempts),
        "usage": usage.provenance if usage is not None else "none",
    }
    if resolved is not None:
        fields["config_source"] = resolved.source
        if resolved.task_type is not None:
            fields["task_type"] = resolved.task_type
            if not resolved.is_known_task_type:
                fields["task_type_known"] = False
    if code is not None:
        fields["error"] = code
    if call.fallback is not None:
        fields["fallback"] = call.fallback
    if "hedge" in call.notes:
        fields |= call.notes["hedge"]
    if lost := call.lost:
        fields["lost_prompt_tokens"] = sum(each.prompt for _, each in lost)
        fields["lost_completion_tokens"] = sum(each.completion for _, each in lost)
    fields |= {
        "id": call.id,
        "prompt_tokens": usage.prompt if usage is not None else None,
        "completion_tokens": usage.completion if usage is not None else None,
        "total_ms": round((now - call.started) * 1e3, 3),
        "overhead_ms": round(call.overhead * 1e3, 3),
        "bytes_in": call.bytes_in,
        "bytes_out": call.bytes_out,
    }
    if call.first_token is not None:
        fields["first_token_ms"] = round((call.first_token - call.started) * 1e3, 3)
        if call.tokens_seen > 1 and call.last_token is not None:
            fields["per_token_ms"] = round((call.last_token - call.first_token) / (call.tokens_seen - 1) * 1e3, 3)
    return fields
