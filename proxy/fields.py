"""Field types that every section of the configuration uses: durations, sizes, references to secrets."""

from __future__ import annotations

import inspect
import re
import types
import typing
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticKnownError

from proxy.core.units import format_duration, parse_duration, parse_size

_SCHEMES = ("env", "file", "keyring", "store")
_REFERENCE = re.compile(rf"({'|'.join(_SCHEMES)}):\S.*")

#: Beyond it whole numbers are not read alike by everybody (RFC 8259, section 6).
_LARGEST = 2**53


class Section(BaseModel):
    """A section of the configuration: immutable, and every key known."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, protected_namespaces=())

    @field_validator("*", mode="wrap")
    @classmethod
    def _counted(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        """A number is no flag, as pydantic would have it, and one that JSON can carry to a worker."""
        found = read(value)
        if isinstance(found, (int, float)) and not isinstance(found, bool):
            if isinstance(value, bool):
                raise PydanticKnownError("int_type" if isinstance(found, int) else "float_type")
            if not -_LARGEST <= found <= _LARGEST:
                raise ValueError("is too large")
        return found


def model_at(model: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel] | None:
    """The model that `path` leads to inside `model`, by fields, keys of mappings and indexes of lists; None where there is none."""
    annotation: Any = model
    for part in path:
        annotation = _bare(annotation)
        if _is_model(annotation):
            found = annotation.model_fields.get(part)
            annotation = None if found is None else found.annotation
        else:
            # A key or an index: on to the items, of which a mapping names the type last, and a tuple before its dots.
            annotation = next((inner for inner in reversed(typing.get_args(annotation)) if inner is not ...), None)
    return _model(annotation)


def _bare(annotation: Any) -> Any:
    """`X` of `X | None` and of `Annotated[X, ...]`."""
    while typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        annotation = next((inner for inner in typing.get_args(annotation) if _model(inner) is not None), None)
    return annotation


def _model(annotation: Any) -> type[BaseModel] | None:
    """The first model inside `X | None`, `Annotated[X, ...]`, `list[X]`, `dict[str, X]`."""
    if _is_model(annotation):
        found: type[BaseModel] = annotation
        return found
    return next((inner for part in typing.get_args(annotation) if (inner := _model(part)) is not None), None)


def _is_model(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, BaseModel)


def _duration(value: Any) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError('is no duration; write a number and a unit, such as "30s"')
    if value != 0:
        raise ValueError(f'{value} has no unit; write it as text, such as "{value}s"')
    return 0.0


def _size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _numeral(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


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

NUMERAL = BeforeValidator(_numeral)
"""Behind the bounds of an int or a float: `true` is no 1 there, as pydantic would have it."""

SecretRef = Annotated[
    str,
    BeforeValidator(_reference),
    WithJsonSchema(
        {"type": "string", "pattern": rf"^({'|'.join(_SCHEMES)}):\S.*", "description": "a reference to a secret: env:NAME or file:PATH"}
    ),
]
"""`env:NAME`, `file:PATH`, `keyring:NAME` or `store:NAME`; never the secret."""
