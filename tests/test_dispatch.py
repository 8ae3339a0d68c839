"""One attempt, with a transport that follows a script and a provider of three words."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import pytest

from policies.timeout import Patience, narrowed, until
from providers.openai.errors import error_of_status
from providers.settings import TimeoutSettings
from proxy.core.call import Attempt, Call, Credential, Target, Timeouts, Usage
from proxy.core.errors import IDLE, START, TOTAL, ClientError, StreamError, UpstreamError, late
from proxy.core.metrics import Registry
from proxy.core.protocols import UNSENT, ResponseHead, UpstreamRequest
from proxy.core.reply import Reply
from proxy.core.retry_after import parse_retry_after
from proxy.dispatch import MAY_HAVE_CHARGED, Dispatch, Upstream
from tests.core.doubles import STALL, HandClock, ScriptedResponse, ScriptedTransport, Step, in_virtual_time, make_call
from tests.test_stream import WordDecoder

EVENTS = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json; charset=utf-8"}
KEYS = (Credential("env:A", "sk-aaaa0123456789"), Credential("env:B", "sk-bbbb0123456789"))


class Echo:
    """Sends the call's bytes, and takes `bad` for nonsense."""

    def encode(self, call: Call, target: Target) -> UpstreamRequest:
        if call.raw == b"impossible":
            raise ClientError("cannot be asked of this provider")
        return UpstreamRequest(
            call.method, "http://p" + call.path, {"key": target.credential.secret if target.credential else ""}, call.raw
        )

    def decode(self, call: Call, response: ResponseHead, body: bytes) -> Reply:
        if body == b"bad":
            raise UpstreamError("invalid_response", "m")
        call.usage = Usage(1, 2, reported=True)
        return Reply(response.status, body=body)

    def decode_error(self, response: ResponseHead, body: bytes) -> UpstreamError:
        return UpstreamError("rejected", body.decode(), status=response.status, retry_after=parse_retry_after(response.headers))

    def stream_decoder(self, call: Call) -> WordDecoder:
        return WordDecoder()


class Passing(WordDecoder):
    """One event is all."""

    def feed(self, data: bytes) -> bytes:
        self.started = self.done = True
        return data


class Whole(Echo):
    def stream_decoder(self, call: Call) -> Passing:
        return Passing()


class Bench:
    """A dispatch, its clock and its provider `p`."""

    def __init__(
        self,
        *answers: ScriptedResponse | UpstreamError,
        credentials: tuple[Credential, ...] = (),
        body_limit: int = 100,
        clock: HandClock | None = None,
    ) -> None:
        self.clock = clock or HandClock()
        self.metrics = Registry()
        self.transport = ScriptedTransport(*answers)
        self.upstream = Upstream("p", Echo(), self.transport, credentials=credentials, body_limit=body_limit)
        self.dispatch = Dispatch({"p": self.upstream}, self.clock, self.metrics)

    async def ask(self, **members: Any) -> tuple[Call, Reply]:
        call = self.call(**members)
        return call, await self.dispatch(call)

    async def fail(self, **members: Any) -> tuple[Call, UpstreamError]:
        call = self.call(**members)
        with pytest.raises(UpstreamError) as caught:
            await self.dispatch(call)
        return call, caught.value

    @staticmethod
    def call(**members: Any) -> Call:
        return make_call(**{"target": Target("p", "m"), "raw": b"12345678", **members})

    @property
    def failures(self) -> dict[tuple[str, ...], float]:
        return {labels: child.value for labels, child in self.metrics.counters["llm_upstream_failures_total"].children.items()}


async def read(reply: Reply) -> bytes:
    assert reply.stream is not None
    return b"".join([piece async for piece in reply.stream])


# -- whole answers --


async def test_a_whole_answer_is_decoded_and_its_connection_given_back():
    response = ScriptedResponse([b"hel", b"lo"], headers={**JSON, "x-secret": "1", "openai-version": "2020"})
    bench = Bench(response)
    call, reply = await bench.ask()
    assert (reply.status, reply.body, reply.stream) == (200, b"hello", None)
    assert reply.headers == {**JSON, "openai-version": "2020"}
    assert call.usage == Usage(1, 2, reported=True)
    assert (response.closed, response.reused) == (1, True)
    assert bench.failures == {}


async def test_an_attempt_is_noted_with_its_times():
    bench = Bench(ScriptedResponse([b"x"]))
    call, _ = await bench.ask()
    [attempt] = call.attempts
    assert (attempt.target.provider, attempt.started, attempt.ended, attempt.error) == ("p", 1000.0, 1000.0, None)


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (lambda: ScriptedResponse([b"bad"]), "invalid_response"),
        (lambda: ScriptedResponse([b"<html>"], headers={"content-type": "text/html"}), "bad_upstream"),
        (lambda: ScriptedResponse([b"x"], headers={}), "bad_upstream"),
        (lambda: ScriptedResponse([b"x" * 101]), "response_too_large"),
        (lambda: ScriptedResponse([b"x" * 60, b"x" * 60]), "response_too_large"),
        (lambda: ScriptedResponse([b"x", UpstreamError("reset", "m")]), "reset"),
        (lambda: UpstreamError("dns", "m", reached=False), "dns"),
        (lambda: ScriptedResponse([b"no"], status=422), "rejected"),
        (lambda: ScriptedResponse([], status=304), "rejected"),
    ],
)
async def test_a_failure_is_noted_counted_and_leaves_nothing_open(response, kind: str):
    made = response()
    bench = Bench(made)
    call, error = await bench.fail()
    assert error.kind == kind
    assert call.attempts[0].error == kind
    assert call.attempts[0].ended is not None
    assert bench.failures == {("p", kind): 1}
    if isinstance(made, ScriptedResponse):
        assert made.closed >= 1
        assert made.reused is (kind == "rejected")
    charged = kind in MAY_HAVE_CHARGED
    assert (call.usage == Usage(2, 0)) is charged


