"""The section `llm`: as the file has it, from its own variables, and against the models that there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.catalogue import table_of
from proxy.core.hierarchy import Hierarchy
from proxy.core.resolved import Preferences
from proxy.routing.table import Rule
from proxy.settings import Loaded, load
from tests.settings.conftest import Load, Refused, nobody_listens

EXAMPLE = Path(__file__).resolve().parents[2] / "config" / "hierarchy.yaml"

LOCAL = 'providers:\n  local: {kind: openai, base_url: "http://127.0.0.1:11434/v1"}\n'


def hierarchy_of(found: Loaded) -> Hierarchy:
    assert found.settings.llm is not None
    return found.settings.llm.hierarchy()


def test_the_example_can_be_used_and_is_the_hierarchy_that_it_says():
    found = load(EXAMPLE, {}, {}, probe=nobody_listens)
    assert found.warnings == []
    hierarchy = hierarchy_of(found)
    assert hierarchy.system == Preferences("llama3.2:3b", "llama3.2:1b", 60.0, 3)
    assert hierarchy.task_types["TASK_TYPE_WEEKLY_REPORT"] == Preferences("llama3.2:7b", None, 120.0, 3)
    assert hierarchy.params["llama3.2:3b"] == {"temperature": 0.7, "max_tokens": 2048}
    assert hierarchy.context_windows == {"llama3.2:3b": 8192, "llama3.2:7b": 16384}
    assert (hierarchy.premium_model, hierarchy.standard_model, hierarchy.alias) == ("llama3.2:7b", "llama3.2:3b", "auto")


def test_timeouts_of_an_attempt_are_set_by_level(loaded: Load):
    text = 'llm: {timeouts: {idle: "9s", min_tokens_per_second: 2}, task_types: {T: {timeouts: {first_token: "1m", window: "500ms"}}}}\n'
    hierarchy = hierarchy_of(loaded(LOCAL + text))
    assert hierarchy.system.timeouts == {"idle": 9.0, "min_tokens_per_second": 2.0}
    assert hierarchy.task_types["T"].timeouts == {"first_token": 60.0, "window": 0.5}


def test_without_the_section_there_is_no_hierarchy(loaded: Load):
    assert loaded(LOCAL).settings.llm is None


def test_the_variables_of_the_environment_alone_make_the_section(loaded: Load):
    found = loaded(
        LOCAL,
        {
            "LLM_DEFAULT_MODEL": "llama3.2:3b",
            "LLM_FALLBACK_MODEL": "llama3.2:1b",
            "LLM_DEFAULT_TIMEOUT": "60s",
            "LLM_MAX_RETRIES": "0",
            "LLM_TASK_TYPE_CONFIGS": '{"TASK_TYPE_WEEKLY_REPORT":{"model":"llama3.2:7b","timeout":"120s"}}',
            "LLM_MODEL_PARAMS": '{"llama3.2:3b":{"temperature":0.7,"max_tokens":2048}}',
        },
    )
    hierarchy = hierarchy_of(found)
    assert hierarchy.system == Preferences("llama3.2:3b", "llama3.2:1b", 60.0, 0)
    assert hierarchy.task_types == {"TASK_TYPE_WEEKLY_REPORT": Preferences("llama3.2:7b", None, 120.0)}
    assert hierarchy.params == {"llama3.2:3b": {"temperature": 0.7, "max_tokens": 2048}}
    assert found.sources["llm.default_model"] == "environment:LLM_DEFAULT_MODEL"


def test_a_variable_goes_before_the_file_value_by_value_and_comportas_own_before_it(loaded: Load):
    text = LOCAL + 'llm: {default_model: a, timeout: "9s", task_types: {T: {model: a, max_retries: 3}}}\n'
    environ = {"LLM_DEFAULT_MODEL": "b", "LLM_TASK_TYPE_CONFIGS": '{"T": {"model": "b"}}', "COMPORTA_LLM__DEFAULT_MODEL": "c"}
    hierarchy = hierarchy_of(loaded(text, environ))
    assert hierarchy.system == Preferences("c", None, 9.0)
    assert hierarchy.task_types["T"] == Preferences("b", None, None, 3)


def test_an_empty_variable_counts_as_unset(loaded: Load):
    assert loaded(LOCAL, {"LLM_DEFAULT_MODEL": "", "LLM_MODEL_PARAMS": ""}).settings.llm is None


@pytest.mark.parametrize("value", ["llama", "[1]", '{"T": 5}', '{"T": {'])
def test_a_variable_that_is_no_object_is_refused_by_its_name(refused: Refused, value: str):
    problems = refused(LOCAL, {"LLM_TASK_TYPE_CONFIGS": value})
    assert any("LLM_TASK_TYPE_CONFIGS" in str(problem) for problem in problems)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("timeout: 60", "llm.timeout"),
        ('timeout: "0s"', "llm.timeout"),
        ("max_retries: 11", "llm.max_retries"),
        ("task_types: {T: {modell: a}}", "llm.task_types.T.modell"),
        ("model_params: {m: {temperature: 3}}", "llm.model_params.m.temperature"),
        ("max_retries: true", "llm.max_retries"),
        ("task_types: {T: {max_retries: false}}", "llm.task_types.T.max_retries"),
        ("timeouts: {min_tokens_per_second: true}", "llm.timeouts.min_tokens_per_second"),
        ("model_params: {m: {max_tokens: true}}", "llm.model_params.m.max_tokens"),
        ("model_params: {m: {context_window: true}}", "llm.model_params.m.context_window"),
        ("model_params: {m: {temperature: true}}", "llm.model_params.m.temperature"),
        ("model_params: {m: {top_p: true}}", "llm.model_params.m.top_p"),
        ("unknown_models: ignore", "llm.unknown_models"),
        ("larger_model: m", "llm.larger_model"),
        ("{default_model: gpt-4, allowed_models: [llama*]}", "llm.default_model"),
    ],
)
def test_a_bad_value_is_refused_with_its_path(refused: Refused, text: str, path: str):
    inner = text if text.startswith("{") else "{" + text + "}"
    assert [problem.path for problem in refused(LOCAL + f"llm: {inner}\n")] == [path]


CHAINS = """\
models:
  fast: {provider: local, fallback: [slow, {on: too_slow, to: local/x}, fast-too]}
  fast-too: local
  slow: {provider: local, fallback: [secret]}
  secret: local
