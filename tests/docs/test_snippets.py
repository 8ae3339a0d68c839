"""What the README shows does what it says: its snippets run, as they stand, against a started gateway."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import markdown
from tests.support import node
from tests.support.gateway import ROOT, Gateway
from tests.support.raw_client import chat

README = ROOT / "README.md"
SHOWN = "http://127.0.0.1:8080"


def snippet(gateway: Gateway, language: str, word: str) -> str:
    """The README's one block in this language that has the word in it, pointed at the gateway."""
    found = [block for block in markdown.blocks(language, of=README) if word in block.text]
    assert len(found) == 1, found
    assert SHOWN in found[0].text
    return found[0].text.replace(SHOWN, gateway.url)


def run(command: list[str], cwd: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "NODE_OPTIONS"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is no Python package: `make system` installs it")
def test_the_curl_snippet(simulated: Gateway) -> None:
    out = run(["bash", "-c", snippet(simulated, "sh", "curl")])
    assert out.startswith("data: {")
    assert out.endswith("data: [DONE]\n\n")


def test_the_python_snippet(simulated: Gateway) -> None:
    assert "simulated" in run([sys.executable, "-c", snippet(simulated, "python", "OpenAI(")])


@pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js is no Python package: `make system` installs it")
def test_the_node_snippet(simulated: Gateway) -> None:
    script = snippet(simulated, "js", "OpenAI(")
    assert "simulated" in run(["node", "--input-type=module", "-e", script], cwd=node.installed())


def test_the_error_that_is_shown(simulated: Gateway) -> None:
    shown = next(block.text for block in markdown.blocks("json", of=README) if "model_not_found" in block.text)
    request = '{"model": "simm", "messages": []}'
    command = ["curl", "-s", f"{simulated.url}/v1/chat/completions", "-H", "content-type: application/json", "-d", request]
    if shutil.which("curl") is None:
        pytest.skip("curl is no Python package: `make system` installs it")
    assert run(command) == shown.strip().replace('": ', '":').replace(', "', ',"')


def test_the_record_of_an_error_is_written_before_its_answer(simulated: Gateway) -> None:
    """docs/life_of_a_request.md says so. Where that changes, the page does."""
    answer = chat(simulated.url, "simm")
    assert answer.status == 404
    assert simulated.record_of(answer)["bytes_out"] == 0
