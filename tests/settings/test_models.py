"""The section `models`: several targets, strategies, conditions and chains, and what is wrong with one."""

from __future__ import annotations

import pytest

from proxy.catalogue import table_of
from proxy.core.call import Target
from proxy.routing.causes import CAUSES
from proxy.routing.conditions import Range
from proxy.routing.strategies import STRATEGIES, Candidate, Price
from proxy.routing.table import ModelRoute, Rule
from proxy.settings import dump, restore
from proxy.settings.models import ModelTargets
from tests.settings.conftest import Load, Refused, check_told

HEAD = "providers: {a: {kind: openai}, b: {kind: openai}}\nmodels:\n"

WHOLE = """\
  smart:
    targets:
      - {provider: a, weight: 9, price: {input: 2, output: 8}}
      - {provider: b, model: gpt-eu, priority: 2, when: {tier: premium, prompt_tokens: {above: 8000}, metadata.team: [x, y]}}
      - b
    strategy: cheapest
    latency: 2s
    fallback: [fast, {on: context_window, to: long}]
  fast: {provider: a, model: small, fallback: [b/other]}
  long: b
"""


def test_a_whole_section_comes_to_a_table(loaded: Load):
    found = loaded(HEAD + WHOLE.replace("strategy: cheapest", "strategy: least_latency"))
    table = table_of(found.settings)
    condition = (("tier", ("premium",)), ("prompt_tokens", Range(above=8000)), ("metadata.team", ("x", "y")))
    candidates = (
        Candidate(Target("a", "smart", "smart"), 9, price=Price(2, 8)),
        Candidate(Target("b", "gpt-eu", "smart"), priority=2, when=condition),
        Candidate(Target("b", "smart", "smart")),
    )
    rules = (Rule("any", "fast"), Rule("context_window", "long"))
    assert table.routes == {
        "smart": ModelRoute(candidates, "least_latency", rules, 2.0),
        "fast": ModelRoute((Candidate(Target("a", "small", "fast")),), fallback=(Rule("any", "b/other"),)),
    }
    assert table.targets["smart"] == candidates[0].target
    assert found.sources["models.smart.targets[1].model"] == "file:6"
    assert found.sources["models.smart.targets[2].provider"] == "file:7"


def test_what_is_written_out_reads_back_as_the_same(loaded: Load):
    settings = loaded(HEAD + WHOLE.replace("cheapest", "sticky")).settings
    assert restore(dump(settings)) == settings


def test_the_strategies_and_causes_are_those_that_there_are():
    schema = ModelTargets.model_json_schema()
    assert schema["properties"]["strategy"]["enum"] == list(STRATEGIES)
    assert schema["$defs"]["FallbackRule"]["properties"]["on"]["enum"] == list(CAUSES)


@pytest.mark.parametrize(
    ("entry", "breaker", "warned"),
    [
        ("{targets: [a, b], strategy: least_latency}", "false", True),
        ("{targets: [a, b], strategy: least_busy}", "false", True),
        ("{targets: [a, b]}", "false", False),
        ("{targets: [a, b], strategy: least_busy}", "{failures: 9}", False),
        ("a", "false", False),
    ],
)
def test_a_strategy_that_goes_by_nothing_is_told(loaded: Load, entry: str, breaker: str, warned: bool):
    found = loaded(HEAD + f"  m: {entry}\npolicies: {{circuit_breaker: {breaker}}}\n")
    assert [warning.path for warning in found.warnings if "strategy" in warning.path] == ["models.m.strategy"] * warned


