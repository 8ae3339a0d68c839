"""`comporta init`: a file that can be used, each key tried, and no key in the file or the output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from comporta.cli import main
from comporta.cli.records import stored
from proxy.settings import load
from tests.support.script import error_response, json_response, script
from tests.support.upstream import Upstream

CANARY = "canary-7c1d-not-a-real-key"
LIST = {"object": "list", "data": [{"id": "zephyr", "object": "model"}]}


@pytest.fixture
def run(environment: dict[str, str | None], tmp_path: Path) -> Iterator[Callable[..., Result]]:
    """The canary may be in no output, no exception and no file."""
    store = {"COMPORTA_STORAGE__URL": f"sqlite:///{tmp_path}/comporta.db", "COMPORTA_CREDENTIALS__KEY": f"file:{tmp_path}/kek"}
    results: list[Result] = []

    def invoke(*arguments: str, said: str = "", **variables: str) -> Result:
        words = ["init", "--output", f"{tmp_path}/g.yaml", *arguments]
        results.append(CliRunner().invoke(main, words, input=said, env={**environment, **store, **variables}))
        return results[-1]

    yield invoke
    for result in results:
        assert CANARY not in result.output + repr(result.exception)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or CANARY.encode() not in path.read_bytes(), path


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


def _loaded(tmp_path: Path):
    return load(tmp_path / "g.yaml", {}, {}).settings.providers


def test_a_script_says_everything_by_options(run, tmp_path: Path, upstream: Upstream):
    upstream.play(script(json_response(200, LIST)))
    result = run("--yes", "--provider", "spare=openai", "--base-url", f"spare={upstream.url}/v1", "--key", "spare=env:SPARE", SPARE=CANARY)
    assert result.exit_code == 0, result.output
    assert "spare: it works: one model" in result.stdout
    section = _loaded(tmp_path)["spare"]
    assert (section.base_url, section.api_key) == (f"{upstream.url}/v1", "env:SPARE")
    assert upstream.requests[0].header("authorization") == f"Bearer {CANARY}"


def test_a_key_that_is_refused_is_told_and_the_file_written(run, tmp_path: Path, upstream: Upstream):
    upstream.play(script(error_response(401, CANARY)))
    result = run("--yes", "--provider", "a=openai", "--base-url", f"a={upstream.url}/v1", "--key", "a=env:A", A=CANARY)
    assert result.exit_code == 0
    assert "does not accept the key" in result.stderr
    assert "a" in _loaded(tmp_path)


def test_questions_lead_to_a_file_too(run, tmp_path: Path, upstream: Upstream):
    upstream.play(script(json_response(200, LIST)))
    result = run(said=f"openai\nlocal\n{upstream.url}/v1\nnone\nn\n")
    assert result.exit_code == 0, result.output
    assert (_loaded(tmp_path)["local"].base_url, _loaded(tmp_path)["local"].api_key) == (f"{upstream.url}/v1", None)


def test_a_key_that_is_typed_in_goes_into_the_store_alone(run, tmp_path: Path, upstream: Upstream):
    upstream.play(script(json_response(200, LIST)))
    result = run(said=f"openai\nspare\n{upstream.url}/v1\nstore\n{CANARY}\nn\n")
    assert result.exit_code == 0, result.output
    assert _loaded(tmp_path)["spare"].api_key == "store:spare"
    settings = load(tmp_path / "g.yaml", {"COMPORTA_STORAGE__URL": f"sqlite:///{tmp_path}/comporta.db"}, {}).settings
    store = stored(settings)
    assert store is not None
    assert store("spare") == CANARY


def test_a_file_that_is_there_stays(run, tmp_path: Path):
    (tmp_path / "g.yaml").write_text("mine")
    assert run("--yes", "--provider", "sim").exit_code == 1
    assert (tmp_path / "g.yaml").read_text() == "mine"
    assert run("--yes", "--force", "--provider", "sim", "--key", "sim=none").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "at least one --provider"),
        (("--provider", "a=opnai"), "did you mean 'openai'?"),
        (("--provider", "a=openai", "--key", f"a={CANARY}"), "never a key"),
        (("--provider", "a=openai", "--key", CANARY), "NAME=VALUE"),
        (("--provider", "a=openai", "--base-url", "a=nowhere"), "is no address"),
        (("--provider", "sim", "--key", "sym=none"), "did you mean 'sim'?"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_written(run, tmp_path: Path, arguments: tuple[str, ...], said: str):
    result = run("--yes", *arguments)
    assert (result.exit_code, said in result.stderr) == (2, True), result.output
    assert not (tmp_path / "g.yaml").exists()


def test_a_script_is_told_what_was_written_and_who_answered(run, tmp_path: Path, upstream: Upstream):
    upstream.play(script(json_response(200, LIST)))
    words = ("--yes", "--json", "--provider", "spare=openai", "--base-url", f"spare={upstream.url}/v1", "--key", "spare=env:SPARE")
    result = run(*words, "--provider", "play=sim", "--key", "play=none", SPARE=CANARY)
    told = json.loads(result.stdout)
    assert told["file"] == f"{tmp_path}/g.yaml"
    assert [(one["name"], one["reference"], one["works"]) for one in told["providers"]] == [
        ("spare", "env:SPARE", True),
        ("play", None, True),
    ]
    assert run("--json").exit_code == 2
