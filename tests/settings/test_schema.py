"""The JSON Schema, and the examples that ship."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.fields import Section, model_at
from proxy.settings import load
from proxy.settings.kinds import built_in
from proxy.settings.model import ServerSettings, Settings
from proxy.settings.models import ModelEntry, ModelTargets
from proxy.settings.schema import schema
from tests.settings.conftest import nobody_listens

CONFIG = Path(__file__).resolve().parents[2] / "config"
EXAMPLES = sorted((CONFIG / "examples").glob("*.yaml"))


def _sections() -> Iterator[type[Section]]:
    """Every section that can be written, with those inside it."""
    pending: list[type[Section]] = [
        Settings,
        ServerSettings,
        ModelEntry,
        ModelTargets,
        *built_in().providers.values(),
        *built_in().policies.values(),
    ]
    seen: set[type[Section]] = set()
    while pending:
        section = pending.pop()
        if section not in seen:
            seen.add(section)
            yield section
            inner = (model_at(section, (name,)) for name in section.model_fields)
            pending += [found for found in inner if found is not None and issubclass(found, Section)]


def test_the_committed_schema_is_the_generated_one():
    committed = (CONFIG / "comporta.schema.json").read_text(encoding="utf-8")
    assert committed == json.dumps(schema(built_in()), indent=2, ensure_ascii=False) + "\n", "run: comporta config schema"


def test_every_setting_is_described():
    missing = [
        f"{section.__name__}.{name}" for section in _sections() for name, found in section.model_fields.items() if not found.description
    ]
    assert not missing


def test_every_section_is_described():
    assert not [section.__name__ for section in _sections() if not section.__doc__]


def test_the_schema_tells_providers_apart_by_their_kind():
    document = schema(built_in())
    references = document["properties"]["providers"]["additionalProperties"]["oneOf"]
    kinds = {}
    for reference in references:
        definition = document["$defs"][reference["$ref"].rpartition("/")[2]]
        assert "kind" in definition["required"]
        assert definition["additionalProperties"] is False
        kinds[definition["properties"]["kind"]["const"]] = definition
    assert kinds.keys() == built_in().providers.keys()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_can_be_used_and_raises_no_doubt(path: Path):
    assert load(path, {}, {}, probe=nobody_listens).warnings == []


def test_every_example_is_in_the_table():
    table = (CONFIG / "README.md").read_text(encoding="utf-8")
    assert all(f"`examples/{path.name}`" in table for path in EXAMPLES)
