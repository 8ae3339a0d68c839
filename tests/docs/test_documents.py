"""The documents agree with the code: links lead somewhere, configurations are valid, commands exist."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
import yaml

from comporta import CapacityError, GatewayError, LLMProvider, StreamDecoder, Timeouts, UpstreamError
from comporta.cli import main
from policies.timeout import until
from proxy.core.errors import UPSTREAM_KINDS
from proxy.pipeline import PER_ATTEMPT, PER_REQUEST
from proxy.settings import load
from tests.docs import markdown
from tests.docs.markdown import Block
from tests.support.gateway import ROOT, Gateway

DOCUMENTS = markdown.documents()
LIFE = ROOT / "docs" / "life_of_a_request.md"
FAULTS = ROOT / "docs" / "faults.md"

#: Code in words that looks like a path of this repository.
_PATH = re.compile(r"(?:comporta|proxy|providers|policies|bench|tests|docs|config)/[\w./-]*")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in markdown.links(path):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{target} is not there"
        assert not anchor or anchor in markdown.anchors(found), f"{target}: no such heading"


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_file_that_is_named_exists(path: Path) -> None:
    for span in markdown.code_spans(path):
        if _PATH.fullmatch(span):
            assert (ROOT / span).exists(), f"{span} is not there"


@pytest.mark.parametrize("block", markdown.blocks("yaml"), ids=str)
def test_every_configuration_is_valid(block: Block, plug_ins: Path, tmp_path: Path) -> None:
    """With the example plug-ins installed, whose settings their pages show."""
    file = tmp_path / "gateway.yaml"
    file.write_text(block.text, encoding="utf-8")
    loaded = load(file, {}, {}, probe=lambda _host, _port: False)
    assert set(loaded.settings.model_dump()) >= set(yaml.safe_load(block.text))


@pytest.mark.parametrize("block", markdown.blocks("python"), ids=str)
def test_every_piece_of_python_parses(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.parametrize("block", markdown.blocks("json"), ids=str)
def test_every_piece_of_json_parses(block: Block) -> None:
    json.loads(block.text)


def test_every_block_is_in_a_language_that_is_checked_here_or_shows_no_code() -> None:
    found = set(re.findall(r"^```(\w+)$", "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS), re.MULTILINE))
    assert found <= {"python", "yaml", "json", "sh", "js", "toml"}


@pytest.mark.parametrize("block", markdown.blocks("toml"), ids=str)
def test_every_piece_of_toml_parses(block: Block) -> None:
    tomllib.loads(block.text)


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {(place, found) for place, line in markdown.commands() for found in re.findall(r"\bmake ([a-z-]+)\b", line)}
    assert {"run", "test", "demo"} <= {name for _, name in named}
    assert not [(place, name) for place, name in named if name not in targets]


def _comporta_commands() -> list[tuple[str, list[str]]]:
    found = []
    for place, line in markdown.commands():
        if re.match(r"(?:\S+/)?comporta (?:[a-z]|--)", line):
            found.append((place, shlex.split(line.split("|")[0].split(">")[0])[1:]))
    return found


def test_every_comporta_command_exists() -> None:
    shown = _comporta_commands()
    assert len(shown) > 4
    for place, words in shown:
        check_command(main, words, place)


def check_command(command: click.Command, words: Sequence[str], place: str) -> None:
    if isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"{place}: there is no {words[0]!r}"
        check_command(found, words[1:], place)
        return
    options = {name for parameter in command.params for name in parameter.opts}
    for word in words:
        assert not word.startswith("--") or word in options | {"--help"}, f"{place}: {command.name} has no {word}"


# --------------------------------------------------------------------------------------------------------------- single documents
def test_the_life_of_a_request_names_every_policy_of_the_lists_in_their_order() -> None:
    text = markdown.prose(LIFE)
    headings = re.findall(r"^## .*$", text, re.MULTILINE)
    places = []
    for name in dict.fromkeys((*PER_REQUEST, *PER_ATTEMPT)):
        place = next((index for index, heading in enumerate(headings) if f"`{name}`" in heading), None)
        assert place is not None, f"no heading for {name}"
        places.append(place)
    assert places == sorted(places)


def test_the_table_of_faults_names_every_kind_of_failure() -> None:
    spans = set(markdown.code_spans(FAULTS))
    assert set(UPSTREAM_KINDS) <= spans, sorted(set(UPSTREAM_KINDS) - spans)


@pytest.mark.parametrize("protocol", [LLMProvider, StreamDecoder])
def test_the_page_on_providers_names_every_member_of_their_protocols(protocol: type) -> None:
    spans = {re.sub(r"\(.*", "", span) for span in markdown.code_spans(ROOT / "docs" / "add_a_provider.md")}
    members = {
        *inspect.get_annotations(protocol),
        *(name for name in vars(protocol) if not name.startswith("_") and callable(vars(protocol)[name])),
    }
    assert members
    assert members <= spans, members - spans


def test_the_kinds_and_statuses_of_the_faults_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (yes|no) \|", FAULTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert {kind: (int(status), again == "yes") for kind, status, again in rows} == {
        kind: (status, retryable) for kind, (status, _, retryable) in UPSTREAM_KINDS.items()
    }


def test_the_codes_that_the_readme_lists_are_those_of_failures_with_that_status() -> None:
    rows = re.findall(r"^\| (50[24]) \| ([^|]+) \| the provider's \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = {(int(status), code) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    failures = [UpstreamError(kind, "") for kind in UPSTREAM_KINDS if not kind.startswith("stream_")]
    late = until_code()
    assert listed == {(error.status, error.code) for error in [*failures, late] if error.status in (502, 504)}


def until_code() -> GatewayError:
    """What the timeout policy says of a deadline that has passed."""
    with pytest.raises(CapacityError) as caught:
        until(Timeouts(), 0.0)
    return caught.value


def test_the_readme_names_every_metric_that_there_is(simulated_metrics: set[str]) -> None:
    spans = set(markdown.code_spans(ROOT / "README.md"))
    ours = {name for name in simulated_metrics if name.startswith(("llm_", "comporta_"))}
    assert ours <= spans, sorted(ours - spans)


@pytest.fixture
def simulated_metrics(simulated: Gateway) -> set[str]:
    found = simulated.metrics()
    return {re.sub(r"_(bucket|sum|count|created)$", "", name) for name, _ in found}
