"""The JSON Schema of the file, for editors: the sections' own schemas, with each provider's chosen by its `kind`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from proxy.fields import Section
from proxy.settings.health import HealthSettings
from proxy.settings.kinds import Kinds
from proxy.settings.llm import LlmSettings
from proxy.settings.model import ServerSettings, Settings
from proxy.settings.models import ModelEntry, ModelTargets
from proxy.settings.storage import StateSettings, StorageSettings

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(known: Kinds) -> dict[str, Any]:
    """JSON Schema (2020-12) of a configuration file in which `known` can be configured."""
    sections: list[type[Section]] = [
        ServerSettings,
        LlmSettings,
        ModelEntry,
        ModelTargets,
        *known.providers.values(),
        *known.policies.values(),
    ]
    sections += [StorageSettings, StateSettings, HealthSettings]
    references, document = models_json_schema([(section, "validation") for section in sections])
    definitions = document["$defs"]
    for kind, section in known.providers.items():
        # `kind` has a default in the class, but the file must say it: it chooses the class.
        definition = definitions[_name(references[section, "validation"])]
        definition["required"] = sorted({"kind", *definition.get("required", ())})
        definition["properties"]["kind"].setdefault("const", kind)
    refs = {section: references[section, "validation"] for section in sections}
    described = {name: {"description": found.description} for name, found in Settings.model_fields.items()}
    return {
        "$schema": _DIALECT,
        "title": "comporta's configuration",
        "description": (Settings.__doc__ or "").strip(),
        "type": "object",
        "additionalProperties": False,
        "properties": {name: described[name] | shape for name, shape in _shapes(known, refs).items()},
        "$defs": definitions,
    }


def _shapes(known: Kinds, refs: Mapping[type[Section], Any]) -> dict[str, dict[str, Any]]:
    """What stands under each key at the top, as it is written, which is wider than what `Settings` holds in the end."""
    entry = {"anyOf": [{"type": "string", "description": "a provider's name"}, refs[ModelEntry], refs[ModelTargets]]}
    provider = {"oneOf": [refs[section] for section in known.providers.values()]}
    policies = {name: {"anyOf": [refs[section], {"const": False}]} for name, section in known.policies.items()}
    return {
        "server": refs[ServerSettings],
        "sim": {"type": "boolean", "default": True},
        "default_provider": {"type": "string"},
        "providers": {"type": "object", "propertyNames": {"pattern": "^[a-z0-9._-]+$"}, "additionalProperties": provider},
        "models": {"type": "object", "additionalProperties": entry},
        "health": refs[HealthSettings],
        "llm": refs[LlmSettings],
        "storage": refs[StorageSettings],
        "state": refs[StateSettings],
        "policies": {"type": "object", "additionalProperties": False, "properties": policies},
    }


def _name(reference: Any) -> str:
    return str(reference["$ref"]).rpartition("/")[2]
