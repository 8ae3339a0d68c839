"""Every request ends in one record, and a record holds nothing but names, numbers and codes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from policies.record import MOST_KINDS, Record, RecordSettings, line, verdict
from proxy.core.call import Attempt, Call, Target, Usage
from proxy.core.errors import START, CapacityError, ClientDisconnected, ClientError, GatewayError, StreamError, UpstreamError, late
from proxy.core.metrics import MANY, Registry
from proxy.core.protocols import Handler, Services
from proxy.core.recent import Recent
from proxy.core.reply import Reply
from proxy.core.resolved import Resolved
from tests.core.doubles import HandClock, make_call

FIELDS = {
    "event", "id", "operation", "model", "served", "provider", "status", "outcome", "stream", "attempts", "prompt_tokens",
    "completion_tokens", "usage", "total_ms", "overhead_ms", "bytes_in", "bytes_out", "first_token_ms", "per_token_ms", "error",
}  # fmt: skip
CANARY = "canary-4711"


async def ended(record: Record, call: Call, innermost: Handler, error: BaseException | None = None) -> None:
    """`call` goes all its way, and its reply breaks off by `error`, if that is one."""
    call.end(await record(call, innermost), error)


class Bench:
    """A record policy with everything that it writes."""

    def __init__(self, *, log: bool = True) -> None:
        self.clock = HandClock()
        self.metrics = Registry()
        self.lines: list[dict[str, Any]] = []
        self.record = Record(RecordSettings(log=log), Services(self.clock, self.metrics, self.lines.append))

    async def run(self, call: Call, innermost: Callable[[Call], Any]) -> Reply:
        async def handler(inner: Call) -> Reply:
            result = innermost(inner)
            if isinstance(result, BaseException):
                raise result
            assert isinstance(result, Reply)
            return result

        try:
            return await self.record(call, handler)
        except BaseException as error:
            call.end(None, error)
            raise

    async def end(self, call: Call) -> None:
        """It goes all its way."""
        call.end(await self.run(call, lambda _call: Reply(200)), None)

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        family = self.metrics.counters.get(name) or self.metrics.gauges[name]
        return {labels: child.value for labels, child in family.children.items() if child.value}

    def observed(self, name: str) -> dict[tuple[str, ...], int]:
        return {labels: sum(child.counts) for labels, child in self.metrics.histograms[name].children.items() if sum(child.counts)}


def impatience() -> UpstreamError:
    """What ends an attempt whose client did not wait for as long as the administrator lets it last."""
    error = late(START)
    error.acquit()
    return error


@pytest.mark.parametrize(
    ("reply", "error", "expected"),
    [
        (Reply(200), None, (200, "ok", None)),
        (Reply(201), None, (201, "ok", None)),
        (None, ClientError("m", code="c"), (400, "client_error", "c")),
        (None, CapacityError("m"), (503, "gateway_error", "overloaded")),
        (None, UpstreamError("dns", "m"), (502, "upstream_error", "dns")),
        (None, UpstreamError("upstream_timeout", "m"), (504, "upstream_error", "upstream_timeout")),
        (None, impatience(), (504, "client_error", "deadline_exceeded")),
        (None, GatewayError("m"), (500, "gateway_error", "internal_error")),
        (None, RuntimeError("m"), (500, "gateway_error", "internal_error")),
        (None, asyncio.CancelledError(), (499, "cancelled", "client_disconnected")),
        (None, ClientDisconnected("m"), (499, "cancelled", "client_disconnected")),
        (Reply(200), ClientDisconnected("m"), (499, "cancelled", "client_disconnected")),
        (Reply(200), asyncio.CancelledError(), (499, "cancelled", "client_disconnected")),
        (Reply(200), StreamError("stream_truncated", "m"), (502, "upstream_error", "stream_truncated")),
        (None, None, (500, "ok", None)),
    ],
)
def test_a_verdict_says_whose_fault_it_was(reply: Reply | None, error: BaseException | None, expected: tuple[int, str, str | None]):
    assert verdict(reply, error) == expected


def busy_call() -> Call:
    """A call with something in every place where a secret could stand."""
    return make_call(
        model="fast",
        headers={"authorization": CANARY, "x-other": CANARY},
        query=f"key={CANARY}",
        raw=CANARY.encode(),
        body={"messages": [CANARY]},
        notes={"x": CANARY},
        target=Target("east", "gpt", "fast"),
        attempts=[Attempt(Target("east", "gpt", "fast"), 1000.0, error=CANARY)],
        usage=Usage(9, 5, reported=True),
        stream=True,
        first_token=1000.25,
        last_token=1000.65,
        tokens_seen=5,
        overhead=0.0012,
        bytes_in=7,
        bytes_out=8,
    )


def test_a_line_has_the_listed_fields_and_no_other():
    fields = line(busy_call(), 200, "ok", "code", 1001.0)
    assert set(fields) == FIELDS
    assert CANARY not in repr(fields)
    assert fields["total_ms"] == 1000.0
    assert fields["first_token_ms"] == 250.0
    assert fields["per_token_ms"] == 100.0
    assert fields["overhead_ms"] == 1.2
    assert (fields["model"], fields["served"], fields["provider"]) == ("fast", "gpt", "east")
    assert (fields["prompt_tokens"], fields["completion_tokens"], fields["usage"]) == (9, 5, "reported")


def test_a_line_of_a_call_that_came_nowhere_says_so():
    fields = line(make_call("unknown"), 404, "client_error", "unknown_url", 1000.0)
    assert fields["usage"] == "none"
    assert fields["provider"] is fields["served"] is fields["prompt_tokens"] is None
    assert not {"first_token_ms", "per_token_ms"} & set(fields)


@pytest.mark.parametrize(("tokens", "last"), [(1, 1000.5), (0, 1000.5), (5, None)])
def test_one_content_has_no_time_between_contents(tokens: int, last: float | None):
    fields = line(make_call(first_token=1000.25, last_token=last, tokens_seen=tokens), 200, "ok", None, 1001.0)
    assert "first_token_ms" in fields
    assert not {"per_token_ms", "error"} & set(fields)


async def test_a_request_is_recorded_when_its_reply_is_over_and_only_once():
    bench = Bench()
    call = busy_call()
    reply = await bench.run(call, lambda call: Reply(200))
    assert not bench.lines
    assert bench.counted("llm_active_requests") == {(): 1}
    bench.clock.move(2.0)
    call.end(reply, None)
    call.end(reply, None)
    assert reply.closed
    assert [(found["status"], found["outcome"], found["total_ms"]) for found in bench.lines] == [(200, "ok", 2000.0)]
    assert bench.counted("llm_active_requests") == {}
    assert bench.counted("llm_requests_total") == {("chat", "200", "east", "fast"): 1}
    assert bench.counted("llm_tokens_total") == {("chat", "east", "fast", "prompt"): 9, ("chat", "east", "fast", "completion"): 5}
    for name in ("llm_latency_seconds", "llm_response_length", "llm_time_to_first_token_seconds", "llm_time_per_output_token_seconds"):
        assert bench.observed(name) == {("chat", "east", "fast"): 1}, name
    assert bench.observed("llm_overhead_seconds") == {("chat",): 1}


@pytest.mark.parametrize(
    ("error", "status", "rejected"),
    [
        (ClientError("m", status=404, code="model_not_found"), 404, {("model_not_found",): 1}),
        (ClientError("m"), 400, {("unknown",): 1}),
        (CapacityError("m"), 503, {("overloaded",): 1}),
        (RuntimeError("m"), 500, {("internal_error",): 1}),
        (UpstreamError("dns", "m"), 502, {}),
        (UpstreamError("rejected", "m", status=422, code=CANARY), 422, {}),
        (impatience(), 504, {("deadline_exceeded",): 1}),
        (ClientDisconnected("m"), 499, {}),
        (asyncio.CancelledError(), 499, {}),
    ],
)
async def test_a_request_that_fails_is_recorded_too(error: BaseException, status: int, rejected: dict[tuple[str, ...], float]):
    bench = Bench()
    with pytest.raises(type(error)):
        await bench.run(make_call(), lambda call: error)
    assert [found["status"] for found in bench.lines] == [status]
    assert bench.counted("llm_requests_total") == {("chat", str(status), "none", "none"): 1}
    assert bench.counted("llm_rejected_total") == rejected
    assert bench.counted("llm_active_requests") == {}


async def test_a_stream_that_breaks_is_recorded_as_what_broke_it():
    bench = Bench()
    call = busy_call()
    call.end(await bench.run(call, lambda call: Reply(200)), StreamError("stream_truncated", "m"))
    assert [(found["status"], found["outcome"], found["error"]) for found in bench.lines] == [(502, "upstream_error", "stream_truncated")]


@pytest.mark.parametrize(("named", "written"), [("req_1-a.b:c", "req_1-a.b:c"), ("x" * 200, None), (f"so {CANARY}", None), ("", None)])
async def test_a_line_of_a_failure_has_the_providers_name_of_the_request_if_it_is_one(named: str, written: str | None):
    told = {"x-comporta-provider-request-id": named}
    refused = UpstreamError("server_error", "m")
    refused.headers = told
    bench = Bench()
    with pytest.raises(UpstreamError):
        await bench.run(make_call(), lambda call: refused)
    broken = busy_call()
    broken.end(await bench.run(broken, lambda call: Reply(200, dict(told))), StreamError("stream_truncated", "m"))
    assert [found.get("provider_request_id") for found in bench.lines] == [written] * 2


@pytest.mark.parametrize(
    ("target", "labels"),
    [
        (Target("east", "gpt", "fast"), ("east", "fast")),
        (Target("east", CANARY), ("east", "other")),
        (Target("east", None), ("east", "other")),
        (None, ("none", "none")),
    ],
)
async def test_labels_are_configured_names_and_nothing_else(target: Target | None, labels: tuple[str, str]):
    bench = Bench()
    await bench.end(make_call(model=CANARY, target=target))
    assert bench.counted("llm_requests_total") == {("chat", "200", *labels): 1}
    families: list[Any] = [*bench.metrics.counters.values(), *bench.metrics.gauges.values(), *bench.metrics.histograms.values()]
    assert CANARY not in repr([list(family.children) for family in families])


async def test_a_thousand_made_up_models_are_one_series():
    bench = Bench()
    for number in range(1000):
        call = make_call(model=f"east/{number}", target=Target("east", str(number)))
        await bench.end(call)
    assert bench.counted("llm_requests_total") == {("chat", "200", "east", "other"): 1000}


async def test_the_log_can_be_switched_off_and_the_metrics_stay():
    bench = Bench(log=False)
    await bench.end(make_call())
    assert not bench.lines
    assert sum(bench.counted("llm_requests_total").values()) == 1


class Log:
    """Takes JSON's members too."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.texts: list[str] = []

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def members(self, shared: bytes, own: bytes) -> None:
        self.texts.append((b"{%b,%b" % (shared, own[1:])).decode())


