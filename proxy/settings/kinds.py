"""Which sections a `kind` and a policy's name stand for: what ships with comporta, and what is installed beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import policies
import providers
from proxy.fields import Section


@dataclass(frozen=True)
class Kinds:
    """Section models by the `kind` of a provider and by the name of a policy."""

    providers: Mapping[str, type[Section]]
    policies: Mapping[str, type[Section]]


def installed() -> Kinds:
    """Everything that can be configured here, plug-ins included."""
    return Kinds(_sections(providers.kinds()), _sections(policies.kinds()))


def wanted(document: Any) -> Kinds:
    """What a configuration needs to be read: what ships with comporta, and all that is installed where the text names anything else."""
    kinds = [section.get("kind") if isinstance(section, dict) else None for section in _entries(document, "providers").values()]
    return Kinds(_sections(providers.kinds(map(str, kinds))), _sections(policies.kinds(_entries(document, "policies"))))


def built_in() -> Kinds:
    """What ships with comporta, whatever else is installed."""
    return Kinds(_sections(providers.BUILT_IN), _sections(policies.BUILT_IN))


def _entries(document: Any, section: str) -> Mapping[str, Any]:
    """The entries of a section that nobody has checked yet."""
    found = document.get(section) if isinstance(document, dict) else None
    return found if isinstance(found, dict) else {}


def _sections(classes: Mapping[str, Any]) -> dict[str, type[Section]]:
    return {name: configured.Settings for name, configured in classes.items()}