@pytest.mark.parametrize(
    "script",
    [[b'{"err', UpstreamError("reset", "m")], [UpstreamError("bad_upstream", "m")], [STALL], [b'{"err', STALL], [b"x", b"x"] * 30],
    ids=["cut", "unreadable", "silent", "standing still", "dripping"],
)
@pytest.mark.parametrize(("status", "headers"), [(400, {}), (401, {}), (429, {"retry-after": "7"}), (500, {})])
def test_a_refusal_is_what_its_status_says_whatever_becomes_of_its_body(script: list[Step], status: int, headers: dict[str, str]):
    async def main(clock: HandClock) -> None:
        class Slow(ScriptedResponse):
            async def receive(self) -> bytes:
                await asyncio.sleep(0.2)
                return await super().receive()

        response = Slow(script, status=status, headers={**JSON, **headers})
        bench = Bench(response, clock=clock)
        call, error = await bench.fail()
        assert (error.kind, error.status, error.message) == ("rejected", status, "")
        assert error.retry_after == (7.0 if headers else None)
        assert (response.closed, response.reused) == (1, False)
        assert call.usage is None
        assert bench.failures == {("p", "rejected"): 1}
        assert clock.now - 1000.0 < 5.2, "its head said what it means"

    in_virtual_time(main)


def test_a_refusals_body_gets_no_more_time_than_the_attempt():
    async def main(clock: HandClock) -> None:
        _, error = await Bench(ScriptedResponse([STALL], status=400), clock=clock).fail(timeouts=Timeouts(first_token=None, total=2.0))
        assert (error.status, 2.0 <= clock.now - 1000.0 < 2.2) == (400, True)

    in_virtual_time(main)


async def test_a_failure_that_never_reached_the_provider_costs_nothing():
    call, _ = await Bench(UpstreamError("reset", "m", reached=False)).fail()
    assert call.usage is None


class Refusing(Echo):
    def decode_error(self, response: ResponseHead, body: bytes) -> UpstreamError:
        return error_of_status(response.status, response.headers, body)


@pytest.mark.parametrize(("status", "expected"), [(301, None), (304, None), (400, None), (408, None), (500, None), (504, Usage(2, 0))])
async def test_what_a_provider_has_turned_away_costs_nothing(status: int, expected: Usage | None):
    bench = Bench(ScriptedResponse([], status=status))
    bench.upstream.provider = Refusing()
    call, _ = await bench.fail()
    assert (call.usage, call.attempts[0].usage) == (expected, expected)


async def test_a_stream_that_was_asked_for_and_did_not_come_is_a_failure():
    response = ScriptedResponse([b"hello"])
    _, error = await Bench(response).fail(stream=True)
    assert error.kind == "bad_upstream"
    assert response.closed


async def test_what_the_provider_cannot_be_asked_is_the_clients_fault_and_not_sent():
    bench = Bench()
    with pytest.raises(ClientError):
        await bench.ask(raw=b"impossible")
    assert bench.failures == {}
    assert not bench.transport.sent


async def test_a_long_error_is_read_only_as_far_as_an_error_object_may_reach():
    response = ScriptedResponse([b"x" * 2**18, b"y"], status=400)
    _, error = await Bench(response).fail()
    assert error.message == "x" * 2**18
    assert response.reused is False


async def test_a_call_without_a_target_is_a_bug():
    with pytest.raises(LookupError):
        await Bench().ask(target=None)


async def test_a_whole_answer_that_has_arrived_with_its_head_is_taken_at_once():
    response = ScriptedResponse(arrived=b"hello", headers={**JSON, "openai-version": "2020"})
    _, reply = await Bench(response).ask()
    assert (reply.body, reply.headers) == (b"hello", {**JSON, "openai-version": "2020"})
    assert response.reused is True


@pytest.mark.parametrize(
    ("arrived", "headers", "kind"),
    [
        (b"bad", JSON, "invalid_response"),
        (b"x" * 101, JSON, "response_too_large"),
        (b"<html>", {"content-type": "text/html"}, "bad_upstream"),
    ],
)
async def test_a_whole_answer_that_has_arrived_is_checked_all_the_same(arrived: bytes, headers: dict[str, str], kind: str):
    response = ScriptedResponse(arrived=arrived, headers=headers)
    _, error = await Bench(response).fail()
    assert error.kind == kind
    assert response.reused is False


# -- streams --


async def test_a_stream_is_handed_on_once_content_has_begun():
    response = ScriptedResponse([b" ", b" ", b"a", b"b", b"."], headers=EVENTS)
    bench = Bench(response)
    call, reply = await bench.ask(stream=True)
    assert list(response.script) == [b"b", b"."]
    assert (call.tokens_seen, call.first_token, call.last_token) == (1, 1000.0, 1000.0)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.is_event_stream
    assert await read(reply) == b"ab."
    assert call.tokens_seen == 2
    reply.close()
    reply.close()
    assert (response.closed, response.reused) == (1, True)
    assert call.usage == Usage(2, 2)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ((b" ", b"x"), "server_error"),
        ((b" ",), "stream_truncated"),
        ((), "stream_truncated"),
        ((b" ", UpstreamError("reset", "m")), "reset"),
    ],
)
async def test_a_stream_that_fails_before_content_is_an_error_with_a_status(script: tuple[bytes | UpstreamError, ...], kind: str):
    response = ScriptedResponse(script, headers=EVENTS)
    bench = Bench(response)
    call, error = await bench.fail(stream=True)
    assert error.kind == kind
    assert not isinstance(error, StreamError)
    assert bench.failures == {("p", kind): 1}
    assert response.closed
    assert call.first_token is None


