"""Whatever is written, it is either settings or a list of problems, and a key is repeated in neither message nor outcome."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.settings import SettingsError, dump, load, restore
from proxy.settings.kinds import built_in
from proxy.settings.model import SECTIONS, ServerSettings
from tests.settings.conftest import nobody_listens

SECRET = "sk-proj-Abcdefghijklmnopqrstuvwxyz0123456789"

_FIELDS = sorted(
    {*SECTIONS, *ServerSettings.model_fields, *(name for section in built_in().providers.values() for name in section.model_fields)}
)
_KEYS = st.sampled_from([*_FIELDS, "targets", "provider", "model", "record", "a", "b/c", "", "é", "x\ny"])
_SCALARS = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        -1,
        3.5,
        float("inf"),
        10**30,
        "9" * 400,
        "",
        "a",
        "sim",
        "openai",
        "10s",
        "1MiB",
        "env:A",
        "file:/a",
        "http://[::1",
        "http://a:99999/v1",
        "a/b",
        SECRET,
    ]
)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=8
)
_SECTIONS = {
    "server": st.dictionaries(st.sampled_from(sorted(ServerSettings.model_fields)), _VALUES, max_size=3),
    "providers": st.dictionaries(
        st.sampled_from(["a", "sim", "openai"]),
        st.builds(
            lambda kind, rest: {"kind": kind, **rest}, st.sampled_from(["openai", "sim", "x"]), st.dictionaries(_KEYS, _VALUES, max_size=4)
        ),
        max_size=2,
    ),
    "models": st.dictionaries(_KEYS, _VALUES, max_size=3),
    "policies": st.dictionaries(st.sampled_from(["record", "timeout", "x"]), _VALUES, max_size=2),
    "default_provider": _VALUES,
    "sim": _VALUES,
}


@given(st.fixed_dictionaries({}, optional={name: strategy | _VALUES for name, strategy in _SECTIONS.items()}))
@settings(max_examples=300)
def test_anything_is_settings_or_problems_and_repeats_no_key(written: dict[str, Any]):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.yaml"
        path.write_text(json.dumps(written, indent=1), encoding="utf-8")
        try:
            found = load(path, {}, {}, probe=nobody_listens)
        except SettingsError as error:
            assert error.problems
            assert all(problem.line for problem in error.problems)
            said = str(error)
        else:
            assert restore(json.loads(json.dumps(dump(found.settings), allow_nan=False))) == found.settings
            said = repr(found.values())
        assert SECRET not in said
