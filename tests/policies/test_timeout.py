"""How long an attempt may take: of the provider's patience, what the client's own leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies.timeout import (
    CLIENT_READ_TIMEOUT,
    CLIENT_TIMEOUT,
    CLIENT_WAITS_AT_MOST,
    READ_WHOLE,
    Patience,
    Timeout,
    TimeoutSettings,
    narrowed,
    parse_patience,
    patience_of,
    until,
)
from proxy.core.call import Call, Timeouts
from proxy.core.errors import CapacityError
from proxy.core.metrics import Registry
from proxy.core.protocols import Services
from proxy.core.reply import Reply
from proxy.dispatch import CHECKED
from tests.core.doubles import HandClock, make_call

LIMITS = Timeouts(connect=5, first_token=60, idle=30, total=600)
#: How much longer than the client the gateway waits, so that the client's own time-out comes first.
GRACE = 0.25
NONE = Timeouts(connect=None, first_token=None, idle=None, total=None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("600", 600.0 + GRACE),
        ("1.5", 1.5 + GRACE),
        (" 7 ", 7.0 + GRACE),
        ("0", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("None", None),
        ("", None),
    ],
)
def test_a_patience_is_a_number_of_seconds_or_makes_no_sense(text: str, seconds: float | None):
    assert parse_patience(text) == seconds


@pytest.mark.parametrize(
    ("limits", "left", "expected"),
    [
        (LIMITS, 1000.0, LIMITS),
        (LIMITS, 100.0, Timeouts(5, 60, 30, 100)),
        (LIMITS, 10.0, Timeouts(5, 10, 30, 10)),
        (LIMITS, 1.0, Timeouts(1, 1, 30, 1)),
        (NONE, 10.0, Timeouts(10, 10, None, 10)),
    ],
)
def test_limits_are_cut_to_what_is_left(limits: Timeouts, left: float, expected: Timeouts):
    assert until(limits, left) == expected


#: Nobody has set how long the whole may take.
OPEN = Timeouts(connect=5, first_token=60, idle=30, total=600, defaults=frozenset({"total"}))


@pytest.mark.parametrize(
    ("left", "flows", "expected"),
    [
        (1000.0, False, OPEN),
        (1000.0, True, replace(OPEN, left=1000.0)),
        (100.0, True, Timeouts(5, 60, 30, 100)),
        (100.0, False, Timeouts(5, 60, 30, 100)),
    ],
)
def test_a_deadline_bounds_what_flows_also_where_the_total_does_not(left: float, flows: bool, expected: Timeouts):
    assert until(OPEN, left, flows=flows) == expected


@pytest.mark.parametrize(
    ("headers", "stream", "total"),
    [
        ({}, False, 600),
        ({CLIENT_READ_TIMEOUT: "900"}, False, 900 + GRACE),
        ({CLIENT_READ_TIMEOUT: "900"}, True, 900 + GRACE),
        ({CLIENT_READ_TIMEOUT: "60"}, True, 600),
        ({CLIENT_READ_TIMEOUT: "600"}, True, 600),
        ({CLIENT_TIMEOUT: "1200"}, True, 1201 + GRACE),
        ({CLIENT_READ_TIMEOUT: "1e9"}, True, CLIENT_WAITS_AT_MOST),
    ],
)
async def test_where_nobody_has_set_the_total_what_has_not_begun_is_waited_for_as_long_as_the_client_waits(
    headers: dict[str, str], stream: bool, total: float
):
    call = make_call(headers=headers, stream=stream, timeouts=OPEN)
    found = await decided(call)
    assert found is not None and found.total == total


async def test_a_silence_that_only_the_client_bounds_has_an_end_whatever_it_says():
    limits = replace(OPEN, defaults=frozenset({"first_token", "idle", "total"}))
    found = await decided(make_call(headers={CLIENT_READ_TIMEOUT: "1e9"}, stream=True, timeouts=limits))
    assert found is not None
    assert (found.first_token, found.idle) == (CLIENT_WAITS_AT_MOST,) * 2


@pytest.mark.parametrize("level", ["provider", "request"])
async def test_a_total_that_anybody_has_set_holds_for_a_client_of_any_patience(level: str):
    limits = OPEN.overridden({"total": 600.0}) if level == "request" else LIMITS
    found = await decided(make_call(headers={CLIENT_READ_TIMEOUT: "3600"}, stream=True, timeouts=limits, deadline=3000.0))
    assert found is not None
    assert (found.total, found.left, found.defaults) == (600, None, frozenset())


DEFAULTS = Timeouts(defaults=frozenset({"first_token", "idle", "total"}))


@pytest.mark.parametrize(
    ("limits", "headers", "stream", "seconds", "expected"),
    [
        (DEFAULTS, {}, True, 1200.0, {"first_token": 1200.0, "idle": 600.0, "total": 1200.0, "left": 1200.0}),
        (replace(DEFAULTS, first_token=None), {}, False, 1200.0, {"first_token": None, "total": 1200.0, "left": None}),
        (DEFAULTS, {}, True, 9000.0, {"first_token": CLIENT_WAITS_AT_MOST, "total": CLIENT_WAITS_AT_MOST, "left": 9000.0}),
        (DEFAULTS, {CLIENT_READ_TIMEOUT: "60"}, True, 1200.0, {"first_token": 60 + GRACE, "idle": 60 + GRACE, "total": 1200.0}),
        (DEFAULTS, {CLIENT_READ_TIMEOUT: "900"}, True, 1200.0, {"first_token": 900 + GRACE, "total": 1200.0}),
        (replace(DEFAULTS, first_token=None), {CLIENT_READ_TIMEOUT: "900"}, False, 1200.0, {"total": 900 + GRACE}),
        (DEFAULTS.overridden({"first_token": 20.0}), {}, True, 1200.0, {"first_token": 20.0, "total": 1200.0}),
        (DEFAULTS.overridden({"total": 700.0}), {}, True, 1200.0, {"first_token": 600.0, "total": 700.0, "left": None}),
        (DEFAULTS, {}, True, 500.0, {"first_token": 500.0, "total": 500.0}),
    ],
)
async def test_a_deadline_that_is_further_off_than_the_defaults_lengthens_them(
    limits: Timeouts, headers: dict[str, str], stream: bool, seconds: float, expected: dict[str, float | None]
):
    clock = HandClock()
    call = make_call(headers=headers, stream=stream, timeouts=limits, deadline=clock.now + seconds)
    found = await decided(call, clock=clock)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("limits", "values", "total"),
    [
        (DEFAULTS, {"first_token": 1200.0}, 1200.0),
        (DEFAULTS, {"first_token": 20.0}, 600.0),
        (DEFAULTS, {"first_token": 1200.0, "total": 900.0}, 900.0),
        (LIMITS, {"first_token": 1200.0}, 600),
    ],
)
def test_a_total_that_nobody_has_set_gives_way_to_a_longer_wait_for_content_of_any_level(
    limits: Timeouts, values: dict[str, float], total: float
):
    assert limits.overridden(values).total == total


@pytest.mark.parametrize("left", [0.0, -1.0])
def test_nothing_is_tried_when_nothing_is_left(left: float):
    with pytest.raises(CapacityError) as caught:
        until(LIMITS, left)
    assert (caught.value.status, caught.value.code) == (504, "deadline_exceeded")


async def decided(call: Call, *, honour: bool = True, clock: HandClock | None = None, policy: Timeout | None = None) -> Timeouts | None:
    """The timeouts that the next handler sees."""
    services = Services(clock or HandClock(), Registry(), lambda fields: None)
    seen: list[Timeouts | None] = []

    async def innermost(inner: Call) -> Reply:
        seen.append(inner.timeouts)
        return Reply()

    await (policy or Timeout(TimeoutSettings(honour_client=honour), services))(call, innermost)
    return seen[0]


# -- a client's patience, and what may be a default --

SET = frozenset[str]()
UNSET = frozenset(("first_token", "idle"))
STREAM = {False: Timeouts(5, 60, 30, 600, defaults=SET), True: Timeouts(5, 60, 30, 600, defaults=UNSET)}


@pytest.mark.parametrize(
    ("headers", "silence", "answer"),
    [
        ({}, None, None),
        ({CLIENT_READ_TIMEOUT: "600"}, 600 + GRACE, None),
        ({CLIENT_READ_TIMEOUT: "nonsense"}, None, None),
        ({CLIENT_TIMEOUT: "0"}, None, None),
        ({CLIENT_TIMEOUT: "20"}, None, 21 + GRACE),
        ({CLIENT_READ_TIMEOUT: "9", CLIENT_TIMEOUT: "20"}, 9 + GRACE, 21 + GRACE),
        ({CLIENT_READ_TIMEOUT: "nonsense", CLIENT_TIMEOUT: "20"}, None, 21 + GRACE),
    ],
)
def test_a_client_says_how_long_it_waits_for_a_byte_and_for_an_answer(headers: dict[str, str], silence: float | None, answer: float | None):
    assert patience_of(headers) == Patience(silence, answer)


@pytest.mark.parametrize(
    ("defaults", "patience", "first_token", "idle"),
    [
        # What was set holds unless the client is less patient; what is a default gives way, in both directions.
        (False, Patience(600), 60, 30),
        (False, Patience(40), 40, 30),
        (False, Patience(20), 20, 20),
        (True, Patience(600), 600, 600),
        (True, Patience(40), 40, 40),
        (True, Patience(20), 20, 20),
        # Who says how long it waits for all of it says nothing of silences but that they may be as long.
        (False, Patience(None, 600), 60, 30),
        (False, Patience(None, 20), 60, 30),
        (True, Patience(None, 600), 600, 600),
        (True, Patience(None, 45), 60, 45),
        (True, Patience(None, 20), 60, 30),
        (True, Patience(40, 600), 40, 40),
    ],
)
def test_a_stream_may_be_silent_for_as_long_as_its_client_waits(defaults: bool, patience: Patience, first_token: float, idle: float):
    assert narrowed(STREAM[defaults], patience, awaits_answer=False) == Timeouts(
        5, first_token, idle, 600, defaults=STREAM[defaults].defaults
    )


@pytest.mark.parametrize("name", ["first_token", "idle"])
async def test_what_any_level_sets_is_no_default(name: str):
    limits = STREAM[True].overridden({name: 10.0})
    call = make_call(headers={CLIENT_READ_TIMEOUT: "600"}, stream=True, timeouts=limits)
    found = await decided(call)
    assert found is not None
    assert {each: getattr(found, each) for each in UNSET} == {**dict.fromkeys(UNSET, 600 + GRACE), name: 10.0}


async def test_the_total_bounds_a_client_of_any_patience():
    call = make_call(headers={CLIENT_READ_TIMEOUT: "3600"}, stream=True, timeouts=STREAM[True])
    found = await decided(call)
    assert found is not None and found.total == 600


@pytest.mark.parametrize(("awaits_answer", "first_token"), [(True, 20), (False, None)])
def test_an_answers_beginning_is_bounded_where_the_client_only_waits_for_it(awaits_answer: bool, first_token: float | None):
    limits = Timeouts(5, None, 30, 600, defaults=UNSET)
    assert narrowed(limits, Patience(None, 20), awaits_answer=awaits_answer).first_token == first_token


@pytest.mark.parametrize(
    ("told", "stream", "deadline", "expected"),
    [
        (None, False, None, LIMITS),
        ("20", False, None, Timeouts(5, 20 + GRACE, 20 + GRACE, 20 + GRACE)),
        ("20", True, None, Timeouts(5, 20 + GRACE, 20 + GRACE, 600)),
        ("40", True, None, Timeouts(5, 40 + GRACE, 30, 600)),
        ("20", False, 1010.0, Timeouts(5, 10, 20 + GRACE, 10)),
        ("20", False, 1100.0, Timeouts(5, 20 + GRACE, 20 + GRACE, 20 + GRACE)),
        ("20", True, 1010.0, Timeouts(5, 10, 20 + GRACE, 10)),
        ("nonsense", False, None, LIMITS),
        (None, False, 1010.0, Timeouts(5, 10, 30, 10)),
    ],
)
async def test_the_clients_patience_narrows_the_providers(told: str | None, stream: bool, deadline: float | None, expected: Timeouts):
    headers = {} if told is None else {CLIENT_READ_TIMEOUT: told}
    call = make_call(headers=headers, stream=stream, deadline=deadline, timeouts=LIMITS)
    assert await decided(call) == expected


@pytest.mark.parametrize("name", [CLIENT_READ_TIMEOUT, CLIENT_TIMEOUT])
@pytest.mark.parametrize(
    ("operation", "stream", "is_bounded"),
    [
        ("chat", False, True),
        ("completion", False, True),
        ("embedding", False, True),
        ("responses", False, True),
        ("chat", True, False),
        ("responses", True, False),
        ("audio", False, False),
        ("files", False, False),
        ("images", False, False),
    ],
)
async def test_only_an_answer_that_comes_all_at_once_has_a_deadline_by_its_clients_word(
    operation: str, stream: bool, is_bounded: bool, name: str
):
    call = make_call(operation, headers={name: "20"}, stream=stream, timeouts=LIMITS)
    await decided(call)
    assert (call.deadline is not None) is is_bounded


@pytest.mark.parametrize(
    ("headers", "stream", "patience"),
    [
        ({}, True, None),
        ({CLIENT_READ_TIMEOUT: "20"}, True, 20 + GRACE),
        ({CLIENT_READ_TIMEOUT: "20"}, False, 20 + GRACE),
        ({CLIENT_TIMEOUT: "20"}, True, None),
        ({CLIENT_TIMEOUT: "20"}, False, 21 + GRACE),
    ],
)
async def test_how_long_the_client_bears_a_silence_is_known_to_whoever_makes_it_wait(
    headers: dict[str, str], stream: bool, patience: float | None
):
    call = make_call(headers=headers, stream=stream, timeouts=LIMITS)
    await decided(call)
    assert call.patience == patience


def test_answers_that_are_read_whole_are_those_that_are_checked():
    assert READ_WHOLE == CHECKED


async def test_the_deadline_begins_with_the_first_attempt_and_stays():
    """The client begins to wait once it has sent its body, which may take it longer than that."""
    clock = HandClock(1015.0)
    call = make_call(headers={CLIENT_READ_TIMEOUT: "20"}, timeouts=LIMITS)
    policy = Timeout(TimeoutSettings(), Services(clock, Registry(), lambda fields: None))
    assert await decided(call, policy=policy) == Timeouts(5, 20 + GRACE, 20 + GRACE, 20 + GRACE)
    clock.move(15)
    call.timeouts = LIMITS
    assert await decided(call, policy=policy) == Timeouts(5, 5 + GRACE, 20 + GRACE, 5 + GRACE)
    clock.move(6)
    call.timeouts = LIMITS
    with pytest.raises(CapacityError):
        await decided(call, policy=policy)


async def test_what_was_decided_for_one_upstream_does_not_hold_for_another():
    call = make_call(headers={CLIENT_READ_TIMEOUT: "40"}, stream=True, timeouts=STREAM[True])
    policy = Timeout(TimeoutSettings(), Services(HandClock(), Registry(), lambda fields: None))
    for defaults, idle in [(True, 40 + GRACE), (False, 30), (True, 40 + GRACE), (True, 40 + GRACE)]:
        call.timeouts = STREAM[defaults]
        found = await decided(call, policy=policy)
        assert found is not None and found.idle == idle


async def test_the_clients_word_can_be_ignored_by_configuration():
    call = make_call(headers={CLIENT_READ_TIMEOUT: "1"}, timeouts=LIMITS)
    assert await decided(call, honour=False) == LIMITS


async def test_a_call_without_limits_stays_without():
    assert await decided(make_call(headers={CLIENT_READ_TIMEOUT: "1"}, deadline=1001.0)) is None