def answered(**members: Any) -> Call:
    target = Target("east", "gpt", "fast")
    given: dict[str, Any] = {"target": target, "attempts": [Attempt(target, 1000.0)], "usage": Usage(9, 5, reported=True), "model": "fast"}
    return make_call(**{"overhead": 0.0012, "bytes_in": 7, "bytes_out": 8, "resolved": Resolved(source="user"), **given, **members})


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"model": 'a "quoted" \\ model\n, été', "id": 'req_"\\'},
        {"model": "100 %d of %b", "id": "req_%s", "target": Target("%", "%%")},
        {"resolved": None},
        {"notes": {"x": CANARY}},
        {"resolved": Resolved(task_type="REPORT")},
        {"resolved": Resolved(task_type="REPORT", is_known_task_type=False)},
        {"usage": Usage(10**12, 0), "target": Target("west", "gpt"), "stream": True},
        {"first_token": 1000.0004, "stream": True},
        {"first_token": 1000.25, "last_token": 1000.65, "tokens_seen": 5, "stream": True},
        {"attempts": [], "overhead": 12.3456789, "bytes_in": 10**10},
    ],
    ids=str,
)
async def test_a_line_of_json_says_what_the_event_would(members: dict[str, Any]):
    clock, log = HandClock(1001.2346), Log()
    record = Record(RecordSettings(), Services(clock, Registry(), log))
    for _ in range(2):  # the second one is put together from what the first one left
        call = answered(**members)

        async def answer(_call: Call) -> Reply:
            return Reply(201)

        await ended(record, call, answer)
        written = json.loads(log.texts.pop())
        assert written == line(call, 201, "ok", None, 1001.2346)
        assert list(written) == list(line(call, 201, "ok", None, 1001.2346))
    assert not log.events and not log.texts


