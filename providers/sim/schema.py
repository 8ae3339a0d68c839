"""An instance of a JSON Schema: what a model with structured outputs would send.

Drafts 7 to 2020-12 as far as language models are given them: types, enum, const, nested objects and arrays, `$ref`, allOf, anyOf, oneOf,
bounds, patterns and formats. `not`, `if` and `propertyNames` are not looked at. https://json-schema.org/draft/2020-12/json-schema-validation
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any
from urllib.parse import unquote

from providers.sim.conjunction import Schema, both
from providers.sim.dice import Dice
from providers.sim.pattern import Unsupported, matching
from providers.sim.refusal import bad_schema
from proxy.core.errors import ClientError

_DEEPEST = 48
_SHALLOW = 3
_MOST_VALUES = 5_000
_LONGEST_TEXT = 10_000
_LETTERS_PER_VALUE = 16
_VALUES_PER_PATTERN = 100
_DISTINCT_TRIES = 64
_GREATEST = 2**63 - 1

_KIND_OF_KEYWORD = {
    "properties": "object",
    "required": "object",
    "additionalProperties": "object",
    "minProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "minItems": "array",
    "contains": "array",
    "minimum": "number",
    "maximum": "number",
    "exclusiveMinimum": "number",
    "exclusiveMaximum": "number",
    "multipleOf": "number",
}

_FORMATS: dict[str, Callable[[int], str]] = {
    "date": lambda k: f"20{k % 30:02}-{k % 12 + 1:02}-{k % 28 + 1:02}",
    "date-time": lambda k: f"20{k % 30:02}-{k % 12 + 1:02}-{k % 28 + 1:02}T{k % 24:02}:{k % 60:02}:00Z",
    "time": lambda k: f"{k % 24:02}:{k % 60:02}:00Z",
    "duration": lambda k: f"PT{k % 59 + 1}M",
    "email": lambda k: f"sim{k % 10_000}@example.com",
    "idn-email": lambda k: f"sim{k % 10_000}@example.com",
    "hostname": lambda k: f"sim{k % 10_000}.example.com",
    "idn-hostname": lambda k: f"sim{k % 10_000}.example.com",
    "ipv4": lambda k: f"192.0.2.{k % 254 + 1}",
    "ipv6": lambda k: f"2001:db8::{k % 65_535 + 1:x}",
    "uri": lambda k: f"https://example.com/{k % 10_000}",
    "iri": lambda k: f"https://example.com/{k % 10_000}",
    "uri-reference": lambda k: f"/{k % 10_000}",
    "uuid": lambda k: f"00000000-0000-4000-8000-{k % 16**12:012x}",
    "json-pointer": lambda k: f"/{k % 10_000}",
    "regex": lambda k: f"^{k % 10_000}$",
}
"""https://json-schema.org/draft/2020-12/json-schema-validation#section-7.3; addresses from the ranges kept for documentation."""


class Unsatisfiable(Exception):
    """No instance was found: there is none, or it is beyond what is tried."""


