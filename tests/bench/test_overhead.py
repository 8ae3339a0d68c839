"""The command line, what is started, what wrk says, and the shape of the result."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import overhead, report, servers, slots, wrk
from bench.payload import Pace
from bench.ratios import Sample
from bench.servers import Server
from proxy.settings.storage import is_there

_RESULT = (
    'RESULT {"requests":1000,"bytes":640000,"seconds":2.5,"connect":1,"read":2,"write":3,"status":4,"timeout":5,'
    '"p50_us":300.0,"p99_us":1250.0}'
)


def sample(number, measure, server, cpu_s, **changed):
    figures = dict.fromkeys(("p50_ms", "p99_ms", "first_p50_ms", "first_p99_ms", "total_p50_ms", "total_p99_ms"), 1.0 + number)
    fields: dict[str, Any] = {
        "count": 10_000,
        "failed": 0,
        "wall_s": 2.0,
        "upstream_cpu_s": 0.1,
        "others_share": 0.0,
        "figures": figures,
    } | changed
    return Sample(round=number, measure=measure, server=server, cpu_s=cpu_s, **fields)


@pytest.fixture
def run():
    samples = []
    for number in range(3):
        samples += [sample(number, "request_1k", "nginx", 0.1), sample(number, "request_1k", "comporta", 0.5 + number / 10)]
        samples += [sample(number, slots.LATENCY, server, None) for server in ("direct", "nginx", "comporta")]
        samples += [
            sample(number, slots.CHUNK, "direct", None),
            sample(number, slots.CHUNK, "nginx", 0.1),
            sample(number, slots.CHUNK, "comporta", 0.2),
        ]
    parameters = slots.Parameters(3, 2, 32, (1,), 64, Pace(256, 8), False)
    memory = {name: {"idle_bytes": 1 << 20, "per_1000_streams_bytes": 1 << 24} for name in ("nginx", "comporta")}
    place = {"processor": "a processor", "kernel": "6.1"}
    return report.Run(place, {"python": "CPython 3.11", "nginx": "nginx 1.22"}, (0, 1), parameters, samples, [0.3, 0.2, 0.4], memory)


def document(run):
    return report.document(run, datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC))


def test_a_result_survives_json_and_keeps_every_figure(run):
    result = document(run)
    assert json.loads(json.dumps(result))["summary"] == result["summary"]
    assert result.keys() == {
        "schema",
        "kind",
        "date",
        "machine",
        "versions",
        "parameters",
        "summary",
        "startup_s",
        "memory",
        "warnings",
        "samples",
    }
    assert (result["schema"], result["kind"], result["date"]) == (1, "overhead", "2025-01-02T03:04:05+00:00")
    assert len(result["samples"]) == len(run.samples)
    assert result["samples"][0].keys() >= {"round", "measure", "server", "count", "failed", "wall_s", "cpu_s", "cost_us", "figures"}
    assert result["parameters"]["pace"] == {"chunks": 256, "interval_ms": 8}
    assert (result["parameters"]["load_core"], result["parameters"]["server_core"]) == (0, 1)
    assert result["startup_s"]["median"] == 0.3


def test_the_summary_is_of_paired_rounds(run):
    cost = document(run)["summary"]["cost"]
    assert cost.keys() == {"request_1k", "chunk"}
    assert cost["request_1k"]["ratios"] == pytest.approx([5.0, 6.0, 7.0])
    assert cost["request_1k"]["ratio"] == pytest.approx({"median": 6.0, "low": 5.0, "high": 7.0})
    assert cost["chunk"]["nginx"] == pytest.approx({"median": 10.0, "low": 10.0, "high": 10.0})


def test_the_table_is_made_of_the_stored_result(run):
    text = report.table(json.loads(json.dumps(document(run))))
    assert "6.00 x (5.00 - 7.00)" in text
    assert "per request, 1 KiB" in text and "per streamed chunk" in text and "first token, p50" in text
    assert "16.0 MiB" in text and "0.300 s" in text
    assert "WRONG" not in text and "note:" not in text


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("failed", {"failed": 1}),
        ("failed", {"count": 0}),
        ("saturated", {"wall_s": 0.2}),
        ("coalesced", {"figures": {"reads_per_chunk": 0.7}}),
        ("disturbed", {"others_share": 0.3}),
    ],
)
def test_a_doubtful_figure_is_named(kind, changed):
    found = report.warnings([sample(1, slots.CHUNK, "comporta", 0.2, **changed)])
    assert [name for name, lines in found.items() if lines] == [kind]
    assert found[kind][0].startswith("chunk comporta round 2")


def test_a_run_that_measured_nothing_still_has_a_table(run):
    bare = report.Run(run.machine, run.versions, run.cores, run.parameters, [], [], None)
    assert "exec to ready" not in report.table(document(bare))


def test_wrk_counts_only_what_was_answered_without_error():
    load = wrk.parse_output(f"Running 2s test\n  Latency 1ms\n{_RESULT}\n")
    assert (load.answered, load.failed, load.seconds) == (996, 15, 2.5)
    assert (load.p50_ms, load.p99_ms) == pytest.approx((0.3, 1.25))


def test_wrk_without_a_result_is_an_error():
    with pytest.raises(ValueError, match="unable to connect"):
        wrk.parse_output("unable to connect to 127.0.0.1:1")


def test_the_order_turns_from_round_to_round():
    pair = (Server("a", 1, 1, 1), Server("b", 2, 2, 2))
    assert [[server.name for server in slots.order(pair, number)] for number in range(3)] == [["a", "b"], ["b", "a"], ["a", "b"]]


def test_the_gateway_gets_one_provider_and_defaults():
    config = yaml.safe_load(servers.gateway_config(1234, None))
    assert config["providers"] == {"upstream": {"kind": "openai", "base_url": "http://127.0.0.1:1234/v1"}}
    assert yaml.safe_load(servers.gateway_config(1234, 2000))["providers"]["upstream"]["pool"] == {"connections": 2000}


def test_the_environment_configures_nothing():
    environment = {
        "PATH": "/bin",
        "OPENAI_API_KEY": "sk",
        "OPENAI_BASE_URL": "http://a",
        "COMPORTA_SERVER__LISTEN": "x",
        "OLLAMA_HOST": "y",
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_DATA_HOME": "/home/of/who/measures",
    }
    clean = servers.clean_environment(environment)
    assert not is_there(clean)
    assert clean == {"PATH": "/bin", "XDG_DATA_HOME": os.devnull}


def test_a_missing_tool_is_named_with_what_to_install():
    assert "`apt-get install nginx-light`" in str(servers.ToolMissing("nginx", "nginx-light"))


def test_a_quick_run_is_short_and_not_kept():
    options = overhead.parse(["--quick", "--cores", "0,1"])
    assert options.output is None
    assert (options.parameters.rounds, options.parameters.seconds, options.parameters.bodies_kib) == (2, 1, (1,))


def test_what_is_given_goes_before_what_quick_means():
    options = overhead.parse(["--quick", "--rounds", "4", "--bodies", "2,64", "--output", "kept.json", "--cores", "3,2"])
    assert (options.parameters.rounds, options.parameters.bodies_kib, options.output, options.cores) == (
        4,
        (2, 64),
        Path("kept.json"),
        (3, 2),
    )


def test_a_full_run_is_kept_among_the_results():
    options = overhead.parse(["--cores", "0,1"])
    assert options.output is not None
    assert options.output.parent == overhead.RESULTS
    assert options.output.name.endswith("-overhead.json")
    assert options.parameters.bodies_kib == (1, 32)


def test_open_streams_are_a_result_of_their_own():
    options = overhead.parse(["--open-streams", "500", "--cores", "0,1"])
    assert options.open_streams == 500
    assert options.output is not None and options.output.name.endswith("-open-streams.json")


@pytest.mark.parametrize("cores", ["0", "1,1", "0,1,2"])
def test_two_different_cores_are_asked_for(cores, capsys):
    with pytest.raises(SystemExit):
        overhead.parse(["--cores", cores])
    assert "two different cores" in capsys.readouterr().err


def test_a_stream_without_text_is_refused(capsys):
    with pytest.raises(SystemExit):
        overhead.parse(["--chunks", "1", "--cores", "0,1"])
    assert "at least two chunks" in capsys.readouterr().err
