"""What takes a target out, and what brings it back. Pure: times are arguments."""

from __future__ import annotations

import pytest

from proxy.core.board import (
    Board,
    Ejection,
    TargetState,
    counts,
    is_available,
    is_ejected,
    is_in_vain,
    is_unmeasured,
    note_content,
    note_failure,
    note_in_vain,
    note_no_content,
    note_success,
    peak_average,
    seconds_out,
)
from proxy.core.call import Target
from proxy.core.errors import START, UPSTREAM_KINDS, UpstreamError, late

RULES = Ejection(failures=5, seconds=30.0, longest=300.0)
FAILED = UpstreamError("server_error", "m")
NOW = 1000.0


def fail(state: TargetState, now: float = NOW, times: int = 5, error: UpstreamError = FAILED) -> None:
    for _ in range(times):
        note_failure(state, error, now, RULES)


def test_five_failures_in_a_row_take_it_out_for_half_a_minute():
    state = TargetState()
    fail(state, times=4)
    assert is_available(state, NOW)
    fail(state, times=1)
    assert not is_available(state, NOW) and is_ejected(state, NOW)
    assert seconds_out(state, NOW) == 30.0
    assert not is_available(state, NOW + 29.9)
    assert is_available(state, NOW + 30.0)


def test_another_provider_of_the_same_name_begins_anew():
    board = Board()
    states = [board.of(Target("p", "m")), board.of(Target("p", "n")), board.of(Target("q", "m"))]
    for state in states:
        fail(state)
        note_in_vain(state, NOW, RULES)
        state.in_flight = 1
    board.pardon("p")
    board.pardon("unknown")
    fail(states[0])  # what was asked before has failed now
    found = [board.of(Target("p", "m")), board.of(Target("p", "n")), board.of(Target("q", "m"))]
    assert [is_available(state, NOW) for state in found] == [True, True, False]
    assert [state.in_flight for state in found] == [0, 0, 1]


def test_a_success_between_starts_the_count_again():
    state = TargetState()
    fail(state, times=4)
    note_success(state, NOW)
    fail(state, times=4)
    assert is_available(state, NOW)


def test_on_trial_one_attempt_goes_at_a_time():
    state = TargetState()
    fail(state)
    state.probing = True
    assert not is_available(state, NOW + 31)
    state.probing = False
    assert is_available(state, NOW + 31)


@pytest.mark.parametrize("rounds", range(1, 13))
def test_each_trial_that_fails_keeps_it_out_for_longer(rounds: int):
    state, now = TargetState(), NOW
    fail(state, now)
    for _ in range(rounds - 1):
        now = state.closed_until
        fail(state, now, times=1)
    assert seconds_out(state, now) == min(30.0 * rounds, 300.0)


def test_a_success_on_trial_brings_it_back():
    state = TargetState()
    fail(state)
    state.probing = True
    note_success(state, NOW + 31, while_out=True)
    assert is_available(state, NOW + 31)
    fail(state, NOW + 32, times=4)
    assert is_available(state, NOW + 32), "it has to fail five times again"
    fail(state, NOW + 32, times=1)
    assert seconds_out(state, NOW + 32) == 60.0, "it was out a moment ago"


def test_earlier_ejections_are_forgotten_when_it_has_been_well_for_long():
    state = TargetState()
    fail(state)
    note_success(state, NOW + 31, while_out=True)
    note_success(state, NOW + 31 + 299)
    assert state.ejections == 1
    note_success(state, NOW + 31 + 300)
    assert state.ejections == 0


def test_what_began_before_it_was_taken_out_changes_nothing():
    state = TargetState()
    fail(state)
    note_success(state, NOW + 1)
    fail(state, NOW + 1)
    assert (state.ejections, seconds_out(state, NOW)) == (1, 30.0)


@pytest.mark.parametrize(("hint", "seconds"), [(None, 1.0), (0.0, 1.0), (7.0, 7.0), (600.0, 600.0), (4000.0, 600.0)])
def test_a_429_leaves_it_alone_for_as_long_as_it_says(hint: float | None, seconds: float):
    state = TargetState()
    note_failure(state, UpstreamError("rate_limit_exceeded", "m", retry_after=hint), NOW, RULES)
    assert seconds_out(state, NOW) == seconds
    assert not is_ejected(state, NOW)
    assert state.failures == 0


