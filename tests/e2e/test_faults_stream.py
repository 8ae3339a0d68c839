"""Rows 8, 10, 20, 23 and 25 of the fault matrix: a stream that fails after content has gone out."""

from __future__ import annotations

import time

import pytest

from tests.e2e.faults import COMMITTED, FAILURES, Cut, Fault, cases, check_ended_well, check_failed, fault
from tests.support.gateway import Gateway, stream_error_of
from tests.support.raw_client import RawClient, chat_body
from tests.support.script import DONE, LAST_CHUNK, Fin, Reset, Send, Stall, Wait, chunk, delta, event, head, usage
from tests.support.upstream import Upstream

# -------------------------------------------------------------------------------------------- rows 8, 10, 20, 23, 25: failure after content
LATE_ERROR = event({"error": {"message": "the model fell over", "type": "server_error", "code": 500}})
LATE_WORDS = event({"error": "the model fell over"})
COUNTED = chunk(event({**delta(" you"), "usage": usage(7, 3)}))
COMMENTS = tuple(step for _ in range(12) for step in (Wait(0.25), Send(chunk(b": ping\n\n"))))
EMPTIES = tuple(
    step
    for _ in range(6)
    for step in (Wait(0.25), Send(chunk(event(delta("")))), Wait(0.25), Send(chunk(event({**delta(""), "choices": []}))))
)
LENGTH = head(200, [("Content-Type", "text/event-stream"), ("Content-Length", "5000")])

BROKEN_STREAMS = [
    fault("8 reset", *COMMITTED, Reset(), codes=["stream_interrupted"], usage=("estimated",)),
    fault("8 closed", *COMMITTED, Fin(), codes=["stream_interrupted"], usage=("estimated",)),
    fault(
        "8 reset inside an event",
        *COMMITTED,
        chunk(event(delta(" you")))[:-20],
        Reset(),
        codes=["stream_interrupted"],
        usage=("estimated",),
    ),
    fault(
        "8 closed inside an event", *COMMITTED, chunk(event(delta(" you"))[:40]), Fin(), codes=["stream_interrupted"], usage=("estimated",)
    ),
    fault("8 chunk size of letters", *COMMITTED, b"xyz\r\nabc\r\n", Stall(), codes=["stream_interrupted"], usage=("estimated",)),
    fault("8 short of its length", LENGTH + event(delta("Hello")), Wait(0.05), Fin(), codes=["stream_interrupted"], usage=("estimated",)),
    fault("8 after usage", *COMMITTED, COUNTED, Reset(), codes=["stream_interrupted"], usage=("reported",)),
    fault("10 silence", *COMMITTED, Stall(), status=504, codes=["upstream_timeout"], usage=("estimated",)),
    fault("10 comments only", *COMMITTED, *COMMENTS, Stall(), status=504, codes=["upstream_timeout"], usage=("estimated",)),
    fault("10 events without content", *COMMITTED, *EMPTIES, Stall(), status=504, codes=["upstream_timeout"], usage=("estimated",)),
    fault("23 no finish reason", *COMMITTED, LAST_CHUNK, codes=["stream_truncated"], usage=("estimated",)),
    fault(
        "23 half an event last", *COMMITTED, chunk(event(delta(" you"))[:30]) + LAST_CHUNK, codes=["stream_truncated"], usage=("estimated",)
    ),
    fault(
        "25 an error later",
        *COMMITTED,
        chunk(LATE_ERROR) + chunk(event(delta(" after all"))) + LAST_CHUNK,
        status=500,
        codes=["server_error", "500"],
        usage=("estimated",),
    ),
    fault(
        "25 an error later, then silence",
        *COMMITTED,
        chunk(LATE_ERROR),
        Stall(),
        status=500,
        codes=["server_error", "500"],
        usage=("estimated",),
    ),
    fault(
        "25 an error of words",
        *COMMITTED,
        chunk(LATE_WORDS) + chunk(DONE) + LAST_CHUNK,
        status=502,
        codes=["server_error", None],
        usage=("estimated",),
    ),
    fault(
        "25 an error after usage",
        *COMMITTED,
        COUNTED + chunk(LATE_ERROR) + chunk(DONE) + LAST_CHUNK,
        status=500,
        codes=["server_error", "500"],
        usage=("reported",),
    ),
]


@pytest.mark.parametrize("broken", cases(BROKEN_STREAMS, cut=""))
def test_failure_after_content(gateway: Gateway, upstream: Upstream, cut: Cut, broken: Fault) -> None:
    upstream.play(cut(broken.answer))
    served = "hasty" if broken.status == 504 else "up"
    before = gateway.metric(FAILURES, provider=served)
    started = time.monotonic()
    with RawClient(gateway.url) as client:
        answer = client.ask("POST", "/v1/chat/completions", chat_body(f"{served}/any", stream=True))
        took = time.monotonic() - started
        error = stream_error_of(answer)
        assert client.is_closed(), "the connection stayed open after a stream that failed"
    text = "".join(choice["delta"].get("content") or "" for value in answer.values[:-1] for choice in value["choices"])
    assert text.startswith("Hello"), answer.body
    assert "after all" not in text
    record = check_failed(gateway, answer, error, status=broken.status, codes=broken.codes)
    assert record["usage"] in broken.usage, record
    if broken.row.startswith("25"):
        assert error["message"] == "the model fell over"
    if broken.status == 504:
        assert 0.9 < took < 2.5, f"it took {took} s: what is no content reset the timer"
    gateway.wait_metric(before + 1, FAILURES, provider=served)
    if not isinstance(broken.answer.steps[-1], Send):
        assert upstream.requests[0].connection.closed.wait(1), "the gateway kept a connection that failed"
        check_ended_well(gateway, upstream)
