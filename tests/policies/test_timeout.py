"""How long an attempt may take: of the provider's patience, what the client's own leaves."""

from __future__ import annotations

import pytest

from policies.timeout import CLIENT_READ_TIMEOUT, Timeout, TimeoutSettings, parse_patience, until
from proxy.core.call import Call, Timeouts
from proxy.core.errors import CapacityError
from proxy.core.metrics import Registry
from proxy.core.protocols import Services
from proxy.core.reply import Reply
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


@pytest.mark.parametrize("left", [0.0, -1.0])
def test_nothing_is_tried_when_nothing_is_left(left: float):
    with pytest.raises(CapacityError) as caught:
        until(LIMITS, left)
    assert (caught.value.status, caught.value.code) == (504, "deadline_exceeded")


async def decided(call: Call, *, honour: bool = True, now: float = 1000.0) -> Timeouts | None:
    """The timeouts that the next handler sees."""
    services = Services(HandClock(now), Registry(), lambda fields: None)
    seen: list[Timeouts | None] = []

    async def innermost(inner: Call) -> Reply:
        seen.append(inner.timeouts)
        return Reply()

    await Timeout(TimeoutSettings(honour_client=honour), services)(call, innermost)
    return seen[0]


@pytest.mark.parametrize(
    ("told", "stream", "deadline", "now", "expected"),
    [
        (None, False, None, 1000.0, LIMITS),
        ("20", False, None, 1000.0, Timeouts(5, 20 + GRACE, 30, 20 + GRACE)),
        ("20", False, None, 1015.0, Timeouts(5, 5 + GRACE, 30, 5 + GRACE)),
        ("20", True, None, 1000.0, Timeouts(5, 20 + GRACE, 20 + GRACE, 600)),
        ("40", True, None, 1000.0, Timeouts(5, 40 + GRACE, 30, 600)),
        ("20", False, 1010.0, 1000.0, Timeouts(5, 10, 30, 10)),
        ("20", False, 1100.0, 1000.0, Timeouts(5, 20 + GRACE, 30, 20 + GRACE)),
        ("20", True, 1010.0, 1000.0, Timeouts(5, 10, 20 + GRACE, 10)),
        ("nonsense", False, None, 1000.0, LIMITS),
        (None, False, 1010.0, 1000.0, Timeouts(5, 10, 30, 10)),
    ],
)
async def test_the_clients_patience_narrows_the_providers(
    told: str | None, stream: bool, deadline: float | None, now: float, expected: Timeouts
):
    headers = {} if told is None else {CLIENT_READ_TIMEOUT: told}
    call = make_call(headers=headers, stream=stream, deadline=deadline, timeouts=LIMITS)
    assert await decided(call, now=now) == expected


async def test_a_client_that_has_given_up_already_is_not_served():
    call = make_call(headers={CLIENT_READ_TIMEOUT: "20"}, timeouts=LIMITS)
    with pytest.raises(CapacityError):
        await decided(call, now=1021.0)


async def test_the_clients_word_can_be_ignored_by_configuration():
    call = make_call(headers={CLIENT_READ_TIMEOUT: "1"}, timeouts=LIMITS)
    assert await decided(call, honour=False) == LIMITS


async def test_a_call_without_limits_stays_without():
    assert await decided(make_call(headers={CLIENT_READ_TIMEOUT: "1"}, deadline=1001.0)) is None
