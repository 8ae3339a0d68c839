"""Field types that every section of the configuration uses: durations, sizes, references to secrets."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

from proxy.core.units import format_duration, parse_duration, parse_size

_SCHEMES = ("env", "file", "keyring", "store")
_REFERENCE = re.compile(rf"({'|'.join(_SCHEMES)}):\S.*")


class Section(BaseModel):
    """A section of the configuration: immutable, and every key known."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != 0:
        raise ValueError(f'{value!r} has no unit; write it as text, such as "{value}s"')
    return 0.0


def _size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _reference(value: Any) -> Any:
    if isinstance(value, str) and _REFERENCE.fullmatch(value):
        return value
    # The value itself may be the secret: it is not repeated in the message.
    raise ValueError('a secret is written as a reference, never itself: put it into the environment and write "env:NAME", or "file:PATH"')


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["60s", "1m30s", "250ms"], "description": "a duration with its unit"}),
]
"""Seconds as a float, written `"60s"`."""

Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["32MiB", "64KiB"], "description": "a size with its unit, or bytes"}),
]
"""Bytes as an int, written `"32MiB"`."""

SecretRef = Annotated[
    str,
    BeforeValidator(_reference),
    WithJsonSchema(
        {"type": "string", "pattern": rf"^({'|'.join(_SCHEMES)}):\S.*", "description": "a reference to a secret: env:NAME or file:PATH"}
    ),
]
"""`env:NAME`, `file:PATH`, `keyring:NAME` or `store:NAME`; never the secret."""
