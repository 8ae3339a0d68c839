"""Providers that fail by chance, and clients that leave by chance.

Each request has a right answer or a right error, one record, and a bounded cost; and nothing of it is left behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.chaos import ChaoticUpstream
from tests.support.gateway import Gateway, checked_error, provider

REQUESTS = int(os.environ.get("CHAOS_REQUESTS", "300"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
AT_ONCE = 16
LEAVING = 0.05

#: Statuses that the upstreams' ways to fail come to.
RIGHT_ERRORS = {400, 429, 500, 502, 503, 504}

#: What the budget gives for each request, for each second, and at first (proxy/core/retry_budget.py).
SHARE, A_SECOND, AT_FIRST = 0.1, 1.0, 10.0

#: Sockets that are not the pools', such as the one that asks for the metrics.
SPARE = 3


def config(upstreams: list[ChaoticUpstream]) -> dict[str, Any]:
    targets = {name: [{"provider": each.name, "model": f"m-{each.name}"} for each in upstreams[:2]] for name in ("shared", "tiered")}
    for place, target in enumerate(targets["tiered"]):
        target["priority"] = str(place + 1)
    return {
        "providers": {each.name: provider(each.url) for each in upstreams},
        "models": {
            "shared": {"targets": targets["shared"], "strategy": "least_busy", "fallback": ["spare"]},
            "tiered": {
                "targets": targets["tiered"],
                "strategy": "priority",
                "fallback": [{"on": "context_window", "to": "spare"}, "spare"],
            },
            "spare": {"provider": upstreams[2].name, "model": "m-spare"},
        },
        "policies": {"retry": {"base": "10ms", "cap": "50ms", "budget": SHARE}},
    }


class Crowd:
    """Asks, and judges each answer when it is there. `statuses`: by id, what the client was told; None where it left."""

    def __init__(self, url: str, upstreams: list[ChaoticUpstream]) -> None:
        self.url = url
        self.upstreams = upstreams
        self.statuses: dict[str, int | None] = {}
        self.broken: set[str] = set()
        self.outcomes: Counter[str] = Counter()

    async def run(self) -> None:
        dice = random.Random(SEED)
        numbers = iter(range(REQUESTS))
        async with AsyncExitStack() as stack:
            # A stream's connection is not used again: after one that broke the gateway closes it, and the next request could be on its way.
            sessions = [await stack.enter_async_context(_session(force_close)) for force_close in (False, True)]
            await asyncio.gather(*(self._one_after_another(sessions, numbers, dice) for _ in range(AT_ONCE)))

    async def _one_after_another(self, sessions: list[aiohttp.ClientSession], numbers: Any, dice: random.Random) -> None:
        for number in numbers:
            question, streams = f"question-{number}", dice.random() < 0.5
            body: dict[str, Any] = {
                "model": dice.choice(("shared", "tiered", "spare")),
                "messages": [{"role": "user", "content": question}],
            }
            if streams:
                body |= {"stream": True, "stream_options": {"include_usage": True}}
            leaves = streams and dice.random() < 2 * LEAVING
            async with sessions[streams].post(f"{self.url}/v1/chat/completions", json=body) as answer:
                name = answer.headers["x-request-id"]
                assert name not in self.statuses
                if leaves:
                    await answer.content.readany()
                    answer.close()
                    self.statuses[name] = None
                    self.outcomes["left"] += 1
                    continue
                self.statuses[name] = answer.status
                content = await answer.read()
                if self._judge(question, answer.status, streams, content) == "broken":
                    self.broken.add(name)

    def _judge(self, question: str, status: int, streams: bool, content: bytes) -> str:
        outcome = self._outcome(question, status, streams, content)
        self.outcomes[outcome] += 1
        return outcome

    def _outcome(self, question: str, status: int, streams: bool, content: bytes) -> str:
        if status != 200:
            assert status in RIGHT_ERRORS, (status, content)
            checked_error(json.loads(content)["error"])
            return "error"
        sent = [body for upstream in self.upstreams for body in upstream.sent[question]]
        if content in sent:
            return "stream" if streams else "whole"
        assert streams, f"an answer that nobody gave: {content!r}"
        events = content.split(b"\n\n")[:-1]
        begun = b"".join(each + b"\n\n" for each in events[:-1])
        checked_error(json.loads(events[-1].removeprefix(b"data: "))["error"])
        assert begun and any(body.startswith(begun) for body in sent), f"not one answer's beginning: {content!r}"
        assert b"[DONE]" not in content
        return "broken"


def _session(force_close: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30), connector=aiohttp.TCPConnector(force_close=force_close))


@dataclass(frozen=True, slots=True)
class Held:
    """What the gateway holds at a moment: file descriptors, tasks, requests in flight."""

    descriptors: int
    tasks: float
    active: float

    @staticmethod
    def now(gateway: Gateway) -> Held:
        descriptors = len(os.listdir(f"/proc/{gateway.process.pid}/fd"))
        return Held(descriptors, gateway.metric("comporta_tasks"), gateway.metric("llm_active_requests"))


def check_nothing_left(gateway: Gateway, before: Held, upstreams: list[ChaoticUpstream]) -> None:
    """All that the load took has been given back, but for idle connections to the upstreams. Tasks are counted once a second."""
    until = time.monotonic() + 5
    while True:
        held, pooled = Held.now(gateway), sum(upstream.open for upstream in upstreams)
        faults = {
            "requests in flight": held.active,
            "descriptors": held.descriptors > before.descriptors + pooled + SPARE,
            "tasks": held.tasks > before.tasks + SPARE,
        }
        if not any(faults.values()):
            return
        assert time.monotonic() < until, f"{faults}: {before} before, {held} after, {pooled} idle connections to upstreams"
        time.sleep(0.2)


def check_records(crowd: Crowd, records: list[dict[str, Any]]) -> None:
    """One for each request, which tells what its client saw."""
    assert sorted(record["id"] for record in records) == sorted(crowd.statuses)
    for record in records:
        told = crowd.statuses[record["id"]]
        if told is None:
            assert record["outcome"] in ("cancelled", "ok", "upstream_error", "client_error", "gateway_error"), record
        elif told != 200:
            assert record["status"] == told and record["outcome"] != "ok", record
        else:
            assert (record["outcome"] == "ok") is (record["id"] not in crowd.broken), record


def check_cost(gateway: Gateway, upstreams: list[ChaoticUpstream], records: list[dict[str, Any]], seconds: float) -> str:
    """Every call is a request's or a switch's first attempt, a retry, or a repeat on a fresh connection; retries keep to the budget.

    A switch past a first choice that is out comes before any attempt: the one after it is the request's first.
    """
    switches = gateway.metric("llm_fallbacks_total") - gateway.metric("llm_fallbacks_total", cause="unavailable")
    stale = gateway.metric("llm_upstream_failures_total", kind="stale_connection")
    retries = gateway.metric("llm_retries_total")
    calls = sum(upstream.calls for upstream in upstreams)
    assert calls == REQUESTS + switches + retries + stale
    assert calls - stale == sum(record["attempts"] for record in records)
    for upstream in upstreams:
        made = gateway.metric("llm_retries_total", provider=upstream.name)
        repeated = gateway.metric("llm_upstream_failures_total", provider=upstream.name, kind="stale_connection")
        offered = upstream.calls - made - repeated
        assert made <= SHARE * offered + A_SECOND * seconds + AT_FIRST, (upstream.name, made, offered, seconds)
    offered = REQUESTS + switches
    bound = (1 + SHARE) * offered + len(upstreams) * (A_SECOND * seconds + AT_FIRST)
    assert calls - stale <= bound
    return f"{REQUESTS} requests and {switches:.0f} switches: {calls} calls, {retries:.0f} of them retries; at most {bound:.0f}"


@pytest.mark.row(57)
@pytest.mark.several_targets
def test_providers_that_fail_by_chance_never_make_an_answer_wrong(tmp_path: Path):
    upstreams = [ChaoticUpstream(name, SEED + place) for place, name in enumerate(("one", "two", "three"))]
    try:
        with Gateway(config(upstreams), tmp_path) as gateway:
            before = Held.now(gateway)
            crowd = Crowd(gateway.url, upstreams)
            started = time.monotonic()
            asyncio.run(crowd.run())
            seconds = time.monotonic() - started
            gateway.mark()
            records = gateway.records
            check_records(crowd, records)
            cost = check_cost(gateway, upstreams, records, seconds)
            check_nothing_left(gateway, before, upstreams)
    finally:
        for upstream in upstreams:
            upstream.stop()
    sys.stdout.write(f"{cost}; {seconds:.1f} s; {dict(crowd.outcomes)}\n")
    assert sum(crowd.outcomes.values()) == REQUESTS
    assert all(crowd.outcomes[each] for each in ("whole", "stream", "broken", "error", "left"))
    assert crowd.outcomes["error"] < 0.25 * REQUESTS
