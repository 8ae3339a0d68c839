"""What is shown of a configuration that was refused."""

from __future__ import annotations

import pytest

from proxy.settings.messages import masked
from tests.settings.conftest import Refused


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("api_key: hunter2", "api_key: [a key]"),
        ("{kind: openai, api_key: 'hunter2', sim: false}", "{kind: openai, api_key: [a key], sim: false}"),
        ('{"api_key": "hunter2"}', '{"api_key": [a key]}'),
        ("api_keys: [hunter2, env:B]", "api_keys: [keys]"),
        ("a:\n  api_keys:\n    - hunter2\n    - env:B\n  kind: openai", "a:\n  api_keys: [keys]\n  kind: openai"),
        ("admin_key: hunter2 # mine", "admin_key: [a key]"),
        ("pepper: hunter2", "pepper: [a key]"),
        ("headers: {x: Bearer sk-0123456789abcdef0123}", "headers: {x: [a key]}"),
        ("url: redis://:hunter2@host:6379/0", "url: redis://:[a password]@host:6379/0"),
        ("url: postgresql://ada:hunter2@host/name", "url: postgresql://ada:[a password]@host/name"),
    ],
)
def test_keys_and_passwords_in_a_text_are_not_shown(written: str, shown: str):
    assert masked(written) == shown


@pytest.mark.parametrize(
    "text",
    [
        'api_key: "env:OPENAI_API_KEY"',
        "api_key: env:A",
        "tls: {certificate: file:/a, key: file:/b}",
        "credentials: {key: 'keyring:kek'}",
        "base_url: http://127.0.0.1:8080/v1",
        "monkey: business",
        "url: postgresql://ada@host/name",
    ],
)
def test_references_and_everything_else_are_shown_as_they_are(text: str):
    assert masked(text) == text


def test_an_unknown_key_inside_a_mapping_is_told_with_those_that_are_known_there(refused: Refused):
    (problem,) = refused("llm: {task_types: {TASK_TYPE_REPORT: {modle: x}}}")
    assert (problem.path, "did you mean 'model'? known here: model, fallback_model" in str(problem)) == (
        "llm.task_types.TASK_TYPE_REPORT.modle",
        True,
    )


@pytest.mark.parametrize("operation", ["caht", "[embedding, caht]"])
def test_a_condition_on_an_operation_that_is_not_there_is_told_with_the_nearest(refused: Refused, operation: str):
    (problem,) = refused(f"models: {{a: {{targets: [{{provider: sim, when: {{operation: {operation}}}}}]}}}}")
    assert (problem.path, "there is no operation 'caht'; did you mean 'chat'?" in str(problem)) == ("models.a.targets[0].when", True)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{targets: [{provider: sim, when: {prompt_tokens: {abov: 3}}}]}", "targets[0].when.prompt_tokens.abov"),
        ("{provider: sim, fallback: [{on: any}]}", "fallback[0].to"),
    ],
)
def test_of_a_mapping_that_may_be_plain_only_what_is_wrong_in_it_is_told(refused: Refused, text: str, path: str):
    (problem,) = refused(f"models: {{a: {text}}}")
    assert problem.path == f"models.a.{path}"
