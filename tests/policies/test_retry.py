"""Another try: when, how soon, how often; and what the client is told when there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from policies.retry import Again, Retry, RetrySettings, Rules, Situation, Stop, decide
from proxy.core.board import Ejection, note_failure
from proxy.core.call import Attempt, Call, Credential, Target, Timeouts
from proxy.core.errors import CONNECT, START, UPSTREAM_KINDS, CapacityError, ClientError, GatewayError, UpstreamError, late
from proxy.core.metrics import Registry
from proxy.core.protocols import Services
from proxy.core.recent import STOPPED
from proxy.core.repeatable import is_repeatable
from proxy.core.reply import Reply
from proxy.core.resolved import Resolved
from tests.core.doubles import HandClock, in_virtual_time, make_call

RULES = Rules(most=2, ceilings=(1.0, 2.0, 4.0), cap=30.0, ambiguous=True)
FIRST = Situation()
TARGET = Target("p", "m", "public")
OTHER = Target("q", "m", "public")


def longest(seconds: float) -> float:
    """The longest wait that jitter may make of it."""
    return seconds


def failed(kind: str, *, told: bool | None = None, spare: bool = False, answered: bool = False, **more: Any) -> UpstreamError:
    error = UpstreamError(kind, "m", **more)
    error.should_retry = told
    error.answered = answered
    error.spare_credential = spare
    return error


# ------------------------------------------------------------------------------------------------------------------------- the decision
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (failed("connect_failed", reached=False), Again(1.0)),
        (failed("dns", reached=False), Stop("kind")),
        (failed("tls", reached=False), Stop("kind")),
        (failed("connect_timeout", reached=False), Again(1.0)),
        (failed("reset"), Again(1.0)),
        (failed("bad_upstream"), Again(1.0)),
        (failed("upstream_timeout"), Stop("kind")),
        (failed("rate_limit_exceeded"), Again(1.0)),
        (failed("rate_limit_exceeded", retry_after=7.0), Again(8.0)),
        (failed("rate_limit_exceeded", retry_after=31.0), Stop("hint")),
        (failed("rate_limit_exceeded", retry_after=86400.0), Stop("hint")),
        (failed("rate_limit_exceeded", retry_after=31.0, spare=True), Again(0.0)),
        (failed("rate_limit_exceeded", retry_after=7.0, spare=True), Again(0.0)),
        (failed("insufficient_quota"), Stop("kind")),
        (failed("insufficient_quota", spare=True), Again(0.0)),
        (failed("server_error"), Again(1.0)),
        (failed("server_error", retry_after=3.0), Again(4.0)),
        (failed("server_error", told=False), Stop("told")),
        (failed("server_error", told=True), Again(1.0)),
        (failed("overloaded"), Stop("kind")),
        (failed("rejected"), Stop("kind")),
        (failed("rejected", told=True), Stop("kind")),
        (failed("provider_auth"), Stop("kind")),
        (failed("provider_auth", spare=True), Again(0.0)),
        (failed("invalid_response"), Again(1.0)),
        (failed("response_too_large"), Stop("kind")),
        (failed("stream_truncated"), Again(1.0)),
        (failed("response_failed"), Again(1.0)),
        (failed("stream_interrupted"), Stop("kind")),
    ],
    ids=lambda value: value.kind if isinstance(value, UpstreamError) else "",
)
def test_the_kind_of_failure_decides_whether_another_try_may_help(error: UpstreamError, expected: Again | Stop):
    assert decide(error, FIRST, RULES, longest) == expected


def test_every_kind_of_failure_has_been_decided():
    for kind in UPSTREAM_KINDS:
        assert isinstance(decide(failed(kind), FIRST, RULES, longest), Again | Stop)


FAILED, CUT, UNREACHED = failed("server_error"), failed("reset"), failed("connect_failed", reached=False)


@pytest.mark.parametrize(
    ("error", "seen", "rules", "expected"),
    [
        # How often.
        (FAILED, {"retries": 1}, {}, Again(2.0)),
        (FAILED, {"retries": 2}, {}, Stop("spent")),
        (FAILED, {}, {"most": 0}, Stop("spent")),
        (failed("rate_limit_exceeded", retry_after=29.0), {"retries": 2}, {}, Stop("spent")),
        (failed("rate_limit_exceeded", retry_after=90.0), {"retries": 2}, {}, Stop("hint")),
        (FAILED, {"retries": 9}, {"most": 10}, Again(4.0)),
        (CUT, {"retries": 1}, {}, Again(2.0)),
        (CUT, {"retries": 1, "once": 1}, {"most": 9}, Stop("spent")),
        (failed("invalid_response"), {"retries": 1, "once": 1}, {"most": 9}, Stop("spent")),
        (failed("provider_auth", spare=True), {"retries": 1, "once": 1}, {"most": 9}, Stop("spent")),
        (failed("server_error", answered=True), {}, {}, Again(1.0)),
        (failed("server_error", answered=True), {"retries": 1, "once": 1}, {"most": 9}, Stop("spent")),
        # Another credential is no other try: bounded by how many there are.
        (failed("rate_limit_exceeded", spare=True), {"retries": 2, "affordable": False}, {"most": 0}, Again(0.0)),
        (failed("insufficient_quota", spare=True), {"retries": 2, "once": 1}, {"most": 0}, Again(0.0)),
        (failed("rate_limit_exceeded", spare=True), {"repeatable": False}, {}, Again(0.0)),
        (failed("rate_limit_exceeded", spare=True), {"first": False}, {"most": 0}, Stop("spent")),
        (failed("rate_limit_exceeded", spare=True), {"streamed": True}, {}, Stop("streamed")),
        (failed("rate_limit_exceeded", spare=True), {"left": 0.0}, {}, Stop("deadline")),
        (failed("rate_limit_exceeded", spare=True), {"ejected": True}, {}, Stop("ejected")),
        # What may not be done twice.
        (FAILED, {"repeatable": False}, {}, Stop("unrepeatable")),
        (FAILED, {"repeatable": False, "idempotent": True}, {}, Again(1.0)),
        (UNREACHED, {"repeatable": False}, {}, Again(1.0)),
        (UNREACHED, {"streamed": True}, {}, Stop("streamed")),
        (CUT, {}, {"ambiguous": False}, Stop("ambiguous")),
        (CUT, {"idempotent": True}, {"ambiguous": False}, Again(1.0)),
        (failed("reset", reached=False), {}, {"ambiguous": False}, Again(1.0)),
        # The deadline: an attempt gets at least half of what is left.
        (FAILED, {"left": 100.0}, {}, Again(1.0)),
        (FAILED, {"left": 1.0}, {}, Again(0.5)),
        (FAILED, {"left": 0.0}, {}, Stop("deadline")),
        (FAILED, {"left": -1.0}, {}, Stop("deadline")),
        (failed("rate_limit_exceeded", retry_after=5.0), {"left": 5.0}, {}, Stop("hint")),
        (failed("rate_limit_exceeded", retry_after=5.0), {"left": 6.0}, {}, Again(5.5)),
        # What others have been through.
        (FAILED, {"ejected": True}, {}, Stop("ejected")),
        (FAILED, {"affordable": False}, {}, Stop("budget")),
        (failed("rejected"), {"affordable": False}, {}, Stop("kind")),
    ],
)
def test_the_request_and_the_settings_decide_the_rest(error: UpstreamError, seen: dict[str, Any], rules: dict[str, Any], expected: Any):
    assert decide(error, replace(FIRST, **seen), replace(RULES, **rules), longest) == expected


@pytest.mark.parametrize(
    ("operation", "body", "expected"),
    [
        ("chat", {}, True),
        ("embedding", {}, True),
        ("responses", {}, True),
        ("responses", {"store": False}, True),
        ("responses", {"store": True}, False),
        ("responses", {"background": True}, False),
        ("responses", {"conversation": "conv_1"}, False),
        ("chat", {"store": True}, False),
        ("moderations", {}, True),
        ("rerank", {}, True),
        ("tokenize", {}, True),
        ("realtime", {}, False),
        ("files", {}, False),
        ("batches", {}, False),
        ("images", {}, False),
    ],
)
def test_what_leaves_something_behind_is_not_done_twice(operation: str, body: dict[str, Any], expected: bool):
    assert is_repeatable(make_call(operation, body=body)) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/audio/speech", True),
        ("/audio/transcriptions", True),
        ("/audio/translations", True),
        ("/audio/voices", False),
        ("/audio/voice_consents", False),
    ],
)
def test_speech_and_text_leave_nothing_behind_and_voices_are_kept(path: str, expected: bool):
    assert is_repeatable(make_call("audio", path=path)) is expected


# --------------------------------------------------------------------------------------------------------------------------- the policy
class Bench:
    """A retry policy on a clock moved by hand, and a provider that answers from a script."""

    def __init__(self, clock: HandClock, answers: Iterable[GatewayError | Reply], *, leads_on: bool = False, **settings: Any) -> None:
        self.clock = clock
        self.metrics = Registry()
        self.services = Services(clock, self.metrics, lambda fields: None)
        self.policy = Retry(RetrySettings(**settings), self.services, longest, lambda _call, _error: leads_on)
        self.answers = list(answers)
        self.asked: list[float] = []

    async def upstream(self, call: Call) -> Reply:
        self.asked.append(self.clock.now)
        answer = self.answers.pop(0)
        if isinstance(answer, GatewayError):
            raise answer
        return answer

    async def ask(self, **members: Any) -> Reply:
        return await self.policy(make_call(**{"target": TARGET, **members}), self.upstream)

    def count(self, name: str) -> float:
        return sum(child.value for child in self.metrics.counters[name].children.values())


def outcome(*answers: GatewayError | Reply, settings: dict[str, Any] | None = None, **members: Any) -> tuple[Any, Bench]:
    """What became of one request: a reply or an error, and the bench."""

    async def main(clock: HandClock) -> tuple[Any, Bench]:
        bench = Bench(clock, answers, **(settings or {}))
        try:
            return await bench.ask(**members), bench
        except GatewayError as error:
            return error, bench

    return in_virtual_time(main)


def failures(count: int, kind: str = "server_error", **more: Any) -> list[UpstreamError]:
    return [failed(kind, **more) for _ in range(count)]


def test_a_success_is_asked_for_once():
    reply = Reply()
    got, bench = outcome(reply)
    assert got is reply and len(bench.asked) == 1
    assert bench.count("llm_retries_total") == 0


def test_it_waits_longer_before_each_retry():
    got, bench = outcome(*failures(2), Reply(), settings={"base": "2s"})
    assert isinstance(got, Reply)
    assert bench.asked == [1000.0, 1002.0, 1006.0]
    assert bench.metrics.counters["llm_retries_total"].labels("p", "server_error").value == 2


def test_no_wait_is_longer_than_the_cap():
    _, bench = outcome(*failures(3), settings={"base": "10s", "cap": "12s"})
    assert bench.asked == [1000.0, 1010.0, 1022.0]


def test_the_last_failure_is_the_one_that_is_told():
    errors = failures(3)
    got, bench = outcome(*errors)
    assert got is errors[2] and len(bench.asked) == 3


@pytest.mark.parametrize(("answers", "reason"), [(failures(3), "spent"), (failures(1, "rejected"), "kind"), ([Reply()], None)])
def test_why_no_other_try_followed_an_attempt_is_noted(answers: list[GatewayError | Reply], reason: str | None):
    notes: dict[str, Any] = {}
    attempt = Attempt(TARGET, 1000.0)
    outcome(*answers, notes=notes, attempts=[attempt])
    assert notes.get(STOPPED, {}).get(1) == reason


@pytest.mark.parametrize("error", [ClientError("m"), CapacityError("m")])
def test_what_is_not_the_providers_failure_is_not_repeated(error: GatewayError):
    got, bench = outcome(error)
    assert got is error and len(bench.asked) == 1
    assert got.should_retry is None


@pytest.mark.parametrize(("most", "asked"), [(0, 1), (1, 2), (5, 6)])
def test_a_level_of_the_configuration_sets_how_often_and_zero_is_a_value(most: int, asked: int):
    _, bench = outcome(*failures(10), resolved=Resolved(max_retries=most))
    assert len(bench.asked) == asked


def test_a_level_that_sets_nothing_leaves_the_policys_own():
    _, bench = outcome(*failures(10), resolved=Resolved(), settings={"max_retries": 3})
    assert len(bench.asked) == 4


def test_a_wait_counts_as_the_providers_time():
    call = make_call(target=TARGET)
    got, bench = outcome(*failures(1, retry_after=3.0), Reply(), settings={"base": "1s"}, id=call.id)
    assert isinstance(got, Reply) and bench.asked == [1000.0, 1004.0]

    async def main(clock: HandClock) -> float:
        bench = Bench(clock, [*failures(1, retry_after=3.0), Reply()], base="1s")
        await bench.policy(call, bench.upstream)
        return call.upstream_seconds

    assert in_virtual_time(main) == 4.0


def test_a_wait_ends_at_once_when_the_request_is_cancelled():
    async def main(clock: HandClock) -> tuple[float, float]:
        call, bench = make_call(target=TARGET), Bench(clock, failures(1, retry_after=20.0))
        task = asyncio.create_task(bench.policy(call, bench.upstream))
        asyncio.get_running_loop().call_later(2.0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        return clock.now, call.upstream_seconds

    assert in_virtual_time(main) == (1002.0, 2.0)


def test_the_deadline_is_looked_at_again_before_each_retry():
    got, bench = outcome(*failures(5, "rate_limit_exceeded", retry_after=4.0), deadline=1009.0, settings={"base": "1s", "max_retries": 5})
    assert bench.asked == [1000.0, 1005.0]
    assert (got.kind, got.should_retry) == ("rate_limit_exceeded", None)


# ------------------------------------------------------------------------------------------------------------------ whom waits keep waiting
@pytest.mark.parametrize(
    ("patience", "started", "pinged", "asked"),
    [
        (2.25, 1000.0, 0.0, [1000.0]),
        (8.0, 1000.0, 0.0, [1000.0, 1004.25]),
        (30.0, 1000.0, 0.0, [1000.0, 1004.25, 1008.75]),
        (9.0, 994.0, 0.0, [1000.0]),
        (9.0, 994.0, 999.0, [1000.0, 1004.25]),
    ],
    ids=["less than the hint", "one hint", "two hints", "earlier attempts", "a ping"],
)
def test_nobody_waits_for_longer_than_the_client_does(patience: float, started: float, pinged: float, asked: list[float]):
    limited = failures(3, "rate_limit_exceeded", retry_after=4.0)
    got, bench = outcome(
        *limited, settings={"base": "250ms"}, patience=patience, pinged=pinged, attempts=[Attempt(TARGET, started)], stream=True
    )
    assert (bench.asked, got.retry_after) == (asked, 4.0)


@pytest.mark.parametrize(
    ("leads_on", "first_token", "asked"),
    [(False, 5.0, 6), (True, 60.0, 3), (True, None, 3), (True, 13.0, 2), (True, 5.0, 1)],
)
def test_where_another_target_is_there_all_waits_together_have_an_end(leads_on: bool, first_token: float | None, asked: int):
    """No longer than one wait may be, or content may take: each hint is short, and they never end."""
    settings = {"base": "1ms", "cap": "30s", "max_retries": 5, "leads_on": leads_on}
    limited = failures(6, "rate_limit_exceeded", retry_after=12.0)
    _, bench = outcome(*limited, settings=settings, timeouts=Timeouts(first_token=first_token))
    assert len(bench.asked) == asked


# ------------------------------------------------------------------------------------------------------------------ other credentials
def with_keys(*errors: UpstreamError, **members: Any) -> tuple[Any, Call, list[float]]:
    """A request whose attempts take one credential after the other; these are the failures that they meet."""

    async def main(clock: HandClock) -> tuple[Any, Call, list[float]]:
        bench = Bench(clock, [*errors, Reply()], **members.pop("settings", {}))
        call = make_call(target=TARGET, **members)

        async def upstream(call: Call) -> Reply:
            key = Credential(f"env:{len(call.attempts)}", "s")
            call.attempts.append(Attempt(replace(TARGET, credential=key), clock.now))
            return await bench.upstream(call)

        try:
            return await bench.policy(call, upstream), call, bench.asked
        except UpstreamError as error:
            return error, call, bench.asked

    return in_virtual_time(main)


@pytest.mark.parametrize("settings", [{}, {"max_retries": 0}, {"budget": 0.0, "max_retries": 0}])
@pytest.mark.parametrize("kind", ["rate_limit_exceeded", "insufficient_quota"])
def test_all_credentials_are_tried_before_a_limit_is_told(kind: str, settings: dict[str, Any]):
    got, _, asked = with_keys(*failures(15, kind, spare=True), settings=settings)
    assert isinstance(got, Reply)
    assert asked == [1000.0] * 16, "nothing is waited for, and a provider's budget of ten is not what bounds it"


def test_a_limit_of_all_credentials_is_waited_for_as_often_as_ever():
    limited = failed("rate_limit_exceeded", retry_after=5.0)
    got, _, asked = with_keys(*failures(3, "rate_limit_exceeded", spare=True), limited, settings={"base": "1s"})
    assert isinstance(got, Reply) and asked == [1000.0] * 4 + [1006.0]


@pytest.mark.parametrize(("hint", "told"), [(5.0, None), (60.0, None), (None, None)])
def test_where_no_retries_are_allowed_a_limit_of_all_credentials_is_the_client_s(hint: float | None, told: bool | None):
    limited = failed("rate_limit_exceeded", retry_after=hint)
    got, _, asked = with_keys(*failures(1, "rate_limit_exceeded", spare=True), limited, settings={"max_retries": 0})
    assert (got, got.retry_after, got.should_retry, len(asked)) == (limited, hint, told, 2)


def test_a_credential_that_has_its_turn_again_is_a_retry():
    async def main(clock: HandClock) -> tuple[Any, int]:
        bench = Bench(clock, [*failures(9, "rate_limit_exceeded", spare=True), Reply()], max_retries=1)
        call = make_call(target=TARGET)

        async def upstream(call: Call) -> Reply:
            key = Credential(f"env:{len(call.attempts) % 2}", "s")
            call.attempts.append(Attempt(replace(TARGET, credential=key), clock.now))
            return await bench.upstream(call)

        with pytest.raises(UpstreamError) as caught:
            await bench.policy(call, upstream)
        return caught.value.should_retry, len(bench.asked)

    assert in_virtual_time(main) == (None, 4), "two credentials, the first again, and one retry"


def test_an_upload_that_met_one_credentials_limit_may_come_back_at_once():
    got, _, asked = with_keys(*failures(1, "rate_limit_exceeded", spare=True), content=object())
    assert (got.should_retry, got.retry_after, len(asked)) == (None, None, 1)


# ------------------------------------------------------------------------------------------------------------------ the provider's budget
def test_a_provider_that_fails_sees_little_more_than_what_was_asked():
    """Row 57: two hundred requests in ten seconds, each of which may be retried ten times."""

    async def main(clock: HandClock) -> tuple[int, float]:
        bench = Bench(clock, failures(10_000), max_retries=10, base="1ms")
        for _ in range(200):
            clock.move(0.05)
            with pytest.raises(UpstreamError) as caught:
                await bench.ask()
            assert caught.value.should_retry is False
        return len(bench.asked), bench.count("llm_retry_budget_exhausted_total")

    asked, exhausted = in_virtual_time(main)
    assert 200 * 1.1 <= asked <= 200 * 1.1 + 10 + 11, "a tenth of the requests, ten to begin with, and one a second"
    assert exhausted > 100


def test_the_budget_outlives_the_policy():
    """A reload makes another policy; the provider is the same."""

    async def main(clock: HandClock) -> int:
        settings: dict[str, Any] = {"max_retries": 10, "base": "1ms", "cap": "1ms"}
        bench = Bench(clock, failures(100), **settings)
        with pytest.raises(UpstreamError):
            await bench.ask()
        bench.policy = Retry(RetrySettings(**settings), bench.services, longest)
        with pytest.raises(UpstreamError):
            await bench.ask()
        return len(bench.asked)

    assert in_virtual_time(main) == 2 + 10


@pytest.mark.parametrize(("others", "attempts"), [((OTHER,), 1), ((), 3)])
def test_a_target_that_is_out_gets_one_attempt_where_there_is_another(others: tuple[Target, ...], attempts: int):
    """The only one is never out altogether: a retry there is as good as it was."""

    async def main(clock: HandClock) -> int:
        bench = Bench(clock, failures(5))
        for _ in range(5):
            note_failure(bench.services.board.of(TARGET), failed("server_error"), clock.now, Ejection())
        with pytest.raises(UpstreamError):
            await bench.ask(others=others)
        return len(bench.asked)

    assert in_virtual_time(main) == attempts


# -------------------------------------------------------------------------------------------------------------- what the client is told
@pytest.mark.parametrize(
    ("errors", "told"),
    [
        (failures(3), False),
        ([late(START)], False),
        ([late(CONNECT, kind="connect_timeout", reached=False)] * 2, False),
        (failures(1, "upstream_timeout", status=504), None),
        (failures(1, "overloaded"), None),
        (failures(1, "overloaded", told=True), None),
        (failures(1, "overloaded", told=False), False),
        (failures(1, "dns", reached=False), None),
        (failures(1, "tls", reached=False), False),
        (failures(1, "response_too_large"), False),
        (failures(1, "insufficient_quota"), False),
        ([*failures(1), failed("overloaded")], False),
        (failures(3, "rate_limit_exceeded"), False),
        (failures(3, "rate_limit_exceeded", retry_after=1.0), False),
        (failures(1, "rate_limit_exceeded", retry_after=60.0), None),
        (failures(1, "overloaded", retry_after=5.0), None),
        ([*failures(2), failed("rate_limit_exceeded", retry_after=90.0)], None),
        (failures(1, status=503, retry_after=60.0), None),
        (failures(1, status=500, retry_after=60.0), False),
        (failures(1, "rate_limit_exceeded", retry_after=60.0, told=False), False),
        (failures(1, "rejected"), None),
        (failures(1, "rejected", told=True), True),
    ],
    ids=[
        "spent",
        "our-limit",
        "our-limit-of-connecting",
        "the-provider-s-own-504",
        "overloaded",
        "overloaded-and-told-to",
        "overloaded-and-told-not-to",
        "no-such-name",
        "no-TLS",
        "too-large",
        "no-money",
        "overloaded-after-another-try",
        "no-hint",
        "hint-waited-for",
        "hint-too-long",
        "overloaded-with-a-hint",
        "hint-too-long-after-others",
        "503-with-a-hint",
        "500-with-a-hint",
        "told-and-hint",
        "refused",
        "refused-for-now",
    ],
)
def test_the_client_is_told_not_to_repeat_what_was_repeated_here(errors: list[UpstreamError], told: bool | None):
    got, _ = outcome(*errors)
    assert got is errors[-1]
    assert got.should_retry is told


#: Failures that nothing is done about here, and what the client is told of trying again: nothing where it would try without a gateway.
LEFT = [
    (failed("server_error"), None),
    (failed("rate_limit_exceeded"), None),
    (failed("rate_limit_exceeded", retry_after=2.0), None),
    (failed("overloaded", retry_after=5.0), None),
    (failed("overloaded"), None),
    (failed("server_error", told=False), False),
    (failed("upstream_timeout"), None),
    (failed("reset"), None),
    (failed("invalid_response"), False),
    (late(START), False),
    (failed("provider_auth"), False),
]


@pytest.mark.parametrize(("error", "told"), LEFT)
@pytest.mark.parametrize("level", ["policy", "request"])
def test_where_no_retries_are_allowed_the_client_has_its_own(level: str, error: UpstreamError, told: bool | None):
    """`max_retries: 0` is to leave a hiccup to the client, not to make it final."""
    if level == "policy":
        got, bench = outcome(error, settings={"max_retries": 0})
    else:
        got, bench = outcome(error, resolved=Resolved(max_retries=0))
    assert (got.should_retry, len(bench.asked)) == (told, 1)


@pytest.mark.parametrize("kind", ["server_error", "overloaded", "upstream_timeout"])
def test_what_was_asked_of_two_targets_was_repeated(kind: str):
    got, _ = outcome(failed(kind), settings={"max_retries": 0}, attempts=[Attempt(OTHER, 999.0), Attempt(TARGET, 1000.0)])
    assert got.should_retry is False


def test_a_hint_that_the_budget_did_not_wait_for_is_the_client_s():
    async def main(clock: HandClock) -> bool | None:
        bench = Bench(clock, failures(99, "rate_limit_exceeded", retry_after=0.01), budget=0, max_retries=10, base="1ms", cap="20ms")
        for _ in range(2):
            with pytest.raises(UpstreamError) as caught:
                await bench.ask()
        assert bench.count("llm_retry_budget_exhausted_total") == 1
        return caught.value.should_retry

    assert in_virtual_time(main) is None


@pytest.mark.parametrize(("error", "told"), LEFT)
@pytest.mark.parametrize("why", ["streamed", "unrepeatable"])
def test_what_is_never_repeated_here_is_the_client_s_to_repeat(why: str, error: UpstreamError, told: bool | None):
    """As it would be without a gateway; but not what another try costs a whole timeout for, or cannot mend."""
    members: dict[str, Any] = {"content": object()} if why == "streamed" else {"body": {"store": True}}
    got, bench = outcome(error, **members)
    assert (got.should_retry, len(bench.asked)) == (told, 1)
