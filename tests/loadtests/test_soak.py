"""What grows is seen; what only moves is not."""

from __future__ import annotations

from random import Random

import pytest

from loadtests import soak
from loadtests.flatness import Margin, flatness, slope
from loadtests.ledger import Ledger
from loadtests.sample import Sample, connections_to
from loadtests.soak import MIB, Watched

IDLE = Sample(at=0, rss=50 * MIB, descriptors=10, threads=3, upstream=0, closing=0, active=0, requests=0, tasks=2)


def sample(at, **changed):
    fields = {"rss": 60 * MIB, "descriptors": 40, "threads": 3, "upstream": 8, "closing": 0, "active": 12, "requests": at, "tasks": 30}
    return Sample(at=at, **(fields | changed))


def watched(samples=(), **after):
    return Watched(IDLE, list(samples), sample(301, **({"active": 0, "descriptors": 18, "upstream": 8, "tasks": 4} | after)), [])


def faults(samples):
    return [fault for line in soak.lines(watched(samples), 60, 300) for fault in line.faults]


def test_a_line_with_single_peaks_has_the_slope_of_the_line():
    assert slope([(at, 2 * at + (500 if at % 20 == 3 else 0)) for at in range(100)]) == pytest.approx(2, abs=0.2)
    assert slope([(0, 1), (1, 100)]) == 0


def test_noise_is_flat():
    random = Random(1)
    assert not faults([sample(at, rss=60 * MIB + random.randint(-MIB, MIB), descriptors=40 + random.randint(-9, 9)) for at in range(300)])


def test_a_leak_of_a_hundred_bytes_a_request_is_seen():
    found = faults([sample(at, rss=60 * MIB + at * 150 * 100) for at in range(300)])
    assert len(found) == 1 and found[0].startswith("rss grew by")


def test_a_leak_of_a_descriptor_every_twenty_seconds_is_seen():
    assert faults([sample(at, descriptors=40 + at // 20) for at in range(300)])[0].startswith("descriptors grew by 1")


def test_growth_before_warm_up_is_none():
    assert not faults([sample(at, rss=min(at, 60) * MIB) for at in range(300)])


def test_a_task_left_behind_every_ten_seconds_is_seen():
    assert faults([sample(at, tasks=30 + at // 10) for at in range(300)])[0].startswith("tasks grew by 2")


def test_a_peak_above_the_ceiling_is_seen():
    assert "above its median" in faults([sample(at, rss=(90 if at == 200 else 60) * MIB) for at in range(300)])[0]


def test_a_short_time_is_judged_by_what_can_be_told_from_noise():
    points = [(at, 5.0 + at / 10) for at in range(12)]
    assert not flatness("x", points, Margin(per_minute=1, least=2, above=10)).faults
    assert flatness("x", points, Margin(per_minute=1, least=1, above=10)).faults


def test_all_is_given_back():
    assert soak.check_end(watched()) == []


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ({"active": 1}, "llm_active_requests is 1"),
        ({"closing": 2}, "2 connections that the upstream has closed"),
        ({"upstream": 17, "descriptors": 27}, "17 upstream connections"),
        ({"descriptors": 21}, "21 file descriptors are open"),
        ({"tasks": 15}, "15 tasks have not ended; there were 2 before"),
    ],
)
def test_what_is_not_given_back_is_told(after, message):
    assert message in soak.check_end(watched(**after))[0]


def test_a_soak_in_which_nothing_was_tried_again_is_told():
    assert soak.check_help(sample(301, retries=4, switches=2)) == []
    assert soak.check_help(sample(301, retries=4)) == ["there were no switches"]


def test_accounts():
    assert soak.check_ledger(Ledger(requests=2, records=2), 2) == []
    assert "llm_requests_total is 3" in soak.check_ledger(Ledger(requests=2, records=2), 3)[0]
    assert "lost" in soak.check_ledger(Ledger(missing=["a"]), 0)[0]


def test_samples_that_are_missing_are_told():
    assert soak.check_samples(watched([sample(at) for at in range(290)]), 300) == []
    assert soak.check_samples(watched([sample(at) for at in range(100)]), 300) == ["only 100 samples in 300 s"]


def test_a_gateway_that_does_not_tell_its_tasks_is_told():
    assert soak.check_samples(watched([sample(at) for at in range(290)], tasks=None), 300) == ["the gateway has no metric comporta_tasks"]


def test_an_error_in_the_log_is_told(tmp_path):
    log = tmp_path / "log"
    log.write_text('{"event":"ready","level":"info"}\n')
    assert soak.check_log(log) == []
    log.write_text('{"event":"unforeseen","level":"error"}\n')
    assert "logged 1 errors" in soak.check_log(log)[0]


def test_connections_are_counted_by_their_far_end_and_state():
    head = "  sl  local_address rem_address   st tx_queue\n"
    rows = ["0: 0100007F:1F90 0100007F:2328 01 0", "1: 0100007F:2328 0100007F:1F90 01 0", "2: 0100007F:1F91 0100007F:2328 08 0"]
    assert connections_to(head + "\n".join(rows), 9000, "01") == 1
    assert connections_to(head + "\n".join(rows), 9000, "08") == 1


def test_the_picture_is_a_document_with_a_line_for_each_figure():
    text = soak.picture([sample(at) for at in range(10)], 3)
    assert text.startswith("<svg ") and text.endswith("</svg>\n")
    assert text.count("<polyline ") == 5
