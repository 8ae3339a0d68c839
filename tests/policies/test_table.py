"""The built-in policies by name."""

from __future__ import annotations

import pytest

import policies
import providers
from policies import BUILT_IN, kinds
from proxy.fields import Section
from proxy.settings.kinds import Kinds, installed, wanted


def test_every_built_in_policy_says_what_can_be_set_of_it():
    assert set(kinds()) >= set(BUILT_IN)
    for kind in BUILT_IN.values():
        assert issubclass(kind.Settings, Section)
        for name, field in kind.Settings.model_fields.items():
            assert field.description, f"{kind.__name__}.{name}"


@pytest.mark.parametrize("table", [policies, providers])
def test_where_only_what_is_built_in_is_wanted_there_is_nothing_else(table):
    everything, built_in = table.kinds(), table.BUILT_IN
    assert table.kinds([]) == table.kinds(built_in) == built_in
    assert table.kinds([*built_in, "somebody's"]) == table.kinds(None) == everything


@pytest.mark.parametrize(
    "document",
    [
        {"providers": {"a": {"kind": "somebody's"}}, "policies": {"hers": {}}},
        {"providers": {"a": {}}, "policies": {"hers": None}},
        {"providers": {"a": "no mapping"}, "policies": {"hers": False}},
        {"providers": {"a": {"kind": ["no name"]}}, "policies": {"hers": {}}},
    ],
)
def test_who_names_anything_else_or_nothing_is_told_of_all_that_there_is(document):
    assert wanted(document) == installed()


@pytest.mark.parametrize("document", [None, {}, {"providers": None, "policies": []}, {"providers": {"a": {"kind": "openai"}}}])
def test_a_plain_configuration_is_read_by_what_is_built_in(document):
    assert wanted(document) == Kinds(
        {name: kind.Settings for name, kind in providers.BUILT_IN.items()}, {name: kind.Settings for name, kind in BUILT_IN.items()}
    )