@pytest.mark.parametrize("end", [(), (UpstreamError("reset", "m"),), (b"-" * 200,)], ids=["ended", "cut", "too large"])
async def test_a_stream_that_fails_before_content_costs_what_it_reported(end: tuple[Step, ...]):
    call, _ = await Bench(ScriptedResponse([b"u", *end], headers=EVENTS)).fail(stream=True)
    assert call.usage == Usage(123, 45, reported=True)


async def test_a_stream_that_fails_with_its_first_content_has_begun():
    bench = Bench(ScriptedResponse([b"abx"], headers=EVENTS))
    _, reply = await bench.ask(stream=True)
    assert reply.stream is not None
    assert await anext(reply.stream) == b"ab"
    with pytest.raises(StreamError):
        await anext(reply.stream)
    assert bench.failures == {("p", "server_error"): 1}


async def test_events_before_content_are_held_as_far_as_a_whole_answer_may_reach():
    response = ScriptedResponse([b"-" * 60, b"-" * 60, b"a."], headers=EVENTS)
    bench = Bench(response)
    _, error = await bench.fail(stream=True)
    assert (error.kind, list(response.script), response.reused) == ("response_too_large", [b"a."], False)
    assert bench.failures == {("p", "response_too_large"): 1}
    _, reply = await Bench(ScriptedResponse([b"-" * 50, b"-" * 50, b"a", b"-" * 90, b"."], headers=EVENTS)).ask(stream=True)
    assert await read(reply) == b"-" * 100 + b"a" + b"-" * 90 + b"."


async def test_a_stream_that_breaks_later_is_counted_and_estimated():
    bench = Bench(ScriptedResponse([b"a", UpstreamError("reset", "m")], headers=EVENTS))
    call, reply = await bench.ask(stream=True)
    with pytest.raises(StreamError) as caught:
        await read(reply)
    reply.close(caught.value)
    assert bench.failures == {("p", "stream_interrupted"): 1}
    assert call.usage == Usage(2, 1)
    assert [attempt.error for attempt in call.attempts] == ["stream_interrupted"]


async def test_a_stream_that_breaks_is_its_own_targets_failure_whatever_was_asked_beside_it():
    error = UpstreamError("server_error", "the key sk-aaaa0123456789 is not good")
    bench = Bench(ScriptedResponse([b"a", error], headers=EVENTS), credentials=KEYS[:1])
    call, reply = await bench.ask(stream=True)
    call.attempts.append(Attempt(Target("q", "m"), 1000.0, 1000.0, "hedge_lost", is_hedge=True))
    with pytest.raises(StreamError) as caught:
        await read(reply)
    assert bench.failures == {("p", "server_error"): 1}
    assert [attempt.error for attempt in call.attempts] == ["server_error", "hedge_lost"]
    assert caught.value.message == "the key *** is not good"


HASTY = Timeouts(first_token=0.1, idle=0.1)


async def test_a_provider_that_had_less_time_than_its_own_has_not_failed():
    bench = Bench(late(START))
    call, error = await bench.fail(timeouts=HASTY)
    assert (error.kind, error.code, error.status, error.is_impatience) == ("upstream_timeout", "deadline_exceeded", 504, True)
    assert bench.failures == {}
    assert [attempt.error for attempt in call.attempts] == ["deadline_exceeded"]
    assert call.usage == Usage(2, 0), "it may have charged all the same"


@pytest.mark.parametrize("timeouts", [None, Timeouts(), Timeouts(first_token=120.0)])
async def test_a_provider_that_had_all_of_its_time_has_failed(timeouts: Timeouts | None):
    bench = Bench(late(START))
    _, error = await bench.fail(timeouts=timeouts)
    assert (error.code, error.is_impatience) == ("upstream_timeout", False)
    assert bench.failures == {("p", "upstream_timeout"): 1}


async def test_a_provider_that_says_itself_that_it_is_late_has_failed():
    bench = Bench(UpstreamError("upstream_timeout", "m"))
    _, error = await bench.fail(timeouts=HASTY)
    assert (error.code, bench.failures) == ("upstream_timeout", {("p", "upstream_timeout"): 1})


@pytest.mark.parametrize(("operation", "headers"), [("chat", EVENTS), ("audio", {"content-type": "audio/mpeg"})])
async def test_a_silence_that_the_client_alone_found_too_long_is_not_the_providers(operation: str, headers: dict[str, str]):
    bench = Bench(ScriptedResponse([b"a", late(IDLE)], headers=headers))
    _, reply = await bench.ask(operation=operation, stream=operation == "chat", timeouts=HASTY)
    with pytest.raises(StreamError) as caught:
        await read(reply)
    reply.close(caught.value)
    assert (caught.value.code, caught.value.is_impatience, bench.failures) == ("deadline_exceeded", True, {})


async def test_events_that_nobody_asked_for_are_no_whole_answer():
    response = ScriptedResponse([b"a."], headers=EVENTS)
    _, error = await Bench(response).fail(stream=False)
    assert error.kind == "bad_upstream"


