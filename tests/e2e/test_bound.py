"""Two providers with ids of their own: what goes on with a response goes to who has it, in every worker and for every key."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway
from tests.support.provider_double import Answer, ProviderDouble, Seen, event, refusal, stream
from tests.support.raw_client import RawClient, ask

TIMES = 12


class Shop:
    """Makes responses and knows them again, but nobody else's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.made: set[str] = set()
        self._numbers = itertools.count()
        self.double = ProviderDouble(self._answer)

    def _answer(self, seen: Seen) -> Answer:
        segments = seen.path.removeprefix("/v1").split("/")
        if segments[1] != "responses":
            return Answer(body=b'{"object":"list","data":[]}')
        if len(segments) > 2:
            id = segments[2]
            if id not in self.made:
                return refusal(404, f"Response with id '{id}' not found.", "invalid_request_error")
            if seen.method == "DELETE":
                self.made.remove(id)
            return Answer(body=json.dumps({"id": id, "object": "response", "status": "completed", "output": []}).encode())
        before = seen.json.get("previous_response_id")
        if before and before not in self.made:
            return refusal(400, f"Previous response with id '{before}' not found.", "invalid_request_error", "previous_response_not_found")
        id = f"resp_{self.name}{next(self._numbers)}"
        self.made.add(id)
        value = {"id": id, "object": "response", "status": "completed", "output": [], "usage": {"input_tokens": 1, "output_tokens": 1}}
        if not seen.json.get("stream"):
            return Answer(body=json.dumps(value).encode())
        events: list[tuple[str, dict[str, Any]]] = [
            ("created", {"response": value}),
            ("output_text.delta", {"delta": "hi"}),
            ("completed", {"response": value}),
        ]
        return stream(event({"type": f"response.{kind}", **more}, f"response.{kind}") for kind, more in events)


@pytest.fixture
def shops() -> Iterator[tuple[Shop, Shop]]:
    a, b = Shop("a"), Shop("b")
    with a.double, b.double:
        yield a, b


def configured(shops: tuple[Shop, Shop], **more: Any) -> dict[str, Any]:
    return {
        "providers": {shop.name: {"kind": "openai", "base_url": shop.double.url, "api_key": "env:TEST_UPSTREAM_KEY"} for shop in shops},
        "models": {
            "m": {"targets": [{"provider": "a", "model": "x"}, {"provider": "b", "model": "x"}]},
            "a_then_b": {
                "targets": [{"provider": "a", "model": "x"}, {"provider": "b", "model": "x", "priority": 2}],
                "strategy": "priority",
            },
            "only_b": {"provider": "b", "model": "x"},
        },
        "default_provider": "a",
        **more,
    }


def respond(url: str, model: str = "m", **more: Any) -> str:
    """The id of what was made."""
    answer = ask(url, "POST", "/v1/responses", json.dumps({"model": model, "input": "x", **more}).encode())
    assert answer.status == 200, answer.body
    if more.get("stream"):
        line = next(line for line in answer.body.splitlines() if line.startswith(b"data:"))
        return str(json.loads(line.removeprefix(b"data:"))["response"]["id"])
    return str(json.loads(answer.body)["id"])


@pytest.mark.parametrize("streamed", [False, True])
def test_second_turns_and_whatever_names_a_response_go_to_who_has_it(shops: tuple[Shop, Shop], tmp_path: Path, streamed: bool) -> None:
    a, b = shops
    with Gateway(configured(shops), tmp_path) as gateway:
        for turn in range(TIMES):
            first = respond(gateway.url, ("a_then_b", "only_b")[turn % 2], stream=streamed)
            second = respond(gateway.url, stream=streamed, previous_response_id=first)
            assert second[:6] == first[:6]
            for method, path in [("GET", ""), ("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", "")]:
                assert ask(gateway.url, method, f"/v1/responses/{first}{path}").status == 200
            assert ask(gateway.url, "GET", f"/v1/responses/{first}").status == 404
        assert (len(a.made), len(b.made)) == (TIMES / 2, TIMES / 2), "the second turns'"
        deleted = [seen for shop in shops for seen in shop.double.seen if seen.method == "DELETE"]
        assert len(deleted) == TIMES, "each by who has it, and by nobody else"


def test_what_the_gateway_has_never_seen_is_searched_for(shops: tuple[Shop, Shop], tmp_path: Path) -> None:
    for shop in shops:
        shop.made.add(f"resp_{shop.name}_old")
    with Gateway(configured(shops), tmp_path) as gateway, RawClient(gateway.url) as client:
        tried = []
        for name in ("a_old", "b_old", "a_old", "b_old", "gone"):
            body = {"model": "a_then_b", "input": "x", "previous_response_id": f"resp_{name}"}
            answer = client.ask("POST", "/v1/responses", json.dumps(body).encode())
            tried.append((answer.status, gateway.record_of(answer)["attempts"]))
        assert tried == [(200, 1), (200, 2), (200, 1), (200, 1), (400, 2)]


def test_what_one_worker_has_seen_made_the_others_know(shops: tuple[Shop, Shop], tmp_path: Path) -> None:
    # Without a fallback nobody searches.
    with Gateway(configured(shops, server={"workers": 2}, policies={"fallback": False}), tmp_path) as gateway:
        made = respond(gateway.url, "only_b")
        _wait_found_by_both(gateway, made)
        before = _pids(gateway)
        os.kill(before[0], signal.SIGKILL)
        until = time.monotonic() + 10
        while len(pids := _pids(gateway)) < 2 or before[0] in pids:
            assert time.monotonic() < until, pids
            time.sleep(0.05)
        _wait_found_by_both(gateway, made)


def _pids(gateway: Gateway) -> list[int]:
    with urllib.request.urlopen(f"{gateway.admin}/readyz", timeout=5) as answer:
        return [worker["pid"] for worker in json.load(answer)["workers"] if worker["state"] == "ready"]


def _wait_found_by_both(gateway: Gateway, made: str) -> None:
    found: set[int] = set()
    until = time.monotonic() + 10
    while len(found) < 2:
        assert time.monotonic() < until, found
        with RawClient(gateway.url) as client:  # its connection is taken by either of them
            answer = client.ask("GET", f"/v1/responses/{made}")
            if answer.status == 200:
                found.add(gateway.record_of(answer)["worker"])
