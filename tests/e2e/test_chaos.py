"""Providers that fail by chance, under mixed load: each request has a right answer or a right error, one record, and a bounded cost."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.chaos import ChaoticUpstream
from tests.support.gateway import Gateway, checked_error, provider

REQUESTS = int(os.environ.get("CHAOS_REQUESTS", "300"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
AT_ONCE = 16

#: Statuses that the upstreams' ways to fail come to.
RIGHT_ERRORS = {400, 429, 500, 502, 503, 504}


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
        "policies": {"retry": {"base": "10ms", "cap": "50ms"}},
    }


class Crowd:
    """Asks, and judges each answer when it is there."""

    def __init__(self, url: str, upstreams: list[ChaoticUpstream]) -> None:
        self.url = url
        self.upstreams = upstreams
        self.ids: list[str] = []
        self.outcomes: Counter[str] = Counter()

    async def run(self) -> None:
        dice = random.Random(SEED)
        numbers = iter(range(REQUESTS))
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=30), connector=aiohttp.TCPConnector(force_close=True)
        ) as session:
            await asyncio.gather(*(self._one_after_another(session, numbers, dice) for _ in range(AT_ONCE)))

    async def _one_after_another(self, session: aiohttp.ClientSession, numbers: Any, dice: random.Random) -> None:
        for number in numbers:
            question, streams = f"question-{number}", dice.random() < 0.5
            body: dict[str, Any] = {
                "model": dice.choice(("shared", "tiered", "spare")),
                "messages": [{"role": "user", "content": question}],
            }
            if streams:
                body |= {"stream": True, "stream_options": {"include_usage": True}}
            async with session.post(f"{self.url}/v1/chat/completions", json=body) as answer:
                self.ids.append(answer.headers["x-request-id"])
                content = await answer.read()
                self._judge(question, answer.status, streams, content)

    def _judge(self, question: str, status: int, streams: bool, content: bytes) -> None:
        if status != 200:
            assert status in RIGHT_ERRORS, (status, content)
            checked_error(json.loads(content)["error"])
            self.outcomes["error"] += 1
            return
        sent = [body for upstream in self.upstreams for body in upstream.sent[question]]
        if content in sent:
            self.outcomes["stream" if streams else "whole"] += 1
            return
        assert streams, f"an answer that nobody gave: {content!r}"
        events = content.split(b"\n\n")[:-1]
        begun = b"".join(each + b"\n\n" for each in events[:-1])
        checked_error(json.loads(events[-1].removeprefix(b"data: "))["error"])
        assert begun and any(body.startswith(begun) for body in sent), f"not one answer's beginning: {content!r}"
        assert b"[DONE]" not in content
        self.outcomes["broken"] += 1


def test_providers_that_fail_by_chance_never_make_an_answer_wrong(tmp_path: Path):
    upstreams = [ChaoticUpstream(name, SEED + place) for place, name in enumerate(("one", "two", "three"))]
    try:
        with Gateway(config(upstreams), tmp_path) as gateway:
            crowd = Crowd(gateway.url, upstreams)
            started = time.monotonic()
            asyncio.run(crowd.run())
            seconds = time.monotonic() - started
            gateway.mark()
            switches = gateway.metric("llm_fallbacks_total")
            stale = gateway.metric("llm_upstream_failures_total", kind="stale_connection")
            records = gateway.records
    finally:
        for upstream in upstreams:
            upstream.stop()
    calls = sum(upstream.calls for upstream in upstreams)
    sys.stdout.write(f"{REQUESTS} requests in {seconds:.1f} s, {calls} calls, {switches:.0f} switches, {dict(crowd.outcomes)}\n")
    assert sorted(record["id"] for record in records) == sorted(crowd.ids)
    assert len(crowd.ids) == REQUESTS
    assert crowd.outcomes["whole"] and crowd.outcomes["stream"]
    # Each switch is a first attempt of its own; each provider's budget is a tenth of its requests, one a second, and ten seconds' saving.
    assert calls <= 1.1 * (REQUESTS + switches) + 3 * (seconds + 10) + stale
    assert crowd.outcomes["error"] < 0.25 * REQUESTS
