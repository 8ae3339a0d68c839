"""The page says what the results say, and nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from bench import history, performance
from tests.bench.results import PLACE, VERSIONS, overhead


@pytest.fixture
def kept(tmp_path):
    """A folder of results, and how to put more into it."""

    def keep(name, result):
        (tmp_path / name).write_text(json.dumps(result))
        return tmp_path

    return keep


def crowd(failed=()):
    return {
        "kind": "open_streams",
        "date": "2025-01-02",
        "machine": PLACE,
        "versions": VERSIONS,
        "parameters": {"wanted": 10_000, "streams": 9_968, "file_limit": 20_000},
        "streams": {"most_open": 9_968, "whole": 9_968, "recorded": 9_968},
        "chunks": {"sent": 99_680, "arrived": 99_680},
        "memory": {"idle_bytes": 60_000_000, "most_bytes": 300_000_000, "per_stream_bytes": 24_000},
        "warnings": {"failed": list(failed)},
    }


def test_the_committed_page_is_what_the_committed_results_give():
    assert performance.DOCUMENT.read_text(encoding="utf-8") == performance.document(), "run `make performance-doc`"


def test_without_results_it_says_so(tmp_path):
    assert performance.document(tmp_path).count("Not measured yet.") == 5


def test_of_each_kind_the_newest_is_shown(kept):
    kept("b.json", overhead((9.0,), (9.0,), date=datetime(2025, 1, 1, tzinfo=UTC)))
    directory = kept("a.json", overhead((3.0,), (1.3,), date=datetime(2025, 2, 1, tzinfo=UTC)))
    text = performance.document(directory)
    assert "3.00 x (3.00 - 3.00) | 3.5 x, met |" in text
    assert "1.30 x (1.30 - 1.30) | 1.4 x, met |" in text
    assert "9.00" not in text


def test_a_target_that_is_missed_is_said(kept):
    assert "3.5 x, **missed**" in performance.document(kept("a.json", overhead((4.0,), (1.3,))))


def test_doubtful_rounds_are_named(kept):
    assert "something else ran on the server's core: 2 slots" in performance.document(
        kept("a.json", overhead((4.0,), (1.3,), others_share=0.5))
    )


def test_fewer_streams_than_asked_for_are_explained_and_reckoned_up(kept):
    text = performance.document(kept("crowd.json", crowd()))
    assert "| 10,000 streams, under 400 MB | 300 MB, met |" in text
    assert "lets a process open 20,000 files" in text
    assert "Lost" not in text


def test_what_was_lost_is_not_hidden(kept):
    text = performance.document(kept("crowd.json", crowd(["3 streams: cut after 2 chunks"])))
    assert "**missed**" in text and "**Lost**: 3 streams: cut after 2 chunks" in text


def test_the_history_shows_before_and_after(tmp_path):
    history.add(tmp_path / "history", overhead(chunks=(2.0,), requests=(9.0,)), None, "Begin", "as it was")
    history.add(tmp_path / "history", overhead(chunks=(1.5,), requests=(8.0,)), None, "Flow", "no task | for a chunk")
    text = performance.document(tmp_path)
    assert "| Begin: as it was | `0123456789ab` | 2025-01-02 | 9.00 x | 2.00 x |" in text
    assert "| Flow: no task \\| for a chunk | `0123456789ab` | 2025-01-02 | 9.00 to 8.00 x | 2.00 to 1.50 x |" in text