llm: {allowed_models: ["fast*"]}
"""


def test_a_fallback_to_a_model_that_is_not_allowed_is_a_warning_and_no_fallback(loaded: Load):
    """`slow` is not allowed, so that nobody gets to what follows it."""
    found = loaded(LOCAL + CHAINS)
    told = [(warning.path, "llm.allowed_models does not allow" in str(warning)) for warning in found.warnings]
    assert told == [("models.fast.fallback[0]", True), ("models.fast.fallback[1].to", True)]
    routes = table_of(found.settings).routes
    assert routes["fast"].fallback == (Rule("any", "fast-too"),)


def test_without_a_list_of_allowed_models_every_fallback_is_one(loaded: Load):
    found = loaded(LOCAL + CHAINS.replace('{allowed_models: ["fast*"]}', "{}"))
    assert not found.warnings
    assert [rule.to for rule in table_of(found.settings).routes["fast"].fallback] == ["slow", "local/x", "fast-too"]


def test_null_inherits(loaded: Load):
    hierarchy = hierarchy_of(loaded(LOCAL + "llm: {max_retries: null, task_types: {T: {timeout: null}}}\n"))
    assert (hierarchy.system, hierarchy.task_types) == (Preferences(), {"T": Preferences()})


def test_a_model_that_nobody_serves_is_a_warning_or_refused(loaded: Load, refused: Refused):
    text = LOCAL + "models: {fast: local}\nllm: {default_model: fast, fallback_model: local/x, task_types: {T: {model: fasst}}%s}\n"
    warnings = loaded(text % "").warnings
    assert [(warning.path, "did you mean 'fast'?" in str(warning)) for warning in warnings] == [("llm.task_types.T.model", True)]
    assert [problem.path for problem in refused(text % ", unknown_models: refuse")] == ["llm.task_types.T.model"]