# -- relays --


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ({"content-type": "audio/mpeg", "content-length": "6"}, {"content-type": "audio/mpeg", "content-length": "6"}),
        ({"content-type": "audio/mpeg", "content-length": "6", "content-encoding": "gzip"}, {"content-type": "audio/mpeg"}),
        ({"content-disposition": "attachment", "set-cookie": "a=b"}, {"content-disposition": "attachment"}),
    ],
)
async def test_what_is_not_checked_is_passed_on_as_it_comes(headers: dict[str, str], shown: dict[str, str]):
    response = ScriptedResponse([b"abc", b"def"], headers=headers, status=206)
    _, reply = await Bench(response).ask(operation="files", method="GET")
    assert reply.status == 206
    assert reply.headers == shown
    assert await read(reply) == b"abcdef"
    reply.close()
    assert (response.closed, response.reused) == (1, True)


class Dripping(ScriptedResponse):
    """Each of its pieces takes a while, in seconds."""

    def __init__(self, script: list[bytes] | list[Step], every: float, **answer: Any) -> None:
        super().__init__(script, **answer)
        self._every = every

    async def receive(self) -> bytes:
        if self.failed is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._every)
        return await super().receive()


MINUTES_20 = 120
FLOWING = [
    pytest.param([b"a"] * MINUTES_20 + [b"."], {"stream": True}, EVENTS, id="stream"),
    pytest.param([b"a"] * MINUTES_20, {"operation": "files", "method": "GET"}, {"content-type": "audio/mpeg"}, id="download"),
]


@pytest.mark.parametrize(
    ("limits", "ends"),
    [
        (TimeoutSettings(), None),
        (TimeoutSettings.model_validate({"total": "10m"}), 600),
        (TimeoutSettings.model_validate({"idle": "9s"}), 19),
    ],
)
@pytest.mark.parametrize(("script", "asked", "headers"), FLOWING)
def test_what_flows_is_bounded_by_silence_alone_unless_somebody_has_set_the_total(
    script: list[bytes], asked: dict[str, Any], headers: dict[str, str], limits: TimeoutSettings, ends: float | None
):
    async def main(clock: HandClock) -> None:
        bench = Bench(Dripping(script, 10, headers=headers), clock=clock)
        started = clock.now
        _, reply = await bench.ask(timeouts=limits.decided(stream=True), **asked)
        if ends is None:
            assert await read(reply) == b"".join(script)
            assert clock.now - started >= 1200
        else:
            with pytest.raises(StreamError) as caught:
                await read(reply)
            assert caught.value.kind == "upstream_timeout"
            assert ends <= clock.now - started <= ends + 0.2
        reply.close()

    in_virtual_time(main)


SILENCE = [b" "] * 31  # five minutes


@pytest.mark.parametrize(
    ("script", "limits", "patience", "ends"),
    [
        ([*SILENCE, b"a", b"."], {}, 20.0, None),
        ([*SILENCE, b"a", b"."], {"first_token": "25s"}, 20.0, 20),
        ([*SILENCE, b"a", b"."], {"idle": "25s"}, 20.0, None),
        ([*SILENCE, b"a", b"."], {}, None, None),
        ([b"a", *SILENCE, b"b", b"."], {}, 20.0, None),
        ([b"a", *[b"-"] * 31, b"b", b"."], {}, 20.0, None),
        ([b"a", *SILENCE, b"b", b"."], {"idle": "25s"}, 20.0, 30),
        ([b"a", *[b"-"] * 31, b"b", b"."], {"idle": "25s"}, 20.0, 30),
        ([b"a", *SILENCE, b"b", b"."], {"first_token": "25s"}, 20.0, None),
        ([b"a", *SILENCE, b"b", b"."], {}, None, None),
        (SILENCE * 3, {}, None, 600),
        ([b"a", *SILENCE * 3], {}, None, 610),
        (SILENCE * 3, {}, 20.0, 600),
        ([b"a", *SILENCE * 3], {}, 20.0, 610),
        ([b"a", *SILENCE * 3], {"total": "9m"}, 20.0, 540),
        ([b" ", STALL], {}, 20.0, 30),
    ],
)
def test_comments_keep_a_client_waiting_as_they_would_without_us_unless_somebody_has_set_a_limit(
    script: list[Step], limits: dict[str, str], patience: float | None, ends: float | None
):
    async def main(clock: HandClock) -> None:
        bench = Bench(Dripping(script, 10, headers=EVENTS), clock=clock)
        started = clock.now
        given = TimeoutSettings.model_validate(limits).decided(stream=True)
        if patience is not None:
            given = narrowed(given, Patience(patience), awaits_answer=False)
        try:
            _, reply = await bench.ask(stream=True, timeouts=given, patience=patience)
            with closing(reply):
                assert (await read(reply)).strip(b"-").endswith(b".")
        except UpstreamError as error:
            assert error.kind == "upstream_timeout"
            assert ends is not None and ends <= clock.now - started <= ends + 0.2
        else:
            assert ends is None

    in_virtual_time(main)


@pytest.mark.parametrize(("script", "asked", "headers"), FLOWING)
def test_what_flows_ends_with_its_requests_deadline_all_the_same(script: list[bytes], asked: dict[str, Any], headers: dict[str, str]):
    async def main(clock: HandClock) -> None:
        bench = Bench(Dripping(script, 10, headers=headers), clock=clock)
        started = clock.now
        _, reply = await bench.ask(timeouts=until(TimeoutSettings().decided(stream=True), 900.0, flows=True), **asked)
        with pytest.raises(StreamError):
            await read(reply)
        assert 900 <= clock.now - started <= 900.2
        reply.close()

    in_virtual_time(main)


