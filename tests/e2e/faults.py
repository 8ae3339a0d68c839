"""What the tests of faults share: a fault with what must become of it, how it is provoked, and how its outcome is checked.

There is nobody to fall back to, and one retry at most: a fault that may be tried again comes twice, and then ends in its final status.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.gateway import UPSTREAM_KEY, Gateway, Record, error_of
from tests.support.raw_client import Answer, chat
from tests.support.script import (
    CHAT,
    Script,
    Send,
    Step,
    Wait,
    chunk,
    completion,
    delta,
    event,
    role_chunk,
    script,
    sliced,
    stream_head,
)
from tests.support.upstream import Connection, Upstream

Cut = Callable[[Script], Script]
FAILURES = "llm_upstream_failures_total"
REFUSED = "client_error"  # the provider found fault with the request: the record says so, the counter still says who found it

#: A stream that has begun. What follows `COMMITTED` finds content forwarded already.
BEGUN = stream_head() + b"".join(chunk(event(value)) for value in (role_chunk(), delta("Hello"), delta(" there")))
COMMITTED: tuple[Step | bytes, ...] = (BEGUN, Wait(0.05))


def settled(connection: Connection) -> int:
    """How many bytes the provider got rid of, once that number stands still."""
    until = time.monotonic() + 5
    seen = -1
    while seen != connection.poured or not seen:
        assert time.monotonic() < until, "the provider is read from for ever"
        seen = connection.poured
        time.sleep(0.3)
    return seen


def check_ended_well(gateway: Gateway, upstream: Upstream, model: str = "test-model") -> None:
    """What failed left nothing behind: the next request is served, and not over a connection that failed."""
    upstream.play(CHAT)
    answer = chat(gateway.url, model)
    assert answer.status == 200, answer.body
    assert answer.json() == completion()
    doubted, fresh = upstream.requests[-2].connection, upstream.requests[-1].connection
    assert doubted.number != fresh.number, "a connection that failed was used again"


def check_failed(
    gateway: Gateway, answer: Answer, error: dict[str, Any], *, status: int, codes: Sequence[str | None], outcome: str = "upstream_error"
) -> Record:
    """The answer's error has one of `codes`, and the record of it says the same."""
    assert error["code"] in codes, error
    record = gateway.record_of(answer)
    assert record["status"] == status, record
    assert record["outcome"] == outcome, record
    assert record.get("error") == error["code"], (record, error)
    assert record["operation"] == "chat" and record["stream"] in (True, False), record
    return record


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail before content: `answer` of the upstream, then the client's `status` and `codes` (any of them).

    `attempts` is how often the upstream is asked: twice where a retry may help. `should_retry` is what the client is told of another try.
    """

    row: str
    answer: Script
    status: int
    codes: tuple[str | None, ...]
    usage: tuple[str, ...] = ("none", "estimated")
    outcome: str = "upstream_error"
    attempts: int = 2
    should_retry: str | None = "false"


def fault(row: str, *steps: Step | bytes, status: int = 502, codes: Sequence[str | None] = ("bad_upstream",), **more: Any) -> Fault:
    return Fault(row, script(*steps), status, tuple(codes), **more)


HTML = b"<!DOCTYPE html><html><body><h1>It works!</h1></body></html>"
PLAIN = json.dumps(completion()).encode()


def cases(faults: Sequence[Fault], cut: str = "both") -> list[Any]:
    """Parameters of a test, each marked with its row."""
    return [pytest.param(each, id=each.row.replace(" ", "-"), marks=pytest.mark.row(int(each.row.split()[0]), cut=cut)) for each in faults]


def check_fault(
    gateway: Gateway, upstream: Upstream, fault: Fault, *, streams: Sequence[bool] = (False,), sizes: Sequence[int] = (0, 1)
) -> None:
    """The fault delivered in slices of each of `sizes` (0: whole), to clients that stream and that do not; then the records of all."""
    failed = [provoke(gateway, upstream, fault, size, stream) for size in sizes for stream in streams]
    for answer, error in failed:
        record = check_failed(gateway, answer, error, status=fault.status, codes=fault.codes, outcome=fault.outcome)
        assert record["usage"] in fault.usage, record


def provoke(gateway: Gateway, upstream: Upstream, fault: Fault, size: int, stream: bool) -> tuple[Answer, dict[str, Any]]:
    upstream.forget()
    upstream.hang_up()
    upstream.play(*[sliced(fault.answer, size)] * fault.attempts)
    before = gateway.metric(FAILURES, provider="up")
    answer = chat(gateway.url, stream=stream)
    assert answer.status == fault.status, (size, stream, answer.body)
    error = error_of(answer)
    assert b"<html" not in answer.body and UPSTREAM_KEY.encode() not in answer.body
    assert answer.header("www-authenticate") is None
    gateway.wait_metric(before + fault.attempts, FAILURES, provider="up")
    assert len(upstream.requests) == fault.attempts
    assert answer.header("x-should-retry") == fault.should_retry, "the client would repeat what was repeated here, or nobody would"
    if not isinstance(fault.answer.steps[-1], Send):
        assert all(each.connection.closed.wait(1) for each in upstream.requests), "the gateway kept a connection that failed"
        check_ended_well(gateway, upstream)
    return answer, error
