from __future__ import annotations

import re
import time

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from providers.sim.dice import Dice
from providers.sim.pattern import Unsupported, matching
from providers.sim.schema import instance_of
from proxy.core.errors import ClientError

WORDS = ["Paris", "weather", "today"]


def make(schema, seed=1):
    return orjson.loads(orjson.dumps(instance_of(schema, Dice(seed), WORDS, "schema", "simulated ")))


def check(schema, value):
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)


def bounded(low, high, make_one):
    return st.tuples(st.integers(low, high), st.integers(0, 20)).map(lambda pair: make_one(pair[0], pair[0] + pair[1]))


LEAVES = st.one_of(
    st.sampled_from([{"type": "string"}, {"type": "boolean"}, {"type": "null"}, {"type": "integer"}, {"type": "number"}, {}, True]),
    st.sampled_from(["date", "date-time", "time", "email", "ipv4", "ipv6", "uuid", "duration"]).map(
        lambda name: {"type": "string", "format": name}
    ),
    st.lists(st.one_of(st.text(max_size=5), st.integers(-5, 5), st.none()), min_size=1, max_size=4).map(lambda values: {"enum": values}),
    st.one_of(st.text(max_size=5), st.booleans(), st.none(), st.just({"a": [1]})).map(lambda value: {"const": value}),
    bounded(0, 60, lambda low, high: {"type": "string", "minLength": low, "maxLength": high}),
    bounded(-100, 100, lambda low, high: {"type": "integer", "minimum": low, "maximum": high}),
    bounded(-100, 100, lambda low, high: {"type": "number", "exclusiveMinimum": low, "maximum": high + 0.5}),
    bounded(-100, 100, lambda low, high: {"type": "integer", "exclusiveMinimum": low, "exclusiveMaximum": high + 2}),
    st.sampled_from([1, 2, 7, 0.5, 10]).map(lambda step: {"type": "number", "multipleOf": step, "minimum": 3}),
    st.sampled_from([["string", "null"], ["integer", "boolean"], ["null"]]).map(lambda kinds: {"type": kinds}),
    st.sampled_from([r"^[A-Z]{3}-\d{4}$", r"^\w+@\w+\.com$", r"(red|green|blue)", r"^[^aeiou]{2,5}$", r"^(ab|c)+x?$"]).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    ),
)


def objects(inner):
    names = st.sampled_from(["name", "count", "tags", "über", "a/b", "x~y"])

    def build(properties, wanted, closed, ordered):
        required = [name for name in properties if name in wanted]
        schema = {"type": "object", "properties": properties, "required": required}
        return {**schema, "additionalProperties": False} if closed else schema if ordered else {"properties": properties}

    return st.builds(build, st.dictionaries(names, inner, max_size=4), st.sets(names), st.booleans(), st.booleans())


def arrays(inner):
    sizes = bounded(0, 4, lambda low, high: {"minItems": low, "maxItems": high})
    return st.one_of(
        st.builds(lambda items, size: {"type": "array", "items": items, **size}, inner, sizes),
        st.builds(
            lambda first: {"type": "array", "prefixItems": first, "items": False, "minItems": len(first)},
            st.lists(inner, min_size=1, max_size=3),
        ),
    )


def combinations(inner):
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
        inner.map(lambda schema: {"allOf": [schema]}),
        st.builds(lambda one, rest: {"$defs": {"part": one}, "anyOf": [*rest, one]}, inner, st.lists(inner, max_size=2)),
    )


SCHEMAS = st.recursive(LEAVES, lambda inner: st.one_of(objects(inner), arrays(inner), combinations(inner)), max_leaves=12)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SCHEMAS, st.integers(0, 2**32))
def test_instances_satisfy_their_schema(schema, seed):
    check(schema, make(schema, seed))


@settings(max_examples=50, deadline=None)
@given(SCHEMAS, st.integers(0, 2**32))
def test_same_seed_gives_the_same_instance(schema, seed):
    assert make(schema, seed) == make(schema, seed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
)
KEYWORDS = [
    "type",
    "properties",
    "required",
    "items",
    "enum",
    "const",
    "anyOf",
    "allOf",
    "$ref",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "pattern",
    "minLength",
    "maxLength",
    "multipleOf",
    "prefixItems",
    "uniqueItems",
    "minProperties",
    "additionalProperties",
    "format",
    "contains",
]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYWORDS), JSON, max_size=4))
def test_nonsense_is_answered_or_refused(schema):
    try:
        orjson.dumps(instance_of(schema, Dice(1), WORDS, "schema"))
    except ClientError as error:
        assert error.param == "schema"