@pytest.mark.parametrize(
    ("script", "asked", "headers"),
    [
        pytest.param([b" "] * MINUTES_20, {"stream": True}, EVENTS, id="stream without content"),
        pytest.param([b"a"] * MINUTES_20, {}, JSON, id="whole answer"),
    ],
)
def test_what_has_not_begun_and_whole_answers_have_their_total(script: list[bytes], asked: dict[str, Any], headers: dict[str, str]):
    async def main(clock: HandClock) -> None:
        bench = Bench(Dripping(script, 10, headers=headers), clock=clock, body_limit=1000)
        started = clock.now
        limits = replace(TimeoutSettings().decided(stream=True), first_token=None)
        _, error = await bench.fail(timeouts=limits, **asked)
        assert error.kind == "upstream_timeout"
        assert 600 <= clock.now - started <= 600.2

    in_virtual_time(main)


@pytest.mark.parametrize("stream", [True, False])
def test_content_may_take_longer_than_the_total_that_nobody_has_set_where_that_is_written(stream: bool):
    script = [b" "] * 105 + ([b"a", b"."] if stream else [b"{}"])

    async def main(clock: HandClock) -> None:
        bench = Bench(Dripping(script, 10, headers=EVENTS if stream else JSON), clock=clock, body_limit=1000)
        started = clock.now
        limits = TimeoutSettings.model_validate({"first_token": "20m"}).decided(stream=stream)
        _, reply = await bench.ask(timeouts=limits, stream=stream)
        with closing(reply):
            answer = await read(reply) if stream else reply.body
        assert clock.now - started > 1000
        assert answer.endswith(script[-1])

    in_virtual_time(main)


@pytest.mark.parametrize(("awaited", "is_impatience"), [(0.0, False), (59.0, True)])
async def test_an_upload_whose_client_took_its_time_is_no_failure_of_the_provider(awaited: float, is_impatience: bool):
    class Uploading(ScriptedTransport):
        async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> ScriptedResponse:
            call.awaited += awaited
            raise late(TOTAL)

    bench = Bench()
    bench.upstream.transport = Uploading()
    bench.upstream.whole_timeouts = set_for_all = Timeouts(total=60.0)
    call = bench.call(content=object(), operation="files", timeouts=set_for_all, awaited=1000.0)
    with pytest.raises(UpstreamError) as caught:
        await bench.dispatch(call)
    assert caught.value.is_impatience is is_impatience
    assert bench.failures == ({} if is_impatience else {("p", "upstream_timeout"): 1})


def test_an_upload_that_took_long_leaves_its_answer_its_time():
    async def main(clock: HandClock) -> None:
        bench = Bench(ScriptedResponse([STALL], headers=JSON), clock=clock)

        class Uploading(ScriptedTransport):
            async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> ScriptedResponse:
                await asyncio.sleep(1000)
                return await super().send(request, timeouts)

        bench.upstream.transport = Uploading(ScriptedResponse([STALL], headers=JSON), ScriptedResponse([b"{}"], headers=JSON))
        asked: dict[str, Any] = {"content": object(), "operation": "files", "timeouts": TimeoutSettings().decided(stream=False)}
        started = clock.now
        with pytest.raises(UpstreamError):
            await bench.ask(**asked)
        assert 1600 <= clock.now - started <= 1600.2
        _, reply = await bench.ask(**asked)
        assert await read(reply) == b"{}"
        reply.close()

    in_virtual_time(main)


async def test_a_relay_that_ends_badly_does_not_give_its_connection_back():
    response = ScriptedResponse([b"abc"], headers={"content-type": "audio/mpeg"})
    _, reply = await Bench(response).ask(operation="audio")
    reply.close(ConnectionError())
    assert response.reused is False


LONG_KEY = Credential("env:A", "sk-of-a-provider-0123456789")


@pytest.mark.parametrize("kind", [JSON, EVENTS], ids=["whole", "streamed"])
async def test_what_was_stored_of_a_failure_shows_no_key(kind: dict[str, str]):
    told = f'{{"status": "failed", "error": {{"message": "{LONG_KEY.secret}"}}}}'.encode()
    headers = {**kind, "content-length": str(len(told))} if kind is JSON else kind
    bench = Bench(ScriptedResponse([told[:50], told[50:]] if kind is JSON else [told], headers=headers), credentials=(LONG_KEY,))
    bench.upstream.provider = Whole()
    _, reply = await bench.ask(operation="stored_response", method="GET", path="/responses/resp_1")
    assert reply.stream is not None
    shown = b"".join([piece async for piece in reply.stream])
    assert shown == told.replace(LONG_KEY.secret.encode(), b"*" * len(LONG_KEY.secret))
    reply.close(None)
    assert bench.failures == {}


class Accountant(Echo):
    def usage_of(self, body: bytes) -> Usage | None:
        return Usage(len(body), reported=True) if body else None


@pytest.mark.parametrize(
    ("operation", "method", "headers", "size", "error", "usage"),
    [
        ("images", "POST", JSON, 6, None, Usage(6, reported=True)),
        ("images", "POST", JSON, 8 * 2**20, None, Usage(8 * 2**20, reported=True)),
        ("rerank", "POST", JSON, 2**20, None, Usage(2**20, reported=True)),
        ("rerank", "POST", JSON, 2**20 + 1, None, Usage(2**16, reported=True)),
        ("images", "POST", JSON, 8 * 2**20 + 1, None, Usage(2**16, reported=True)),
        ("images", "POST", JSON, 6, ConnectionError(), Usage(6, reported=True)),
        ("audio", "GET", JSON, 6, None, None),
        ("audio", "POST", {"content-type": "audio/mpeg"}, 6, None, None),
        ("batches", "POST", JSON, 6, None, None),
    ],
)
async def test_what_is_passed_on_and_charged_is_accounted_for_once_it_is_whole(
    operation: str, method: str, headers: dict[str, str], size: int, error: BaseException | None, usage: Usage | None
):
    """By the end of what is too large to be kept."""
    bench = Bench(ScriptedResponse([b"{" + b"a" * (size - 3), b"b}"], headers=headers))
    bench.upstream.provider = Accountant()
    call, reply = await bench.ask(operation=operation, method=method)
    assert len(await read(reply)) == size
    reply.close(error)
    assert call.usage == usage