async def test_values_that_many_models_share_are_gathered_though_no_model_has_many():
    metrics = Registry()
    record = Record(RecordSettings(), Services(HandClock(), metrics, Log()))

    async def answer(_call: Call) -> Reply:
        return Reply(200)

    for number in range(2 * MANY):
        target = Target("east", f"m-{number % 50}", f"m-{number % 50}")
        await ended(record, answered(target=target, attempts=[Attempt(target, 1000.0)]), answer)
    [overhead] = metrics.histograms["llm_overhead_seconds"].children.values()
    assert len(overhead.fresh) <= MANY


async def test_each_kind_of_request_has_lines_and_numbers_of_its_own():
    log, metrics = Log(), Registry()
    record = Record(RecordSettings(), Services(HandClock(), metrics, log))
    west = Target("west", "gpt", "fast")
    kinds: list[dict[str, Any]] = [
        {}, {"model": "other"}, {"target": west}, {"operation": "completion"}, {"stream": True}, {"usage": Usage(9, 5)}, {"attempts": []},
        {"target": Target("east", "llama", "fast")}, {"target": Target("east", "gpt")}, {"resolved": Resolved(source="system")},
    ]  # fmt: skip
    expected: list[dict[str, Any]] = []
    for members in kinds * 2:
        call = answered(**{key: value for key, value in members.items() if key != "operation"})
        call.operation = members.get("operation", "chat")

        async def answer(_call: Call) -> Reply:
            return Reply(200)

        await ended(record, call, answer)
        expected.append(line(call, 200, "ok", None, 1000.0))
    assert [json.loads(text) for text in log.texts] == expected
    counted = {labels: child.value for labels, child in metrics.counters["llm_requests_total"].children.items()}
    assert counted == {
        ("chat", "200", "east", "fast"): 14,
        ("chat", "200", "west", "fast"): 2,
        ("completion", "200", "east", "fast"): 2,
        ("chat", "200", "east", "other"): 2,
    }


