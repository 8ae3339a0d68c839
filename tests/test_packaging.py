"""What is published: the locks agree with the metadata, and the wheel holds what it should, installs alone, and runs."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
import urllib.request
import venv
import zipfile
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / ".ci" / "requirements"
PACKAGES = ("comporta", "proxy", "providers", "policies")
# Brotli and keyring are used where they are installed. Pydantic pins its core exactly and documents imports from it.
UNDECLARED = {"brotli", "keyring", "pydantic_core"}


def _project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _locked(name: str) -> dict[str, list[Requirement]]:
    """The pins of a lock by canonical name. A package may be pinned once for each range of Python versions."""
    pins: dict[str, list[Requirement]] = {}
    for line in (LOCKS / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "#", "-")):
            pin = Requirement(line.removesuffix("\\").strip())
            pins.setdefault(_canonical(pin.name), []).append(pin)
    return pins


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version_of(pin: Requirement) -> Version:
    return Version(next(iter(pin.specifier)).version)


def _environment() -> dict[str, str]:
    """The environment without what would let this checkout, its virtual environment or the coverage of the tests into another's."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "COV", "OPENAI_", "COMPORTA_"))
    }
    return {**inherited, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("lock", ["run.txt", "dev.txt"])
def test_each_dependency_is_locked_within_its_bounds(lock: str) -> None:
    project = _project()["project"]
    assert isinstance(project, dict)
    pins = _locked(lock)
    for wanted in map(Requirement, project["dependencies"]):
        assert pins.get(_canonical(wanted.name)), f"{wanted.name} is not in {lock}: run `make lock`"
        assert all(wanted.specifier.contains(_version_of(pin)) for pin in pins[_canonical(wanted.name)]), wanted


@pytest.mark.parametrize("lock", ["run.txt", "build.txt", "dev.txt"])
def test_every_pin_is_exact_and_has_hashes(lock: str) -> None:
    text = (LOCKS / lock).read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=\S)", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    assert blocks
    for block in blocks:
        assert re.match(r"[A-Za-z0-9._-]+==\S+", block.strip()), block
        assert "--hash=sha256:" in block, block


def test_what_is_imported_is_declared() -> None:
    """Nothing is used that only comes along with something else."""
    project = _project()["project"]
    assert isinstance(project, dict)
    declared = {_canonical(Requirement(text).name) for text in project["dependencies"]}
    owners = packages_distributions()
    imported = {module for package in PACKAGES for path in (ROOT / package).rglob("*.py") for module in _imported_modules(path)}
    foreign = imported - set(sys.stdlib_module_names) - set(PACKAGES)
    undeclared = {module for module in foreign if not {_canonical(owner) for owner in owners.get(module, [])} & declared}
    assert undeclared <= UNDECLARED


def _imported_modules(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level and node.module}
    return {name.split(".")[0] for name in plain | named}


def test_what_is_tested_is_what_is_run() -> None:
    run, dev = _locked("run.txt"), _locked("dev.txt")
    # Markers of one package name what wants it, which differs; where this runs, the pins must be the same.
    assert {name: _here(pins) for name, pins in run.items()} == {name: _here(dev[name]) for name in run}


def _here(pins: list[Requirement]) -> list[str]:
    return [str(pin.specifier) for pin in pins if pin.marker is None or pin.marker.evaluate()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    sources = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert sources <= set(names)


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    fields = Parser().parsestr(archive.read(metadata).decode())
    version = (ROOT / "proxy" / "__init__.py").read_text(encoding="utf-8").split('"')[-2]
    assert (fields["Name"], fields["Version"], fields["License-Expression"]) == ("comporta", version, "Apache-2.0")
    assert fields["Requires-Python"] == ">=3.11"
    entry_points = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert "comporta = comporta.cli:main" in entry_points
    assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The folder of commands of an environment that holds the wheel and its locked dependencies, and nothing else."""
    home = wheel.parent / "environment"
    venv.create(home, with_pip=True)
    commands = home / ("Scripts" if sys.platform == "win32" else "bin")
    _run(commands / "python", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", LOCKS / "run.txt", cwd=home)
    _run(commands / "python", "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=home)
    return commands


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_installed_wheel_needs_nothing_more(installed: Path) -> None:
    assert "No broken requirements" in _run(installed / "python", "-m", "pip", "check", cwd=installed)
    version = (ROOT / "proxy" / "__init__.py").read_text(encoding="utf-8").split('"')[-2]
    assert version in _run(installed / "comporta", "--version", cwd=installed)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_installed_command_serves_and_stops(installed: Path) -> None:
    command = [str(installed / "comporta"), "serve", "--json", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=installed, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate(timeout=30)[1]
            ready = json.loads(line)
            body = json.dumps({"model": "sim", "messages": [{"role": "user", "content": "hello"}]}).encode()
            request = urllib.request.Request(f"{ready['listen']}/v1/chat/completions", body, {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert json.load(answer)["choices"][0]["message"]["content"]
        finally:
            process.send_signal(signal.SIGTERM)
            _, logs = process.communicate(timeout=30)
    assert process.returncode == 0, logs
    records = [json.loads(line) for line in logs.splitlines()]
    assert [record["status"] for record in records if record.get("event") == "request"] == [200]