class Silent(Accountant):
    def usage_of(self, body: bytes) -> Usage | None:
        return None


@pytest.mark.parametrize(
    ("operation", "headers", "expected"),
    [
        ("images", JSON, Usage(2, 0)),
        ("pooling", JSON, Usage(2, 0)),
        ("audio", {"content-type": "audio/mpeg"}, None),
        ("batches", JSON, None),
    ],
)
@pytest.mark.parametrize("broken", [True, False])
async def test_what_is_charged_and_not_passed_on_whole_is_estimated(
    operation: str, headers: dict[str, str], expected: Usage | None, broken: bool
):
    """Whether it breaks or its client leaves: as it would be before the head."""
    bench = Bench(ScriptedResponse([b'{"data"', UpstreamError("reset", "m")] if broken else [b'{"data"', b"}"], headers=headers))
    bench.upstream.provider = Silent()
    call, reply = await bench.ask(operation=operation)
    if broken:
        with pytest.raises(StreamError) as caught:
            await read(reply)
        reply.close(caught.value)
    else:
        reply.close(asyncio.CancelledError())
    assert call.usage == expected


async def test_a_file_is_whatever_it_is():
    content = LONG_KEY.secret.encode()
    bench = Bench(ScriptedResponse([content], headers=JSON), credentials=(LONG_KEY,))
    _, reply = await bench.ask(operation="files", method="GET", path="/files/file_1/content")
    assert reply.stream is not None
    assert [piece async for piece in reply.stream] == [content]
    reply.close(None)


async def test_a_relay_after_a_failed_attempt_does_not_report_that_ones_cost():
    bench = Bench(UpstreamError("reset", "m"), ScriptedResponse([b"abc"], headers={"content-type": "audio/mpeg"}))
    call, _ = await bench.fail(operation="audio")
    assert call.usage == Usage(2, 0)
    reply = await bench.dispatch(call)
    assert await read(reply) == b"abc"
    reply.close()
    assert call.usage is None


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("/v1/realtime/calls/rtc_1", "/v1/realtime/calls/rtc_1"),
        ("https://api.example/openai/v1/realtime/calls/rtc_1?api-version=7#x", "/v1/realtime/calls/rtc_1"),
        ("/realtime/calls/rtc-1.a", "/v1/realtime/calls/rtc-1.a"),
        ("rtc_1", None),
        ("/v1/realtime/calls/", None),
        ("/v1/realtime/calls/..", None),
        ("/v1/realtime/calls/rtc_1/sk", None),
        ("/v1/realtime/calls/a%2fb", None),
        ("https://elsewhere.example/?/v1/realtime/calls/rtc_1", None),
        ("/v1/realtime/calls/rtc_sk-aaaa0123456789", None),
        ("/v1/realtime/calls/" + "x" * 257, None),
        ("/v1/realtime/calls/a\r\nb", None),
    ],
)
async def test_where_a_thing_was_made_is_said_as_it_lies_here(location: str, shown: str | None):
    headers = {"content-type": "application/sdp", "location": location}
    asked = {"operation": "realtime", "path": "/realtime/calls"}
    _, reply = await Bench(ScriptedResponse([b"v=0"], status=201, headers=headers), credentials=KEYS[:1]).ask(**asked)
    assert reply.headers.get("location") == shown
    _, reply = await Bench(ScriptedResponse([b"v=0"], status=200, headers=headers), credentials=KEYS[:1]).ask(**asked)
    assert "location" not in reply.headers


async def test_media_types_are_the_same_in_any_case():
    _, reply = await Bench(ScriptedResponse([b"hello"], headers={"content-type": "Application/JSON"})).ask()
    assert (reply.body, reply.headers["content-type"]) == (b"hello", "Application/JSON")
    _, reply = await Bench(ScriptedResponse([b"a", b"."], headers={"content-type": "Text/Event-Stream"})).ask(stream=True)
    assert reply.is_event_stream
    assert await read(reply) == b"a."
    _, error = await Bench(ScriptedResponse([b"<p>"], headers={"content-type": "TEXT/HTML"})).fail(operation="files", method="GET")
    assert error.kind == "bad_upstream"


@pytest.mark.parametrize(
    "answer",
    [
        lambda headers: ScriptedResponse([b"slow down"], status=429, headers=headers),
        lambda headers: ScriptedResponse([b"bad"], headers=headers),
        lambda headers: ScriptedResponse(arrived=b"bad", headers=headers),
        lambda headers: ScriptedResponse([b"a"], headers={**headers, **EVENTS}),
    ],
    ids=["a refusal", "nonsense", "nonsense at once", "a stream that nobody asked for"],
)
async def test_a_failure_keeps_what_the_provider_said_of_its_rate_limits_and_of_the_request_and_nothing_else(answer):
    said = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-tokens": "6m0s"}
    bench = Bench(
        answer({**JSON, **said, "x-request-id": "its", "openai-version": "2020", "x-ratelimit-limit-tokens": "sk-aaaa0123456789"}),
        credentials=KEYS[:1],
    )
    _, error = await bench.fail()
    assert error.headers == {**said, "x-comporta-provider-request-id": "its"}, "and none that shows the credential"


async def test_a_failure_without_an_answer_says_nothing_of_rate_limits():
    _, error = await Bench(UpstreamError("dns", "m")).fail()
    assert error.headers == {}