def test_a_429_for_one_credential_of_several_leaves_the_target_in():
    state, error = TargetState(), UpstreamError("rate_limit_exceeded", "m", retry_after=60.0)
    error.spare_credential = True
    note_failure(state, error, NOW, RULES)
    assert is_available(state, NOW)


def test_after_a_cool_down_one_failure_is_only_one():
    state = TargetState()
    note_failure(state, UpstreamError("rate_limit_exceeded", "m", retry_after=2.0), NOW, RULES)
    fail(state, NOW + 3, times=1)
    assert is_available(state, NOW + 3) and state.failures == 1


def test_a_shorter_cool_down_does_not_end_an_ejection():
    state = TargetState()
    fail(state)
    note_failure(state, UpstreamError("rate_limit_exceeded", "m", retry_after=2.0), NOW, RULES)
    assert seconds_out(state, NOW) == 30.0


def test_a_provider_that_says_how_long_is_believed_when_it_is_taken_out():
    state = TargetState()
    fail(state, error=UpstreamError("server_error", "m", retry_after=90.0))
    assert seconds_out(state, NOW) == 90.0


@pytest.mark.parametrize("kind", UPSTREAM_KINDS)
def test_what_the_client_got_wrong_never_counts(kind: str):
    assert counts(UpstreamError(kind, "m")) is (kind not in ("rejected", "response_too_large", "rate_limit_exceeded", "response_failed"))


def test_a_provider_that_had_less_time_than_the_administrator_gives_it_has_not_failed():
    state, error = TargetState(), late(START)
    assert counts(error)
    error.acquit()
    assert not counts(error)
    for _ in range(10):
        note_failure(state, error, 100.0, RULES)
    assert (state.failures, state.closed_until) == (0, 0.0)


def test_our_own_full_pool_does_not_count():
    assert not counts(UpstreamError("overloaded", "m", reached=False))
    assert counts(UpstreamError("connect_failed", "m", reached=False))


@pytest.mark.parametrize(
    ("average", "sample", "elapsed", "low", "high"),
    [
        (None, 3.0, 99.0, 3.0, 3.0),
        (1.0, 5.0, 0.0, 5.0, 5.0),
        (5.0, 1.0, 0.0, 5.0, 5.0),
        (5.0, 1.0, 10.0, 2.4, 2.5),
        (5.0, 1.0, 1e9, 1.0, 1.0),
        (5.0, 1.0, -5.0, 5.0, 5.0),
    ],
)
def test_the_average_goes_up_at_once_and_down_with_time(average: float | None, sample: float, elapsed: float, low: float, high: float):
    assert low <= peak_average(average, sample, elapsed) <= high


@pytest.mark.parametrize(
    ("average", "waited", "after"), [(None, 3.0, 3.0), (1.0, 3.0, 3.0), (5.0, 3.0, 5.0), (5.0, None, 5.0), (None, None, None)]
)
def test_what_was_given_up_takes_at_least_as_long_as_it_was_waited_for(average: float | None, waited: float | None, after: float | None):
    state = TargetState()
    if average is not None:
        state.first_token, state.measured = average, NOW - 5
    note_no_content(state, NOW, waited)
    assert (state.first_token, state.tried) == (after, NOW)
    assert is_unmeasured(state) is (average is None), "nothing came, so nothing was measured"


def test_the_first_content_replaces_what_was_only_waited_for():
    state = TargetState()
    note_no_content(state, NOW, 20.0)
    assert peak_average(state.first_token, 0.5, NOW - state.measured) == pytest.approx(0.5)


def test_clients_that_make_up_names_do_not_fill_the_memory():
    board = Board()
    busy, out = board.of(Target("p", "busy")), board.of(Target("p", "out"))
    busy.in_flight = 1
    out.closed_until = NOW
    for number in range(10_000):
        board.of(Target("p", f"made-up-{number}"))
    assert len(board.states()) <= 4096
    assert board.of(Target("p", "busy")) is busy and board.of(Target("p", "out")) is out


