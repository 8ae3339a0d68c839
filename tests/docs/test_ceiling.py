"""The example of docs/add_a_policy.md."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import policies
from comporta import Call, ClientError, Reply, Services, Usage
from proxy.core.clock import SystemClock
from proxy.core.metrics import Registry
from proxy.pipeline import INSTALLED, PER_ATTEMPT, PER_REQUEST, compose
from tests.docs.conftest import EXAMPLES
from tests.support.gateway import ROOT


async def _no_body(_call: Call) -> None:
    """The tests bring the body."""


def call_with(**body: Any) -> Call:
    return Call("req_1", "chat", "POST", "/chat/completions", "", {}, 0.0, _no_body, body=body)


@dataclass
class Bench:
    """The policy around a handler that answers 200."""

    registry: Registry = field(default_factory=Registry)
    seen: list[Call] = field(default_factory=list)

    async def run(self, call: Call, **settings: Any) -> Reply:
        kind = policies.kinds()["ceiling"]
        policy = kind(kind.Settings(**settings), Services(SystemClock(), self.registry, lambda _fields: None))
        return await compose([policy], self._answer)(call)

    async def _answer(self, call: Call) -> Reply:
        self.seen.append(call)
        reply = Reply(200, body=b"{}")
        reply.on_close(lambda _error: setattr(call, "usage", Usage(completion=7, reported=True)))
        return reply

    def tokens(self, kind: str) -> float:
        return self.registry.counters["ceiling_tokens_total"].labels(kind).value


@pytest.fixture
def bench(plug_ins: Path) -> Bench:
    return Bench()


@pytest.fixture
def ceiling(plug_ins: Path) -> ModuleType:
    return sys.modules[policies.kinds()["ceiling"].__module__]


async def test_it_refuses_what_asks_for_too_much(bench: Bench) -> None:
    with pytest.raises(ClientError) as caught:
        await bench.run(call_with(max_tokens=101), max_tokens=100)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "max_tokens", "ceiling_exceeded")
    assert not bench.seen, "a provider was asked"


@pytest.mark.parametrize("body", [{"max_tokens": 100}, {"max_completion_tokens": 1}, {}, {"max_tokens": None}, {"max_tokens": "many"}])
async def test_it_lets_through_what_does_not(bench: Bench, body: dict[str, Any]) -> None:
    reply = await bench.run(call_with(**body), max_tokens=100)
    assert reply.headers["x-ceiling-max-tokens"] == "100"
    assert len(bench.seen) == 1


async def test_it_counts_when_the_answer_is_over(bench: Bench) -> None:
    reply = await bench.run(call_with(max_tokens=100))
    assert bench.tokens("asked") == 0
    reply.close()
    reply.close()
    assert (bench.tokens("asked"), bench.tokens("written")) == (100, 7)


def test_the_newer_spelling_goes_first(ceiling: ModuleType) -> None:
    assert ceiling.asked_for({"max_tokens": 1, "max_completion_tokens": 2}) == ("max_completion_tokens", 2)


def test_an_installed_policy_can_be_configured(plug_in_folder: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("policies: {ceiling: {max_tokens: 100}}\n")
    bad.write_text("policies: {ceiling: {max_token: 100}}\n")
    assert check(good, plug_in_folder).returncode == 0
    refused = check(bad, plug_in_folder)
    assert refused.returncode == 2
    assert "max_tokens" in refused.stderr, "the nearest key is not named"


def check(file: Path, plug_in_folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "comporta", "check", str(file)]
    return subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(plug_in_folder)}, capture_output=True, text=True, check=False)


def test_the_page_says_where_installed_policies_stand(plug_ins: Path) -> None:
    """An installed policy runs where the lists have their mark, and the page says so."""
    assert set(policies.kinds()) - set(policies.BUILT_IN) == {"ceiling"}
    assert INSTALLED in PER_REQUEST and INSTALLED in PER_ATTEMPT
    assert "`INSTALLED`" in (ROOT / "docs" / "add_a_policy.md").read_text(encoding="utf-8")


def test_the_page_shows_the_example_whole() -> None:
    page = (ROOT / "docs" / "add_a_policy.md").read_text(encoding="utf-8")
    source = (EXAMPLES / "ceiling" / "ceiling.py").read_text(encoding="utf-8")
    assert source.partition("from __future__")[2] in page
