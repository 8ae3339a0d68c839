"""Responses in the background: what they cost is in the records, once, whoever reads their end and how."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tests.support.gateway import Gateway
from tests.support.raw_client import RawClient, ask
from tests.support.script import LAST_CHUNK, Reset, Script, Stall, chunk, head, json_response, script, sse, stream_head
from tests.support.upstream import Upstream

PATH = "/v1/responses"
NUMBERS = itertools.count()


class Response:
    """One at the provider; each test has its own."""

    def __init__(self, gateway: Gateway, upstream: Upstream) -> None:
        self.gateway, self.upstream = gateway, upstream
        self.id = f"resp_background_{next(NUMBERS)}"
        self.sent = json.dumps({"model": "test-model", "input": "x" * 400, "background": True}).encode()
        self.prompt = (len(self.sent) + 3) // 4

    def now(self, status: str, used: tuple[int, int] | None = None) -> dict[str, Any]:
        usage = {"input_tokens": used[0], "output_tokens": used[1]} if used else None
        return {"id": self.id, "object": "response", "status": status, "background": True, "usage": usage, "output": []}

    def events(self, *statuses: str, used: tuple[int, int] | None = None) -> list[bytes]:
        return [
            f"event: response.{status}\ndata: ".encode()
            + json.dumps({"type": f"response.{status}", "response": self.now(status, used if status == "completed" else None)}).encode()
            + b"\n\n"
            for status in statuses
        ]

    def ask(self, method: str, path: str, answer: Script, body: bytes = b"") -> tuple[str, int | None, int | None]:
        """What the record says of its cost."""
        mark = self.gateway.mark()
        self.upstream.play(answer)
        ask(self.gateway.url, method, path, body)
        return self.cost(mark)

    def cost(self, mark: Any) -> tuple[str, int | None, int | None]:
        record = self.gateway.record_since(mark)
        return record["usage"], record["prompt_tokens"], record["completion_tokens"]

    def begin(self) -> tuple[str, int | None, int | None]:
        return self.ask("POST", PATH, script(json_response(200, self.now("queued"))), self.sent)

    def read(self, status: str, used: tuple[int, int] | None = None, how: str = "") -> tuple[str, int | None, int | None]:
        return self.ask("GET", f"{PATH}/{self.id}{how}", script(json_response(200, self.now(status, used))))


@pytest.fixture
def made(gateway: Gateway, upstream: Upstream) -> Response:
    return Response(gateway, upstream)


NONE = ("none", None, None)
USED = (5000, 90000)


def test_the_first_answer_that_tells_of_its_end_has_what_it_cost_beyond_the_estimate(made: Response) -> None:
    assert made.begin() == ("estimated", made.prompt, 0)
    assert made.read("in_progress") == NONE
    assert made.read("completed", USED) == ("reported", 5000 - made.prompt, 90000)
    assert made.read("completed", USED) == NONE, "it was accounted for"


def test_its_end_may_come_as_a_stream(made: Response) -> None:
    made.begin()
    read = f"{PATH}/{made.id}?stream=true"
    assert made.ask("GET", read, script(sse(made.events("queued", "in_progress"), done=False))) == NONE
    whole = script(sse(made.events("created", "completed", used=USED), done=False))
    assert made.ask("GET", read, whole) == ("reported", 5000 - made.prompt, 90000)
    assert made.ask("GET", read, whole) == NONE


def test_an_end_that_does_not_arrive_is_still_to_come(made: Response) -> None:
    made.begin()
    cut = head(200, [("Content-Type", "application/json"), ("Content-Length", "1000")]) + b'{"id": "' + made.id.encode()
    assert made.ask("GET", f"{PATH}/{made.id}", script(cut, Reset())) == NONE
    assert made.read("incomplete", USED) == ("reported", 5000 - made.prompt, 90000)


def test_one_that_is_cancelled_may_have_cost_something(made: Response) -> None:
    made.begin()
    cancelled = script(json_response(200, made.now("cancelled", (200, 7))))
    assert made.ask("POST", f"{PATH}/{made.id}/cancel", cancelled) == ("reported", 200 - made.prompt, 7)


def test_a_stream_that_is_left_before_its_end_is_accounted_for_as_far_as_it_came(made: Response) -> None:
    sent = json.dumps({**json.loads(made.sent), "stream": True}).encode()
    prompt = (len(sent) + 3) // 4
    first = b"".join(made.events("created"))
    made.upstream.play(script(stream_head() + chunk(first), Stall()))
    mark = made.gateway.mark()
    with RawClient(made.gateway.url) as client:
        client.send(client.request_bytes("POST", PATH, body=sent))
        client.read_until(client.read_head(), first)
    assert made.cost(mark) == ("estimated", prompt, 0)
    assert made.read("completed", USED) == ("reported", 5000 - prompt, 90000)


def test_what_was_reported_with_its_stream_is_not_accounted_for_again(made: Response) -> None:
    sent = json.dumps({**json.loads(made.sent), "stream": True}).encode()
    events = b"".join(made.events("created", "completed", used=USED))
    assert made.ask("POST", PATH, script(stream_head() + chunk(events) + LAST_CHUNK), sent) == ("reported", 5000, 90000)
    assert made.read("completed", USED) == NONE


def test_what_was_not_begun_here_is_not_accounted_for_here(made: Response) -> None:
    assert made.read("completed", USED) == NONE