def made_up(board: Board, count: int, closed_until: float = 0.0) -> None:
    for number in range(count):
        board.of(Target("p", f"made-up-{number}")).closed_until = closed_until + number * 0.001 if closed_until else 0.0


def test_nor_do_names_that_are_made_up_while_the_provider_says_429():
    board = Board()
    made_up(board, 10_000, NOW)
    models = [model for _, model in board.states()]
    assert len(models) <= 4096
    assert "made-up-0" not in models and "made-up-9999" in models, "the oldest ones go"


def test_configured_targets_are_kept_whoever_else_is_asked_for():
    board = Board()
    board.keep([("p", "ours")])
    ours = board.of(Target("p", "ours"))
    made_up(board, 10_000, NOW)
    assert board.of(Target("p", "ours")) is ours
    board.keep([])
    made_up(board, 20_000, NOW)
    assert ("p", "ours") not in board.states()


def test_so_many_are_dropped_at_once_that_the_next_new_names_cost_no_look_at_all_others():
    board = Board()
    made_up(board, 4097, NOW)
    assert len(board.states()) < 3_200


def test_what_is_busy_is_never_dropped():
    board = Board()
    busy = []
    for number in range(5_000):
        busy.append(board.of(Target("p", f"busy-{number}")))
        busy[-1].in_flight = 1
    made_up(board, 10_000, NOW)
    assert all(board.of(Target("p", f"busy-{number}")) is state for number, state in enumerate(busy))
    assert len(board.states()) <= 5_000 + 4_096


@pytest.mark.parametrize(
    ("waited", "longest", "stream", "expected"),
    [
        (4.9, 0.0, True, False),
        (5.0, 0.0, True, True),
        (5.0, 50.0, True, True),
        # A whole answer has no content before its end: it may just be long.
        (5.0, 0.0, False, False),
        (59.9, 0.0, False, False),
        (60.0, 0.0, False, True),
        (4.9, 0.1, False, False),
        (5.0, 0.1, False, True),
        (19.9, 10.0, False, False),
        (20.0, 10.0, False, True),
        (59.9, 300.0, False, False),
        (60.0, 300.0, False, True),
    ],
)
def test_who_gave_up_tells_something_after_a_wait_that_was_long_for_its_sort(waited: float, longest: float, stream: bool, expected: bool):
    assert is_in_vain(waited, longest, stream=stream) is expected


def in_vain(state: TargetState, now: float = NOW, times: int = 5) -> None:
    for _ in range(times):
        note_in_vain(state, now, RULES)


def test_a_target_that_all_give_up_is_passed_over_for_a_while_and_not_ejected():
    state = TargetState()
    in_vain(state, times=4)
    assert is_available(state, NOW)
    in_vain(state, times=1)
    assert (is_available(state, NOW), seconds_out(state, NOW), is_ejected(state, NOW)) == (False, 30.0, False)
    in_vain(state, NOW + 10)
    assert seconds_out(state, NOW) == 30.0, "those began before"
    assert is_available(state, NOW + 30)
    in_vain(state, NOW + 40, times=1)
    assert seconds_out(state, NOW + 40) == 30.0, "its trial was in vain, too"


def test_content_from_whichever_attempt_ends_it_at_once():
    state = TargetState()
    in_vain(state)
    note_content(state)
    assert is_available(state, NOW)
    in_vain(state, times=4)
    assert is_available(state, NOW)


@pytest.mark.parametrize("before", [True, False])
def test_content_ends_neither_an_ejection_nor_a_rest_that_was_asked_for(before: bool):
    for error, seconds in ((FAILED, 30.0), (UpstreamError("rate_limit_exceeded", "m", retry_after=90.0), 90.0)):
        state = TargetState()
        if before:
            in_vain(state, NOW - 1)
        for _ in range(5):
            note_failure(state, error, NOW + 30 if before else NOW, RULES)
        if not before:
            in_vain(state)
        out = state.closed_until
        note_content(state)
        assert (state.closed_until, seconds_out(state, NOW)) == (out, seconds + 30 if before else seconds)