async def test_the_content_of_a_file_may_be_a_page():
    kept = {"content-type": "text/html", "etag": '"v1"', "last-modified": "Sat, 01 Aug 2026 00:00:00 GMT", "cache-control": "private"}
    response = ScriptedResponse([b"<html>"], headers={**kept, "set-cookie": "a=b"})
    _, reply = await Bench(response).ask(operation="files", method="GET", path="/files/file-1/content")
    assert await read(reply) == b"<html>"
    assert kept.items() <= reply.headers.items()
    assert reply.headers["content-security-policy"] == "sandbox", "a browser runs nothing of it in our name"
    assert "set-cookie" not in reply.headers


async def test_where_a_files_content_is_elsewhere_the_client_is_told_so():
    response = ScriptedResponse([b"<html>"], status=302, headers={"content-type": "text/html", "location": "https://cdn.example/f?sig=1"})
    bench = Bench(response, credentials=KEYS[:1])
    call, reply = await bench.ask(operation="files", method="GET", path="/files/file-1/content")
    assert (reply.status, reply.headers["location"], reply.body) == (302, "https://cdn.example/f?sig=1", b"")
    assert "content-type" not in reply.headers
    assert (len(bench.transport.sent), response.reused, call.attempts[0].error) == (1, True, None)


@pytest.mark.parametrize(
    "asked",
    [
        {"operation": "files", "method": "GET", "path": "/files/file-1"},
        {"operation": "chat", "method": "POST", "path": "/chat/completions"},
    ],
)
async def test_what_is_no_files_content_is_never_elsewhere(asked: dict[str, str]):
    _, error = await Bench(ScriptedResponse(status=302, headers={"location": "https://cdn.example/f"})).fail(**asked)
    assert error.status == 302, "as the provider's decoder understands it"


async def test_a_redirect_that_shows_the_credential_is_not_passed_on():
    response = ScriptedResponse(status=302, headers={"location": "https://cdn.example/f?key=sk-aaaa0123456789"})
    _, error = await Bench(response, credentials=KEYS[:1]).fail(operation="files", method="GET", path="/files/file-1/content")
    assert "sk-aaaa0123456789" not in str(error.__dict__)


async def test_a_page_is_never_passed_on():
    response = ScriptedResponse([b"<html>"], headers={"content-type": "text/html; charset=utf-8"})
    _, error = await Bench(response).fail(operation="files", method="GET")
    assert error.kind == "bad_upstream"
    assert "<html>" not in error.message


async def test_other_operations_may_stream_events_unasked():
    _, reply = await Bench(ScriptedResponse([b"ab."], headers=EVENTS)).ask(operation="assistants", stream=False)
    assert await read(reply) == b"ab."


# -- credentials, timeouts, cancellation --


async def test_credentials_are_used_in_turn():
    bench = Bench(*[ScriptedResponse([b"x"]) for _ in range(4)], credentials=KEYS)
    for _ in range(4):
        await bench.ask()
    assert [request.headers["key"] for request in bench.transport.sent] == [
        "sk-aaaa0123456789",
        "sk-bbbb0123456789",
        "sk-aaaa0123456789",
        "sk-bbbb0123456789",
    ]


@pytest.mark.parametrize(("credentials", "expected"), [((), ""), (KEYS[:1], "sk-aaaa0123456789")])
async def test_one_credential_takes_every_turn(credentials: tuple[Credential, ...], expected: str):
    bench = Bench(ScriptedResponse([b"x"]), ScriptedResponse([b"x"]), credentials=credentials)
    await bench.ask()
    await bench.ask()
    assert [request.headers["key"] for request in bench.transport.sent] == [expected, expected]


@pytest.mark.parametrize(("hint", "seconds"), [(None, 1.0), (20.0, 20.0), (3600.0, 60.0)])
async def test_a_credential_that_is_limited_is_left_alone_while_there_are_others(hint: float | None, seconds: float):
    def limited() -> UpstreamError:
        return UpstreamError("rate_limit_exceeded", "m", retry_after=hint)

    answers = [ScriptedResponse([b"x"]) for _ in range(3)]
    bench = Bench(limited(), *answers, limited(), ScriptedResponse([b"x"]), credentials=KEYS)
    assert (await bench.fail())[1].spare_credential
    await bench.ask()
    await bench.ask()
    bench.clock.move(seconds - 0.1)
    await bench.ask()
    assert not (await bench.fail())[1].spare_credential, "all of them are limited now"
    bench.clock.move(0.1)
    await bench.ask()
    assert [request.headers["key"] for request in bench.transport.sent] == [
        "sk-aaaa0123456789",
        *["sk-bbbb0123456789"] * 4,
        "sk-aaaa0123456789",
    ]
    assert "llm_credential_out_total" in bench.metrics.counters
    assert not bench.metrics.counters["llm_credential_out_total"].children, "it is as good as it was"


async def test_what_is_limited_has_no_other_credential_where_there_is_one():
    bench = Bench(UpstreamError("rate_limit_exceeded", "m"), ScriptedResponse([b"x"]), credentials=KEYS[:1])
    assert not (await bench.fail())[1].spare_credential
    await bench.ask()


@pytest.mark.parametrize("kind", ["rate_limit_exceeded", "insufficient_quota"])
async def test_what_is_said_of_one_credential_is_not_said_of_the_others(kind: str):
    error = UpstreamError(kind, "m", retry_after=3600.0)
    error.should_retry = False
    _, error = await Bench(error, credentials=KEYS).fail()
    assert (error.spare_credential, error.retry_after, error.should_retry) == (True, None, None)


