"""Real runs: a gateway, locust, and the verdict as the exit status."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests import record
from loadtests.run import locust_figures

ROOT = Path(__file__).resolve().parents[2]
needs_locust = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None, reason="locust is not installed: it comes with the group load, `make test` installs it"
)


def load(*arguments, out):
    command = [sys.executable, "-m", "loadtests", *arguments, "--out", str(out)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)


@needs_locust
@pytest.mark.slow
def test_a_short_load_of_chat_and_streams_keeps_the_objectives(tmp_path):
    done = load("chat", "streaming", "--seconds", "5", "--users", "6", out=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "summary.json").read_text())
    records = record.read(tmp_path)
    assert document["missed"] == []
    assert document["operations"]["all"]["requests"] == len(records) > 50
    assert document["ledger"]["pairs"] == {"ok = ok": len(records)}
    assert document["ledger"]["lost"] == 0
    streams = [found for found in records if found.operation == "streaming"]
    # 20 ms to the first delta, 39 times 2 ms after it: the head, which comes at once, is not what is timed.
    assert all(found.tokens == 40 and (found.first_token or 0) - found.sent > 0.015 for found in streams)
    assert all(len(found.gaps_ms) == 39 for found in streams)
    figures = document["operations"]["streaming"]
    assert figures["first_token_ms"]["p50"] < figures["latency_ms"]["p50"] - 50
    told = document["locust"]["streaming"]
    assert told["requests"] == len(streams) and told["failures"] == 0
    assert told["p50_ms"] == pytest.approx(figures["latency_ms"]["p50"], rel=0.1)


@needs_locust
@pytest.mark.slow
def test_an_objective_that_cannot_be_kept_ends_with_status_1_and_its_name(tmp_path):
    limits = tmp_path / "slo.yaml"
    limits.write_text("default: {error_share: 0}\nstreaming: {first_token_p95_ms: 0.5}\n")
    done = load("streaming", "--seconds", "1", "--users", "2", "--slo", str(limits), out=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "MISSED streaming: first_token_p95_ms is" in done.stdout
    assert done.stdout.count("MISSED") == 1


@needs_locust
@pytest.mark.slow
def test_a_master_and_two_workers_offer_an_open_loop_once(tmp_path):
    done = load("mixed", "--seconds", "3", "--rate", "40", "--workers", "2", out=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted(tmp_path.glob("records-*.jsonl"))
    assert len(files) == 2 and all(path.stat().st_size for path in files)
    document = json.loads((tmp_path / "summary.json").read_text())
    assert document["loop"] == "open"
    assert document["operations"]["all"]["requests"] == pytest.approx(120, abs=45)
    assert document["ledger"]["lost"] == 0


@needs_locust
@pytest.mark.slow
def test_faults_end_as_they_were_meant_to_and_are_all_on_record(tmp_path):
    done = load("faults", "--seconds", "4", "--users", "8", out=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "summary.json").read_text())
    outcomes = document["operations"]["all"]["outcomes"]
    assert {"cancelled", "refused", "ok"} <= set(outcomes)
    assert document["ledger"]["differing"] == [] and document["ledger"]["lost"] == 0


@needs_locust
@pytest.mark.slow
def test_nothing_that_answers_is_not_measured(tmp_path):
    done = load("chat", "--seconds", "1", "--users", "1", "--url", "http://127.0.0.1:1", out=tmp_path)
    assert done.returncode == 1
    assert "error_share is 1" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["chatter"], "no scenario chatter"), (["--seconds", "0"], "seconds are more than 0"), (["--slo", "absent.yaml"], "absent.yaml")],
)
def test_what_cannot_be_run_ends_with_status_2(arguments, message, tmp_path):
    done = load(*arguments, out=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


def test_locusts_own_figures_are_read_from_its_histogram(tmp_path):
    path = tmp_path / "locust.json"
    times = {"100": 98, "250": 1, "1100": 1}
    path.write_text(json.dumps([{"name": "chat", "num_requests": 100, "num_failures": 1, "response_times": times}]))
    assert locust_figures(path)["chat"] == {"requests": 100, "failures": 1, "p50_ms": 100, "p95_ms": 100, "p99_ms": 250}
    assert locust_figures(tmp_path / "absent.json") == {}
