"""The image holds what the wheel holds, and runs as the documents say; how a Dockerfile is written well is the linter's affair."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
INSTRUCTIONS = [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in TEXT.splitlines() if line.strip())]
STAGES = [index for index, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM"]
RUNTIME = INSTRUCTIONS[STAGES[-1] :]


def _copied_from_here() -> list[str]:
    lines = [rest for name, rest in INSTRUCTIONS if name == "COPY" and not rest.startswith("--from")]
    return [source for line in lines for source in line.split()[:-1]]


def _last(name: str) -> str:
    return [rest for found, rest in RUNTIME if found == name][-1]


def test_all_that_is_copied_exists_and_is_let_through() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    assert let_through == set(_copied_from_here())
    assert [source for source in _copied_from_here() if not (ROOT / source).exists()] == []


def test_what_the_wheel_is_built_of_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = [*project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"], *project["project"]["license-files"]]
    readme = project["project"].get("readme")
    assert {*named, *([readme] if readme else [])} <= set(_copied_from_here())


def test_the_base_is_one_version_that_the_project_supports() -> None:
    bases = {INSTRUCTIONS[index][1].split()[0] for index in STAGES}
    assert len(STAGES) == 2
    assert len(bases) == 1
    version = re.fullmatch(r"python:3\.(\d+)-slim-\w+", bases.pop())
    assert version is not None and int(version[1]) >= 11


def test_dependencies_are_installed_by_their_hashes() -> None:
    installs = [step for name, rest in INSTRUCTIONS if name == "RUN" for step in rest.split("&&") if " install " in step]
    assert len(installs) == 3
    assert all("--require-hashes" in step or "--no-index" in step for step in installs)


def test_it_runs_as_a_numbered_user_that_is_not_root() -> None:
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", _last("USER"))


def test_the_process_gets_the_signals_and_tells_its_health() -> None:
    assert json.loads(_last("ENTRYPOINT"))[0].endswith("/comporta")
    assert _last("STOPSIGNAL") == "SIGTERM"
    command = json.loads(_last("HEALTHCHECK").partition(" CMD ")[2])
    assert "/healthz" in command[-1]
    assert f"'127.0.0.1', {_last('EXPOSE')}," in command[-1]
    assert f":{_last('EXPOSE')}" in _last("ENV")


def test_nothing_in_it_looks_like_a_secret() -> None:
    assert not re.search(r"(?i)(api_key|secret|token|password)\w*\s*=", TEXT)
    assert "ARG" not in {name for name, _ in INSTRUCTIONS}
