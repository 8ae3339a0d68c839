"""The last requests, so that each can be explained afterwards: names, numbers and codes, no text of a prompt or an answer, no secret.

While requests run, nothing is worked out: the ring keeps references to what their calls hold anyway, and never a call, a body or a header.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from proxy.core.call import Attempt, Call, Principal, Target, Timeouts, Usage, tier_of
from proxy.core.hierarchy import described
from proxy.core.resolved import Resolved

#: A key of `Call.notes`: why a target was not asked again after the n-th attempt (from 1), in the words of who decided it. 0: why the
#: first choice was passed over before any attempt (`out`), or what made it the first (`bound`: it has what the request is about).
STOPPED = "stopped"

#: What that 0 says -> why the first attempt was made.
_FIRST: dict[str | None, str] = {"out": "fallback", "bound": "bound"}

#: A provider chooses the codes of its errors.
_LONGEST_CODE = 200


class Ended(NamedTuple):
    """A request that is over: how it ended and when, the model's name in its body, what `STOPPED` noted, and fields of its call."""

    status: int
    outcome: str
    code: str | None
    ended: float
    asked: str | None
    stopped: dict[int, str] | None
    id: str
    operation: str
    method: str
    model: str | None
    stream: bool
    peer: str
    principal: Principal
    end_user: str | None
    resolved: Resolved | None
    target: Target | None
    others: tuple[Target, ...]
    fallback: str | None
    timeouts: Timeouts | None
    deadline: float | None
    started: float
    attempts: list[Attempt]
    usage: Usage | None
    upstream_seconds: float
    overhead: float
    first_token: float | None
    bytes_in: int
    bytes_out: int


_ID = Ended._fields.index("id")


class Recent:
    """The newest requests that have ended, as many as `most`; 0 keeps none. Times are `Clock.monotonic()`."""

    def __init__(self, most: int = 0) -> None:
        # Plain tuples in the order of `Ended`, which they are made into when somebody asks.
        self._kept: deque[tuple[Any, ...]] = deque(maxlen=most)
        self._most = most

    def resize(self, most: int) -> None:
        """Keep so many from now on."""
        if most != self._most:
            self._kept = deque(self._kept, maxlen=most)
            self._most = most

    def note(self, call: Call, status: int, outcome: str, code: str | None, now: float) -> None:
        """A request has ended. For every request: one tuple, written out because that is how it costs the least."""
        if not self._most:
            return
        resolved = call.resolved
        if resolved is not None and resolved.params:
            resolved = with_numbers(resolved)
        # fmt: off
        self._kept.append((
            status, outcome, code, now, call.body.get("model"), call.notes.get(STOPPED) if call.notes else None,
            call.id, call.operation, call.method, call.model, call.stream, call.peer, call.principal, call.end_user, resolved,
            call.target, call.others, call.fallback, call.timeouts, call.deadline, call.started, call.attempts, call.usage,
            call.upstream_seconds, call.overhead, call.first_token, call.bytes_in, call.bytes_out,
        ))
        # fmt: on

    def find(self, id: str) -> Ended | None:
        return next((Ended._make(each) for each in reversed(self._kept) if each[_ID] == id), None)

    def newest(self, most: int) -> list[Ended]:
        """The newest first."""
        return [Ended._make(each) for each in islice(reversed(self._kept), most)]


def with_numbers(resolved: Resolved) -> Resolved:
    """Without the parameters that are no numbers: they stand as the client wrote them, whatever that is, and however long."""
    if all(isinstance(value, (int, float)) for value in resolved.params.values()):
        return resolved
    return replace(resolved, params={name: value for name, value in resolved.params.items() if isinstance(value, (int, float))})


# ------------------------------------------------------------------------------------------------------------------------------ as JSON
def summary(request: Ended, epoch: float) -> dict[str, Any]:
    """One line of a list. `epoch` is when `Clock.monotonic()` was zero, in seconds since 1970; other times are milliseconds."""
    return {
        "id": request.id,
        "at": request.started + epoch,
        "operation": request.operation,
        "model": request.model,
        "provider": request.target.provider if request.target is not None else None,
        "user": request.principal.id,
        "key": request.principal.key,
        "status": request.status,
        "outcome": request.outcome,
        "error": _short(request.code),
        "attempts": len(request.attempts),
        "fallback": request.fallback,
        "total_ms": _ms(request.ended - request.started),
    }


