"""The server runs on connections that lead nowhere, its seams are where the harness looks for them, and a table comes out."""

from __future__ import annotations

import json

import pytest

from bench import layer_report, layers, seams, timeline
from bench.timeline import SeamMissing, Timeline
from proxy import pipeline

_SMALL = layers.Parameters(rounds=1, requests=20, streams=3, long_streams=1, chunks=12, warm=3)


@pytest.fixture(scope="module")
def result():
    return layers.measure(_SMALL, sockets=False)


def named(result, what):
    return {row["layer"]: row["us"] for row in result["driven"][what]["layers"]}


def test_every_layer_of_a_request_has_a_name_and_a_time(result):
    found = named(result, layer_report.REQUEST)
    assert {"encode", "decode", "transport: send", "transport: receive", "read and parse body", "record", "write"} <= found.keys()
    assert timeline.HARNESS not in found
    assert found["decode"] > 0
    assert result["driven"][layer_report.REQUEST]["in_process_us"] > 0


def test_a_chunk_goes_by_in_one_step(result):
    assert {"chunk: receive, know and write", "after the write"} <= named(result, layer_report.CHUNK).keys()


def test_the_result_is_data_and_the_table_is_made_of_it(result):
    text = layer_report.table(json.loads(json.dumps(result)))
    assert "encode" in text and "= in the process, timed without marks" in text
    assert "real process" not in text  # it was not measured over sockets


def test_what_the_process_spends_beyond_the_layers_is_system_and_loop():
    rounds = layer_report.Found(log_seconds=2e-6)
    rounds.add(layer_report.REQUEST, [("begin", 0), ("idle", 30_000)])
    marked = layer_report.Found()
    marked.add(layer_report.REQUEST, [("begin", 0), ("client.in", 500), ("client.out", 12_500), ("plane.enter", 32_500)])
    found = layer_report.driven(layer_report.REQUEST, [rounds], [marked], {"median": 50.0, "low": 49.0, "high": 51.0, "kernel": 12.5})
    assert found["in_process_us"] == pytest.approx(29.5)
    assert found["mark_us"] == pytest.approx((32.0 - 29.5) / 2)
    assert [row["us"] for row in found["layers"]] == pytest.approx([12.0 - 1.25, 20.0 - 1.25])
    assert found["system_us"] == pytest.approx(50.0 - 29.5 - 2.0)
    cells = {row[0]: row[1] for row in layer_report.rows(found)}
    assert cells["the kernel: sockets, waiting for them"] == "12.50"
    assert cells["the loop, traffic from many at once"] == "6.00"


def test_a_server_without_one_of_the_seams_is_refused():
    with (
        timeline.replaced(pipeline, "compose", lambda _function: lambda _policies, innermost: innermost),
        pytest.raises(SeamMissing, match=r"compose is not there"),
        seams.marked(Timeline()),
    ):
        pass
