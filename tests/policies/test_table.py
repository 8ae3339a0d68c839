"""The built-in policies by name."""

from __future__ import annotations

from policies import BUILT_IN, kinds
from proxy.fields import Section


def test_every_built_in_policy_says_what_can_be_set_of_it():
    assert set(kinds()) >= set(BUILT_IN)
    for kind in BUILT_IN.values():
        assert issubclass(kind.Settings, Section)
        for name, field in kind.Settings.model_fields.items():
            assert field.description, f"{kind.__name__}.{name}"