@pytest.mark.parametrize(
    ("hints", "told"),
    [
        ((2.0, 3600.0), 2.0),
        ((3600.0, 2.0), 2.0),
        ((7200.0, 3600.0), 3600.0),
        ((None, 3600.0), 1.0),
        ((3600.0, None), None),
        ((None, None), None),
    ],
)
async def test_where_all_credentials_are_limited_the_first_that_is_free_again_counts(hints: tuple[float | None, ...], told: float | None):
    bench = Bench(*[UpstreamError("rate_limit_exceeded", "m", retry_after=hint) for hint in hints], credentials=KEYS)
    await bench.fail()
    _, error = await bench.fail()
    assert (error.spare_credential, error.retry_after) == (False, told)


async def test_a_credential_that_is_refused_is_not_waited_for_in_place_of_one_that_is_limited():
    limited = UpstreamError("rate_limit_exceeded", "m", retry_after=3600.0)
    bench = Bench(UpstreamError("provider_auth", "m"), limited, credentials=KEYS)
    await bench.fail()
    assert (await bench.fail())[1].retry_after == 3600.0


async def test_a_target_that_brings_its_credential_keeps_it():
    bench = Bench(ScriptedResponse([b"x"]), credentials=KEYS)
    await bench.ask(target=Target("p", "m", credential=Credential("env:C", "sk-cccc")))
    assert bench.transport.sent[0].headers["key"] == "sk-cccc"


async def test_no_message_of_a_provider_shows_the_credential():
    bench = Bench(ScriptedResponse([b"the key sk-aaaa0123456789 is not good"], status=400), credentials=KEYS[:1])
    _, error = await bench.fail()
    assert error.message == "the key *** is not good"


@pytest.mark.parametrize(("stream", "first_token"), [(False, None), (True, 600.0)])
async def test_patience_is_the_calls_own_or_the_providers(stream: bool, first_token: float | None):
    own = Timeouts(total=7)
    bench = Bench(
        ScriptedResponse([b"a."], headers=EVENTS if stream else JSON), ScriptedResponse([b"a."], headers=EVENTS if stream else JSON)
    )
    await bench.ask(stream=stream, timeouts=own)
    await bench.ask(stream=stream)
    assert bench.transport.timeouts[0] is own
    assert bench.transport.timeouts[1].first_token == first_token


@pytest.mark.parametrize("headers", [JSON, EVENTS])
@pytest.mark.parametrize(("status", "cost"), [(200, Usage(2, 0)), (429, None), (500, None)])
async def test_a_cancelled_attempt_closes_its_connection_and_estimates_what_it_cost(
    headers: dict[str, str], status: int, cost: Usage | None
):
    response = ScriptedResponse([None], headers=headers, status=status)
    bench = Bench(response)
    call = bench.call(stream=headers is EVENTS)
    task = asyncio.ensure_future(bench.dispatch(call))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert response.closed
    assert response.reused is False
    assert call.usage == cost, "a refusal costs nothing"
    assert call.attempts[0].ended is not None
    assert bench.failures == {}


@pytest.mark.parametrize("before", [[], [UpstreamError("reset", "m")]], ids=["nobody asked", "one cut"])
async def test_an_attempt_that_was_cancelled_before_anything_was_sent_costs_nothing(before: list[UpstreamError]):
    bench = Bench(*before)

    class Full(ScriptedTransport):
        async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> ScriptedResponse:
            raise asyncio.CancelledError(UNSENT)

    call = (await bench.fail())[0] if before else bench.call()
    bench.upstream.transport = Full()
    with pytest.raises(asyncio.CancelledError):
        await bench.dispatch(call)
    assert call.usage is None
    assert [usage for _, usage in call.lost] == [Usage(2, 0)] * len(before), "what an earlier attempt may have cost"
    assert call.attempts[-1].ended is not None


CUT, UNREACHED = UpstreamError("reset", "m"), UpstreamError("dns", "m", reached=False)


@pytest.mark.parametrize(
    ("script", "usage", "lost"),
    [
        ([CUT, CUT, ScriptedResponse([b"x"])], Usage(1, 2, reported=True), [Usage(2, 0), Usage(2, 0)]),
        ([CUT, UNREACHED], None, [Usage(2, 0)]),
        ([CUT, ScriptedResponse([b"no"], status=422)], None, [Usage(2, 0)]),
        ([UNREACHED, CUT], Usage(2, 0), []),
        ([CUT, CUT], Usage(2, 0), [Usage(2, 0)]),
    ],
    ids=["then an answer", "then nobody reached", "then refused", "never reached before", "twice"],
)
async def test_what_each_attempt_may_have_cost_is_its_own(script: list[Any], usage: Usage | None, lost: list[Usage]):
    bench = Bench(*script)
    call = bench.call()
    for _ in script:
        try:
            reply = await bench.dispatch(call)
        except UpstreamError:
            continue
        reply.close()
    assert call.usage == usage
    assert [each for _, each in call.lost] == lost


async def test_usage_that_was_reported_before_a_failure_is_no_estimate():
    """Whatever the failure is: an error event that says of itself that nothing was charged is not asked."""
    failed = UpstreamError("server_error", "m")
    failed.usage = Usage(50, 9, reported=True)
    call, _ = await Bench(failed).fail()
    assert call.usage == call.attempts[0].usage == Usage(50, 9, reported=True)


async def test_time_spent_on_the_provider_is_told_apart():
    bench = Bench(ScriptedResponse([b"x"]))
    call = bench.call(upstream_seconds=0.5)

    class Slow(ScriptedTransport):
        async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> ScriptedResponse:
            bench.clock.move(2.0)
            return await super().send(request, timeouts)

    bench.upstream.transport = Slow(ScriptedResponse([b"x"]))
    await bench.dispatch(call)
    assert call.upstream_seconds == 2.5
