"""The soak's upstream does everything that an upstream can do wrong, and answers well in between."""

from __future__ import annotations

from itertools import islice

from loadtests import upstream


def test_nearly_half_of_the_wild_answers_are_good_and_each_fault_comes():
    seen = list(islice(upstream.wild(), 20))
    faults = {upstream.failing, upstream.breaking, upstream.truncating, upstream.garbled, upstream.mute, upstream.silent}
    assert set(seen) == faults | {upstream.well}
    assert seen.count(upstream.well) == 9
    assert seen.count(upstream.silent) == 1
