"""Rounds are paired, and summarised by median, least and greatest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import ratios
from bench.ratios import Sample, Spread


def sample(number, server, cpu_s, *, count=1_000_000, measure="chunk", **figures):
    return Sample(
        round=number,
        measure=measure,
        server=server,
        count=count,
        failed=0,
        wall_s=2.0,
        cpu_s=cpu_s,
        upstream_cpu_s=0.1,
        others_share=0.0,
        figures=figures,
    )


def test_cost_is_microseconds_per_right_answer():
    assert sample(0, "nginx", 0.5, count=25_000).cost_us == pytest.approx(20.0)


@pytest.mark.parametrize("empty", [sample(0, "direct", None), sample(0, "nginx", 1.0, count=0)])
def test_nothing_measured_costs_nothing_known(empty):
    assert empty.cost_us is None


def test_ratios_pair_servers_of_the_same_round():
    rounds = [sample(0, "nginx", 1.0), sample(0, "comporta", 3.0), sample(1, "comporta", 8.0), sample(1, "nginx", 2.0)]
    assert ratios.paired_ratios(rounds, "chunk", "comporta", "nginx") == pytest.approx([3.0, 4.0])


def test_a_round_without_its_other_half_gives_no_ratio():
    rounds = [
        sample(0, "comporta", 3.0),
        sample(1, "nginx", 2.0),
        sample(1, "comporta", 5.0),
        sample(2, "nginx", 0.0),
        sample(2, "comporta", 1.0),
    ]
    assert ratios.paired_ratios(rounds, "chunk", "comporta", "nginx") == pytest.approx([2.5])


def test_slots_do_not_mix():
    rounds = [sample(0, "nginx", 1.0), sample(0, "comporta", 3.0), sample(0, "comporta", 9.0, measure="request_1k")]
    assert ratios.paired_ratios(rounds, "chunk", "comporta", "nginx") == pytest.approx([3.0])
    assert ratios.paired_ratios(rounds, "request_1k", "comporta", "nginx") == []
    assert ratios.costs(rounds, "request_1k", "comporta") == pytest.approx([9.0])


def test_added_latency_is_the_difference_within_a_round():
    rounds = [
        sample(0, "direct", None, first=1.0),
        sample(0, "comporta", 1.0, first=1.5),
        sample(1, "direct", None),
        sample(1, "comporta", 1.0, first=9.0),
    ]
    assert ratios.paired_differences(rounds, "chunk", "first", "comporta", "direct") == pytest.approx([0.5])


def test_a_spread_is_median_least_and_greatest():
    assert ratios.spread([9.0, 1.0, 2.0]) == Spread(2.0, 1.0, 9.0)
    assert ratios.spread([1.0, 2.0]) == Spread(1.5, 1.0, 2.0)
    assert ratios.spread([]) is None


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.501, 51), (0.99, 99), (1.0, 100)])
def test_percentiles_are_nearest_rank(share, expected):
    assert ratios.percentile(list(range(100, 0, -1)), share) == expected


def test_a_percentile_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no values"):
        ratios.percentile([], 0.5)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values_and_covers_its_share(values, share):
    found = ratios.percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
