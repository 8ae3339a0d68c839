"""Two JSON Schemas made into one that says what both say, as `allOf` and `$ref` with siblings ask for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, product
from typing import Any, TypeAlias

Schema: TypeAlias = "dict[str, Any]"

#: Pairs of alternatives that are looked at; a client's schema must not be able to multiply them without end.
_MOST_PAIRS = 64


def both(one: Any, other: Any) -> Any:
    """A schema that says what both say."""
    if one is False or other is False:
        return False
    if not isinstance(one, dict) or not isinstance(other, dict):
        return one if isinstance(one, dict) else other
    merged = {**one, **other}
    for key in one.keys() & other.keys():
        if one[key] != other[key] and (join := _JOINS.get(key)) is not None:
            merged[key] = join(one[key], other[key])
    return merged


def _properties(one: Schema, other: Schema) -> Schema:
    merged = {**one, **other}
    merged.update({name: {"allOf": [one[name], other[name]]} for name in one.keys() & other.keys()})
    return merged


def _types(one: Any, other: Any) -> list[str]:
    first, second = ([kinds] if isinstance(kinds, str) else list(kinds) for kinds in (one, other))
    common = [kind for kind in first if kind in second]
    if "number" in first + second and "integer" in first + second and "integer" not in common:
        common.append("integer")
    return common


def _alternatives(one: Any, other: Any) -> list[Any]:
    return [both(first, second) for first, second in islice(product(one, other), _MOST_PAIRS)]


_JOINS: dict[str, Callable[[Any, Any], Any]] = {
    "properties": _properties,
    "required": lambda one, other: [*one, *(name for name in other if name not in one)],
    "type": _types,
    "enum": lambda one, other: [value for value in one if value in other],
    "items": both,
    "additionalProperties": both,
    "anyOf": _alternatives,
    "oneOf": _alternatives,
    "allOf": lambda one, other: [*one, *other],
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}