class Generator:
    """Makes instances of `root`, the same ones for the same dice. Strings are taken from `words`, after `mark` where there is room."""

    def __init__(self, root: Any, dice: Dice, words: Sequence[str], mark: str = "") -> None:
        self.root = root
        self.dice = dice
        self.words = words
        self.mark = mark
        self.left = _MOST_VALUES

    def make(self, schema: Any, depth: int = 0) -> Any:
        """A value that satisfies `schema`. Raises Unsatisfiable."""
        self._spend()
        if depth > _DEEPEST or schema is False:
            raise Unsatisfiable
        if not isinstance(schema, dict):
            return self._word("", 0, None)
        schema = self._resolved(schema)
        for keyword in ("anyOf", "oneOf"):
            if isinstance(schema.get(keyword), list):
                return self._one_of(schema, keyword, depth)
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list):
            return self._member(schema)
        kind = self._kind(schema, depth)
        return _MAKERS.get(kind, Generator._string)(self, schema, depth)

    def _spend(self, values: int = 1) -> None:
        # A client's schema can ask for more than there is memory, or time.
        self.left -= values
        if self.left < 0:
            raise Unsatisfiable

    # what a schema says once references and conjunctions are written out

    def _resolved(self, schema: Schema) -> Schema:
        for _ in range(_DEEPEST):
            self._spend()
            if "$ref" in schema:
                target = self._target(schema["$ref"])
                schema = both({key: value for key, value in schema.items() if key != "$ref"}, target)
            elif isinstance(schema.get("allOf"), list):
                parts = schema["allOf"]
                schema = {key: value for key, value in schema.items() if key != "allOf"}
                for part in parts:
                    schema = both(schema, self._resolved(part) if isinstance(part, dict) else part)
            else:
                return schema
        raise Unsatisfiable

    def _target(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise Unsatisfiable
        found = self.root
        for step in reference[1:].split("/")[1:]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise Unsatisfiable
        return found

    def _one_of(self, schema: Schema, keyword: str, depth: int) -> Any:
        branches = schema[keyword]
        base = {key: value for key, value in schema.items() if key != keyword}
        start = self.dice.below(len(branches)) if branches else 0
        order = [*branches[start:], *branches[:start]]
        # A null says nothing while there is room to say something; deep down the shortest way out is the best one.
        order.sort(key=_weight if depth > _SHALLOW else _is_null)
        for branch in order:
            try:
                return self.make(both(base, branch), depth + 1)
            except Unsatisfiable:
                continue
        raise Unsatisfiable

    def _member(self, schema: Schema) -> Any:
        kinds = schema.get("type")
        allowed = [kinds] if isinstance(kinds, str) else kinds
        members = [value for value in schema["enum"] if not allowed or any(_is_kind(value, kind) for kind in allowed)]
        if not members:
            raise Unsatisfiable
        return self.dice.pick(members)

    def _kind(self, schema: Schema, depth: int) -> str:
        kind = schema.get("type")
        if isinstance(kind, str):
            return kind
        if isinstance(kind, list):
            if not kind:
                raise Unsatisfiable
            order = [name for name in kind if name != "null"]
            if depth > _SHALLOW:
                order = [name for name in order if name not in {"object", "array"}] or (["null"] if "null" in kind else order)
            return str(self.dice.pick(order or kind))
        return next((_KIND_OF_KEYWORD[key] for key in schema if key in _KIND_OF_KEYWORD), "string")

    # one maker per type

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = [name for name in schema.get("required") or [] if isinstance(name, str)]
        most = schema.get("maxProperties", math.inf)
        names = dict.fromkeys(name for name in properties if name in required or depth <= _SHALLOW)
        for name in [name for name in names if name not in required][max(0, int(min(most, len(names))) - len(required)) :]:
            del names[name]
        names.update(dict.fromkeys(required))
        made: dict[str, Any] = {}
        for name in names:
            try:
                made[name] = self.make(properties[name] if name in properties else self._additional(schema, name), depth + 1)
            except Unsatisfiable:
                if name in required:
                    raise
        extra = 0
        while len(made) < schema.get("minProperties", 0):
            name = next((name for name in properties if name not in made), f"key{extra}")
            extra += 1
            made[name] = self.make(properties[name] if name in properties else self._additional(schema, name), depth + 1)
        return made

    def _additional(self, schema: Schema, name: str) -> Any:
        # A pattern of a client's is never run, so which of several patterns the name falls under is not known: the first is taken.
        patterns = schema.get("patternProperties")
        if isinstance(patterns, dict) and patterns and schema.get("additionalProperties") is False:
            return next(iter(patterns.values()))
        return schema.get("additionalProperties", True)

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        items = schema.get("items", True)
        first = schema.get("prefixItems") or (items if isinstance(items, list) else [])
        rest = schema.get("additionalItems", True) if isinstance(items, list) else items
        least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        wanted = max(least, len(first), 0 if depth > _SHALLOW or rest is False else 1 + self.dice.below(2))
        made: list[Any] = []
        if "contains" in schema:
            least = max(least, len(first) + schema.get("minContains", 1))
            wanted = max(wanted, least)
        while len(made) < min(wanted, most):
            at = len(made)
            part = first[at] if at < len(first) else rest
            if "contains" in schema and at >= len(first):
                part = both(part, schema["contains"]) if isinstance(part, dict) else schema["contains"]
            try:
                made.append(self._distinct(part, depth + 1, made) if schema.get("uniqueItems") else self.make(part, depth + 1))
            except Unsatisfiable:
                if at < least:
                    raise
                break
        return made

    def _distinct(self, schema: Any, depth: int, others: list[Any]) -> Any:
        """A value that is not among `others` yet."""
        start, shift = self.dice.state, self.dice.shift
        try:
            for further in range(_DISTINCT_TRIES + len(others)):
                self.dice.state, self.dice.shift = start, shift + further
                value = self.make(schema, depth)
                if not any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in others):
                    return value
        finally:
            self.dice.shift = shift
        raise Unsatisfiable

    def _integer(self, schema: Schema, depth: int) -> int:
        low, high = _bounds(schema)
        # A whole multiple of a fraction is a multiple of its numerator.
        step = _step(schema, 1).numerator
        bottom, top = _span(low, high, step, 100)
        value = (bottom + self.dice.below(top - bottom + 1)) * step
        if abs(value) > _GREATEST:
            raise Unsatisfiable
        return value

    def _number(self, schema: Schema, depth: int) -> float:
        low, high = _bounds(schema)
        for places in (10, 1000, 10**9, 10**15):
            step = _step(schema, Fraction(1, places))
            try:
                bottom, top = _span(low, high, step, 100 * places if "multipleOf" not in schema else 100)
            except Unsatisfiable:
                continue
            value = (bottom + self.dice.below(top - bottom + 1)) * step
            return int(value) if value.denominator == 1 and abs(value) <= _GREATEST else float(value)
        raise Unsatisfiable

    def _string(self, schema: Schema, depth: int) -> str:
        low, high = schema.get("minLength", 0), schema.get("maxLength")
        if low > _LONGEST_TEXT:
            raise Unsatisfiable
        if isinstance(schema.get("pattern"), str):
            self._spend(_VALUES_PER_PATTERN)
            try:
                return matching(schema["pattern"], self.dice, low, high)
            except Unsupported:
                return self._word(self.mark, low, high)
        form = _FORMATS.get(str(schema.get("format")))
        if form is None:
            return self._word(self.mark, low, high)
        return form(self.dice.below(1 << 30))

    def _word(self, mark: str, low: int, high: int | None) -> str:
        drawn = self.dice.below(1 << 30)
        word = self.words[drawn % len(self.words)]
        round_trip = drawn // len(self.words)
        if self.dice.shift and round_trip:
            # Distinct values are wanted and the words may have run out.
            word = f"{round_trip % 100_000} {word}"
        text = mark + word if high is None or len(mark) + len(word) <= high else word
        if len(text) < low:
            self._spend(low // _LETTERS_PER_VALUE)
            text += (" " + word) * (low // len(word))
            text = text[:low]
        return text if high is None or len(text) <= high else text[: max(high, 0)]

    def _boolean(self, schema: Schema, depth: int) -> bool:
        return bool(self.dice.below(2))

    def _null(self, schema: Schema, depth: int) -> None:
        return None


_MAKERS: dict[str, Callable[[Generator, Schema, int], Any]] = {
    "object": Generator._object,
    "array": Generator._array,
    "integer": Generator._integer,
    "number": Generator._number,
    "string": Generator._string,
    "boolean": Generator._boolean,
    "null": Generator._null,
}


def instance_of(schema: Any, dice: Dice, words: Sequence[str], param: str, mark: str = "") -> Any:
    """A value that satisfies `schema`. Raises ClientError, naming `param`, for a schema that nothing satisfies or that is malformed."""
    try:
        return Generator(schema, dice, words, mark).make(schema)
    except Unsatisfiable:
        raise bad_schema(param, "the simulation finds no instance that satisfies it") from None
    except ClientError:
        raise
    except (TypeError, ValueError, AttributeError, RecursionError, OverflowError, LookupError) as error:
        # A keyword with a value of a type that it cannot have, at any depth: nothing else in here can raise these.
        raise bad_schema(param, "it is not a valid JSON Schema") from error


def _bounds(schema: Schema) -> tuple[Fraction | None, Fraction | None]:
    """The least and the greatest value; an open end is moved inward by a hair, which whole multiples then round away."""
    low, high = (_fraction(schema.get(key)) for key in ("minimum", "maximum"))
    for key, sign in (("exclusiveMinimum", 1), ("exclusiveMaximum", -1)):
        given = schema.get(key)
        if given is None or given is False:
            continue
        edge = (low if sign > 0 else high) if given is True else _fraction(given)
        if edge is None:
            continue
        inner = edge + sign * Fraction(1, 10**18)
        if sign > 0:
            low = inner if low is None else max(low, inner)
        else:
            high = inner if high is None else min(high, inner)
    return low, high


def _span(low: Fraction | None, high: Fraction | None, step: Fraction | int, usual: int) -> tuple[int, int]:
    """The first and last multiple of `step` from `low` to `high`, in steps; `usual` is how many there are towards an open end."""
    if low is None and high is None:
        return 0, usual
    if low is not None:
        bottom = math.ceil(low / step)
    else:
        assert high is not None
        bottom = math.floor(high / step) - usual
    top = math.floor(high / step) if high is not None else bottom + usual
    if top < bottom:
        raise Unsatisfiable
    if low is not None and high is not None and bottom <= 0 <= top:
        # Near to zero is what people expect where both signs are allowed.
        bottom, top = max(bottom, 0), min(top, usual)
    return bottom, top


def _fraction(value: Any) -> Fraction | None:
    return None if value is None else Fraction(str(value))


def _step(schema: Schema, usual: Fraction | int) -> Fraction:
    step = _fraction(schema.get("multipleOf"))
    return Fraction(usual) if step is None or step <= 0 else step


def _is_null(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "null"


def _weight(schema: Any) -> int:
    """How far a branch is likely to lead on."""
    if not isinstance(schema, dict) or "const" in schema or "enum" in schema:
        return 0
    if "$ref" in schema or "anyOf" in schema or "allOf" in schema:
        return 2
    if schema.get("type") in {"object", "array"}:
        return 1 if not schema.get("required") and not schema.get("minItems") else 2
    return 0


_PYTHON: dict[Any, type] = {"object": dict, "array": list, "string": str, "null": type(None), "boolean": bool}


def _is_kind(value: Any, kind: Any) -> bool:
    if kind in {"number", "integer"}:
        return type(value) is int or (type(value) is float and (kind == "number" or value.is_integer()))
    return isinstance(value, _PYTHON.get(kind, object))
