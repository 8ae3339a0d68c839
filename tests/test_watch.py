"""How long an answer may stand still, and go on."""

from __future__ import annotations

import pytest

from proxy.core.call import Timeouts
from proxy.core.errors import IDLE, START, TOTAL, UpstreamError
from proxy.stream import broken
from tests.test_stream import FOREVER, Watched


@pytest.mark.parametrize(
    ("timeouts", "due", "due_after_content"),
    [
        (Timeouts(first_token=60, idle=30, total=100), 1060, 1040),
        (Timeouts(first_token=None, idle=30, total=100), 1100, 1040),
        (Timeouts(first_token=60, idle=None, total=100), 1060, 1100),
        (Timeouts(first_token=200, idle=300, total=100), 1100, 1100),
        (Timeouts(first_token=60, idle=30, total=None), 1060, 1040),
        (Timeouts(first_token=None, idle=None, total=None), FOREVER, FOREVER),
    ],
)
async def test_an_answer_is_due_by_its_limits(timeouts: Timeouts, due: float, due_after_content: float):
    watched = Watched(timeouts=timeouts)
    assert watched.watch.due == due
    watched.clock.move(10)
    assert watched.watch.due == due, "time alone moves nothing"
    assert watched.watch.progress() == 1010
    assert watched.watch.due == due_after_content


async def test_progress_never_moves_the_end_of_all():
    watched = Watched()
    for _ in range(20):
        watched.clock.move(10)
        watched.watch.progress()
        assert watched.watch.due <= 1100


async def test_an_answer_that_is_due_is_failed_as_late():
    watched = Watched(None)
    watched.sweeper.look(1059)
    assert watched.response.failed is None
    watched.sweeper.look(1060)
    with pytest.raises(UpstreamError) as caught:
        await watched.response.receive()
    assert (caught.value.kind, caught.value.status) == ("upstream_timeout", 504)


@pytest.mark.parametrize(
    ("timeouts", "begins", "bound"),
    [
        (Timeouts(first_token=60, idle=30, total=100), False, START),
        (Timeouts(first_token=60, idle=30, total=100), True, IDLE),
        (Timeouts(first_token=60, idle=300, total=100), True, TOTAL),
        (Timeouts(first_token=None, idle=30, total=100), False, TOTAL),
    ],
)
async def test_an_answer_that_is_late_says_by_which_limit(timeouts: Timeouts, begins: bool, bound: str):
    watched = Watched(timeouts=timeouts)
    watched.clock.move(10)
    if begins:
        watched.watch.last = watched.clock.now
        watched.watch.progress()
    watched.watch.expire()
    assert watched.response.failed is not None
    assert watched.response.failed.bound == bound
    assert broken(watched.response.failed).bound == bound


async def test_a_stopped_watch_fails_nothing():
    watched = Watched()
    watched.watch.stop()
    watched.watch.stop()
    watched.sweeper.look(FOREVER)
    assert watched.response.failed is None


#: Where nobody has set anything, and the client says that it waits for a byte for 20 s.
UNSET = Timeouts(first_token=20, idle=20, total=600, defaults=frozenset({"first_token", "idle", "total"}))


@pytest.mark.parametrize(
    ("timeouts", "is_heard", "is_heard_later"),
    [
        (UNSET, True, True),
        (UNSET.overridden({"first_token": 20.0}), False, True),
        (UNSET.overridden({"idle": 20.0}), True, False),
        (UNSET.overridden({"total": 600.0}), True, True),
    ],
)
async def test_what_brings_no_content_ends_a_silence_that_only_the_client_bounds(timeouts: Timeouts, is_heard: bool, is_heard_later: bool):
    watched = Watched(timeouts=timeouts)
    watch = watched.watch
    watch.listen()
    watched.clock.move(15)
    watch.heard()
    assert watch.due == (1035 if is_heard else 1020)
    watch.flow()
    watch.progress()
    assert watch.due == 1035
    watched.clock.move(15)
    watch.heard()
    assert watch.due == (1050 if is_heard_later else 1035)


async def test_where_the_client_says_nothing_only_content_ends_a_silence():
    watched = Watched(timeouts=UNSET)
    watched.clock.move(15)
    watched.watch.heard()
    assert watched.watch.due == 1020


@pytest.mark.parametrize("flows", [False, True])
async def test_an_answer_that_brings_nothing_but_comments_has_the_total_from_its_last_content_on(flows: bool):
    watched = Watched(timeouts=UNSET)
    watch = watched.watch
    watch.listen()
    if flows:
        watched.clock.move(500)
        watch.flow()
        watch.progress()
    began = watched.clock.now
    while watched.clock.now < began + 595:
        watched.clock.move(10)
        watch.heard()
    assert watch.due == began + 600
    watch.expire()
    assert watched.response.failed is not None and watched.response.failed.bound == TOTAL


@pytest.mark.parametrize(("flows", "bound"), [(False, START), (True, IDLE)])
async def test_a_silence_after_a_comment_is_the_same_silence(flows: bool, bound: str):
    watched = Watched(timeouts=UNSET)
    watched.watch.listen()
    if flows:
        watched.watch.flow()
        watched.watch.progress()
    watched.clock.move(10)
    watched.watch.heard()
    watched.watch.expire()
    assert watched.response.failed is not None and watched.response.failed.bound == bound


@pytest.mark.parametrize(("reads_for", "is_impatience"), [(0, False), (5, False), (20, True), (90, True)])
@pytest.mark.parametrize("is_reading", [False, True])
async def test_an_end_that_the_clients_slow_reading_led_to_is_no_failure_of_the_provider(
    reads_for: float, is_impatience: bool, is_reading: bool
):
    watched = Watched()
    watch = watched.watch
    watch.progress()
    watched.clock.move(100 - reads_for)
    watch.pause()
    watched.clock.move(reads_for)
    if not is_reading:
        watch.progress()
    watch.expire()
    error = watched.response.failed
    assert error is not None
    assert (error.bound, error.is_impatience) == (TOTAL, is_impatience)
    failure = broken(error)
    code, fault = ("deadline_exceeded", "client") if is_impatience else ("upstream_timeout", "upstream")
    assert (failure.is_impatience, failure.code, failure.fault, failure.status) == (is_impatience, code, fault, 504)