WRONG = {
    "a target of nobody": ("  m: {targets: [a, {provider: c}]}", 3, "models.m.targets[1].provider", "there is no provider 'c'"),
    "a target in one": ("  m: {targets: [a, b/x]}", 3, "models.m.targets[1].provider", "write m: {provider: b, model: x}"),
    "a strategy of nobody": ("  m: {targets: [a, b], strategy: random}", 3, "models.m.strategy", "'weighted', 'least_latency'"),
    "a fallback to nothing": ("  fast: a\n  m: {provider: a, fallback: [fasst]}", 4, "models.m.fallback[0]", "did you mean 'fast'?"),
    "a fallback to a provider": ("  m: {provider: a, fallback: [b]}", 3, "models.m.fallback[0]", "it is a provider: write b/MODEL"),
    "a rule to nothing": ("  m:\n    provider: a\n    fallback:\n      - {on: any, to: x}", 6, "models.m.fallback[0].to", "no model 'x'"),
    "a cause of nothing": (
        "  m: {provider: a, fallback: [{on: too_sloww, to: m}]}",
        3,
        "models.m.fallback[0].on",
        "did you mean 'too_slow'?",
    ),
    "a fallback to itself": ("  m: {provider: a, fallback: [m]}", 3, "models.m.fallback[0]", "leads in a circle: m -> m"),
    "a circle": (
        "  x: {provider: a, fallback: [y]}\n  y: {provider: a, fallback: [{on: any, to: z}]}\n  z: {targets: [a], fallback: [b/m, y]}",
        5,
        "models.z.fallback[1]",
        "leads in a circle: y -> z -> y",
    ),
    "a fact that nobody knows": (
        "  m: {targets: [a, {provider: b, when: {teir: x}}]}",
        3,
        "models.m.targets[1].when",
        "did you mean 'tier'?",
    ),
    "a weight below nothing": (
        "  m: {targets: [a, {provider: b, weight: -1}]}",
        3,
        "models.m.targets[1].weight",
        "greater than or equal to 0",
    ),
    "no weight at all": ("  m: {targets: [{provider: b, weight: 0}]}", 3, "models.m.targets", "every weight is 0"),
    "a cheapest without a price": ("  m: {targets: [a, b], strategy: cheapest}", 3, "models.m.targets[0]", "has no price"),
    "a setting that is none": ("  m: {targets: [a, b], stategy: sticky}", 3, "models.m.stategy", "did you mean 'strategy'?"),
    "a setting of targets in the short form": ("  m: {provider: a, strategy: sticky}", 3, "models.m.strategy", "unknown key"),
}


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ('stream: "true"', "'stream' is never 'true'; write true or false, without quotes"),
        ("stream: {above: 0}", "'stream' is never a range"),
        ('prompt_tokens: "8000"', "'prompt_tokens' is never '8000'; write a number without quotes"),
        ("max_tokens: true", "'max_tokens' is never True"),
        ("tier: 1", "'tier' is never 1; write text, such as \"1\" in quotes"),
        ("user: [ana, 7]", "'user' is never 7"),
        ("task_type: {below: 2}", "'task_type' is never a range"),
    ],
)
def test_a_condition_that_no_request_meets_is_refused(refused: Refused, when: str, said: str):
    text = HEAD + f"  m: {{targets: [a, {{provider: b, when: {{{when}}}}}]}}"
    check_told(refused(text), 3, "models.m.targets[1].when", said)


@pytest.mark.parametrize(
    "when", ["stream: false", "stream: [true, false]", "max_tokens: [1, 2.5]", 'metadata.beta: [true, "1", 1]', "user: 'no'"]
)
def test_a_condition_is_written_as_the_request_says_it(loaded: Load, when: str):
    loaded(HEAD + f"  m: {{targets: [a, {{provider: b, when: {{{when}}}}}]}}")


def test_a_chain_of_fallbacks_may_be_long_and_end_in_a_circle(loaded: Load, refused: Refused):
    chain = "".join(f"  m{place}: {{provider: a, fallback: [m{place + 1}]}}\n" for place in range(2000))
    loaded(HEAD + chain + "  m2000: a\n")
    (problem,) = refused(HEAD + chain + "  m2000: {provider: a, fallback: [m1999]}\n")
    assert (problem.path, "m1999 -> m2000 -> m1999" in str(problem)) == ("models.m2000.fallback[0]", True)


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_with_its_place(refused: Refused, case: str):
    text, line, path, said = WRONG[case]
    check_told(refused(HEAD + text), line, path, said)


def test_two_ways_to_one_model_are_no_circle(loaded: Load):
    text = "  x: {provider: a, fallback: [y, z]}\n  y: {provider: a, fallback: [z]}\n  z: a"
    assert loaded(HEAD + text).settings.models is not None


def test_conditions_that_may_leave_nobody_are_doubtful(loaded: Load):
    found = loaded(HEAD + "  m: {targets: [{provider: a, when: {stream: true}}]}")
    assert any("refused" in warning.message for warning in found.warnings)