@pytest.mark.parametrize(
    "schema",
    [
        {
            "$ref": "#/$defs/a",
            "$defs": {"a": {"type": "object", "properties": {"b": {"$ref": "#/$defs/b"}}, "required": ["b"]}, "b": {"const": 3}},
        },
        {"$ref": "#/definitions/x~1y", "definitions": {"x/y": {"type": "integer"}}},
        {
            "$defs": {"p": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}},
            "allOf": [{"$ref": "#/$defs/p"}, {"properties": {"b": {"type": "string"}}, "required": ["b"]}],
        },
        {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 1}},
            "allOf": [{"properties": {"a": {"maximum": 1}}, "required": ["a"]}],
        },
        {"oneOf": [{"type": "string", "minLength": 3}, {"type": "integer"}]},
        {
            "type": "object",
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
            "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
        },
        {"type": "object", "minProperties": 3, "additionalProperties": {"type": "integer"}},
        {"type": "object", "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False},
        {"type": "array", "items": {"enum": [1, 2, 3, 4]}, "minItems": 4, "uniqueItems": True},
        {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 10, "uniqueItems": True},
        {"type": "array", "items": {"type": "string"}, "minItems": 20, "uniqueItems": True},
        {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "uniqueItems": True},
        {"type": "array", "contains": {"const": 7}, "minContains": 2},
        {"type": "array", "maxItems": 0},
        {"type": "string", "pattern": "^[a-z]+$", "minLength": 25, "maxLength": 30},
        {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3},
        {"type": "number", "multipleOf": 0.01, "minimum": 0.5, "maximum": 0.52},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.0001},
        {"type": ["integer", "null"], "enum": [None, "x", 4.5]},
        {"anyOf": [False, {"enum": []}, {"type": "integer", "minimum": 5, "maximum": 4}, {"const": "last"}]},
        {"type": "string", "enum": ["a", 1]},
    ],
)
def test_keywords_in_company(schema):
    for seed in range(20):
        check(schema, make(schema, seed))


@pytest.mark.parametrize("required", [["value", "next"], ["value"]])
def test_recursive_schemas_end(required):
    node = {
        "type": "object",
        "required": required,
        "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}},
    }
    tree = {"type": "object", "required": ["kids"], "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/t"}}}}
    for seed in range(20):
        check({"$ref": "#/$defs/n", "$defs": {"n": node}}, make({"$ref": "#/$defs/n", "$defs": {"n": node}}, seed))
        check({"$ref": "#/$defs/t", "$defs": {"t": tree}}, make({"$ref": "#/$defs/t", "$defs": {"t": tree}}, seed))


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"$ref": "#"},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#/$defs/missing"},
        {"type": "object", "properties": {"me": {"$ref": "#"}}, "required": ["me"]},
        {"type": "array", "items": {"type": "array", "minItems": 1000, "items": {"type": "array", "minItems": 1000}}, "minItems": 10**9},
        {"type": "string", "minLength": 10**9},
        {"type": "object", "minProperties": 10**9},
        {"type": "integer", "minimum": 1e300},
        {"type": "integer", "minimum": "one"},
        {"type": "array", "uniqueItems": True, "items": {"type": "boolean"}, "minItems": 3},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 3} for i in range(40)}, "$ref": "#/$defs/d0"},
        {"allOf": [{"anyOf": [{"title": str(i)} for i in range(30)]}] * 12 + [{"not": {}, "enum": []}]},
    ],
)
def test_hopeless_schemas_are_refused_soon(schema):
    started = time.perf_counter()
    with pytest.raises(ClientError) as caught:
        instance_of(schema, Dice(1), WORDS, "response_format.json_schema.schema")
    assert caught.value.status == 400
    assert caught.value.param == "response_format.json_schema.schema"
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    "pattern",
    [
        "abc",
        "^a|b$",
        r"^\d{3}-\d{2,4}$",
        r"^[A-Za-z_][A-Za-z0-9_]*$",
        r"^(?:foo|bar)+$",
        r"^(?P<x>a)(?P<y>b)?$",
        r"^[^\d\s]+$",
        r"^.{5}$",
        r"\bword\b",
        r"^\+?[1-9]\d{1,14}$",
        r"^#[0-9a-fA-F]{6}$",
        r"^[\w.+-]+@[\w-]+\.[\w.-]+$",
        r"^a*?b+?$",
        r"^\x41\u0042$",
        r"^[\-\]]$",
        r"^$",
        r"^\S+\s\S+$",
        r"^(([01]\d|2[0-3]):[0-5]\d)$",
        r"^a{0}b$",
        r"^[a\-z]{4}$",
        r"^\t\n$",
    ],
)
def test_texts_match_their_pattern(pattern):
    for seed in range(50):
        assert re.search(pattern, matching(pattern, Dice(seed)))


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)b",
        "(?<!a)b",
        r"(a)\1",
        "(",
        "a)",
        "[",
        "[]",
        "*",
        "a{2,1}",
        "a{99999}",
        "a{x}",
        "(?i)a",
        "(" * 100 + ")" * 100,
        r"\x4",
        "(((a{99}){99}){99}){99}",
        "\\",
    ],
)
def test_patterns_beyond_reach_say_so(pattern):
    with pytest.raises(Unsupported):
        matching(pattern, Dice(1))


def test_pattern_made_to_backtrack_costs_nothing():
    started = time.perf_counter()
    make({"type": "string", "pattern": "^((a+)+)+(b|b)*c?$", "minLength": 60})
    assert time.perf_counter() - started < 1


def test_response_format_gives_an_instance_that_says_simulated(chat):
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "sky": {"enum": ["blue", "grey"]}}, "required": ["city", "sky"]}
    told = chat(response_format={"type": "json_schema", "json_schema": {"name": "sky", "strict": True, "schema": schema}})
    value = orjson.loads(told.json["choices"][0]["message"]["content"])
    check(schema, value)
    assert value["city"].startswith("simulated ")


@pytest.mark.parametrize(
    ("given_format", "param"),
    [
        ("json", "response_format"),
        ({}, "response_format.type"),
        ({"type": "xml"}, "response_format.type"),
        ({"type": 1}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": 1}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, "response_format.json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": "y"}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": False}}, "response_format.json_schema.schema"),
    ],
)
def test_what_is_wrong_with_a_format_is_named(chat, given_format, param):
    told = chat(response_format=given_format)
    assert told.status == 400
    assert told.json["error"]["param"] == param