def explained(request: Ended, epoch: float) -> dict[str, Any]:
    """All that is known of one request. `epoch` as above; times of attempts count from the request's head."""
    attempts = list(_attempts(request))
    return {
        "id": request.id,
        "at": request.started + epoch,
        "status": request.status,
        "outcome": request.outcome,
        "error": _short(request.code),
        "asked": _asked(request),
        "configuration": _configuration(request.resolved),
        "served": None if request.target is None else _named(request.target),
        "attempts": attempts,
        "retries": sum(each["why"] == "retry" for each in attempts),
        "fallback": request.fallback,
        "not_asked": [_named(each) for each in request.others if not any(_is_same(each, tried.target) for tried in request.attempts)],
        "timeouts": _timeouts(request),
        "tokens": _tokens(request.usage),
        "timing": _timing(request),
        "bytes_in": request.bytes_in,
        "bytes_out": request.bytes_out,
    }


def _asked(request: Ended) -> dict[str, Any]:
    principal = request.principal
    return {
        "operation": request.operation,
        "method": request.method,
        "model": request.asked if request.asked is not None else request.model,
        "stream": request.stream,
        "user": principal.id,
        "key": principal.key,
        "tier": tier_of(principal, request.end_user, request.resolved),
        "end_user": request.end_user,
        "address": request.peer or None,
    }


def _configuration(resolved: Resolved | None) -> dict[str, Any] | None:
    if resolved is None:
        return None
    return {
        "source": resolved.source,
        "task_type": resolved.task_type,
        "known_task_type": resolved.is_known_task_type,
        "values": described(resolved),
    }


def _attempts(request: Ended) -> Iterator[dict[str, Any]]:
    """Each attempt: why it was made (the `first`, or `bound` to who has what it is about; a `retry` at the same target, a `fallback` to
    another one, a `search` for who has it, a `hedge` beside one that took long), what it may have cost where it failed, and why none
    followed it.
    """
    before: Target | None = None
    stopped = request.stopped or {}
    first = _FIRST.get(stopped.get(0), "first")
    is_sought = False  # from the first one on that has it not
    for number, attempt in enumerate(request.attempts, 1):
        target = attempt.target
        is_sought = is_sought or stopped.get(number - 1) == "unknown"
        yield {
            **_named(target),
            "credential": target.credential.id if target.credential is not None else None,
            "why": "hedge" if attempt.is_hedge else first if before is None else _why(before, target, is_sought=is_sought),
            "error": attempt.error,
            "tokens": _tokens(attempt.usage),
            "not_repeated": stopped.get(number),
            "started_ms": _ms(attempt.started - request.started),
            "ended_ms": None if attempt.ended is None else _ms(attempt.ended - request.started),
        }
        if not attempt.is_hedge:
            before = target


def _why(before: Target, target: Target, *, is_sought: bool) -> str:
    """Why another attempt followed one at `before`."""
    return "retry" if _is_same(before, target) else "search" if is_sought else "fallback"


def _timeouts(request: Ended) -> dict[str, Any] | None:
    """In seconds; None is no limit. `deadline` counts from the request's head, the others from their attempt's beginning."""
    limits = request.timeouts
    if limits is None:
        return None
    return {
        "connect": limits.connect,
        "first_token": limits.first_token,
        "idle": limits.idle,
        "total": limits.total,
        "min_tokens_per_second": limits.min_tokens_per_second,
        "deadline": None if request.deadline is None else round(request.deadline - request.started, 6),
    }


def _tokens(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "prompt": usage.prompt,
        "completion": usage.completion,
        "cached": usage.cached,
        "reasoning": usage.reasoning,
        "usage": usage.provenance,
    }


def _timing(request: Ended) -> dict[str, Any]:
    return {
        "total_ms": _ms(request.ended - request.started),
        "first_token_ms": None if request.first_token is None else _ms(request.first_token - request.started),
        "overhead_ms": _ms(request.overhead),
        "upstream_ms": _ms(request.upstream_seconds),
    }


def _named(target: Target) -> dict[str, Any]:
    return {"provider": target.provider, "model": target.model, "public": target.public}


def _is_same(one: Target, other: Target) -> bool:
    """Whoever's key is used."""
    return (one.provider, one.model) == (other.provider, other.model)


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _short(code: str | None) -> str | None:
    return None if code is None else code[:_LONGEST_CODE]