@pytest.mark.parametrize("members", [{"usage": None}, {"target": None}, {"fallback": "reset"}, {"notes": {"hedge": {"hedge": "won"}}}])
async def test_what_is_unusual_is_an_event(members: dict[str, Any]):
    log = Log()
    record = Record(RecordSettings(), Services(HandClock(), Registry(), log))
    call = answered(**members)

    async def answer(_call: Call) -> Reply:
        return Reply(200)

    await ended(record, call, answer)
    await ended(record, call, answer, StreamError("stream_truncated", "m"))
    assert log.events == [line(call, 200, "ok", None, 1000.0), line(call, 502, "upstream_error", "stream_truncated", 1000.0)]
    assert not log.texts


async def test_what_attempts_before_the_answer_may_have_cost_is_told_apart():
    metrics, log = Registry(), Log()
    record = Record(RecordSettings(), Services(HandClock(), metrics, log))
    east, west = Target("east", "gpt", "fast"), Target("west", "gpt", "fast")
    cut = [Attempt(each, 1000.0, usage=Usage(2, size)) for each, size in ((east, 0), (east, 3), (west, 0))]
    refused, last = Attempt(west, 1000.0), Usage(9, 0)

    async def answer(_call: Call) -> Reply:
        return Reply(200)

    await ended(record, answered(attempts=[*cut, refused, Attempt(west, 1000.0)]), answer)
    failed = answered(attempts=[cut[1], Attempt(east, 1000.0, usage=last)], usage=last)
    await ended(record, failed, answer, StreamError("stream_truncated", "m"))
    told = [(each["prompt_tokens"], each["lost_prompt_tokens"], each["lost_completion_tokens"]) for each in log.events]
    assert told == [(9, 6, 3), (9, 2, 3)]
    lost = {labels: child.value for labels, child in metrics.counters["llm_lost_tokens_total"].children.items()}
    assert lost == {("east", "prompt"): 6, ("east", "completion"): 6, ("west", "prompt"): 2, ("west", "completion"): 0}


async def test_names_without_end_are_not_kept_without_end():
    log = Log()
    record = Record(RecordSettings(), Services(HandClock(), Registry(), log))

    async def answer(_call: Call) -> Reply:
        return Reply(200)

    for number in range(MOST_KINDS + 10):
        await ended(record, answered(model=f"east/{number}"), answer)
    assert [json.loads(text)["model"] for text in log.texts] == [f"east/{number}" for number in range(MOST_KINDS + 10)]
    assert len(record._kinds) == 10


async def test_a_request_is_kept_for_explaining_when_it_is_over():
    recent = Recent(2)
    record = Record(RecordSettings(log=False), Services(HandClock(1002.0), Registry(), lambda _fields: None, recent=recent))

    async def refuse(call: Call) -> Reply:
        raise ClientError("m", status=404, code="model_not_found")

    call = make_call()
    with pytest.raises(ClientError) as caught:
        await record(call, refuse)
    call.end(None, caught.value)
    [kept] = recent.newest(2)
    assert (kept.id, kept.status, kept.outcome, kept.code, kept.ended) == ("req_1", 404, "client_error", "model_not_found", 1002.0)
