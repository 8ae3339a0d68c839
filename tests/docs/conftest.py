"""The example plug-ins, installed as anybody would install them, and a gateway for the snippets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import ROOT, Gateway

EXAMPLES = ROOT / "docs" / "examples"
PLUG_INS = ("ceiling", "murmur")


@pytest.fixture(scope="session")
def plug_in_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds both plug-ins and their entry points, to be put on a path."""
    folder = tmp_path_factory.mktemp("plug-ins")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    command += ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder)]
    command += [str(EXAMPLES / name) for name in PLUG_INS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def plug_ins(plug_in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plug-ins, installed for this process too, for the length of a test."""
    monkeypatch.syspath_prepend(str(plug_in_folder))
    return plug_in_folder


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway as the quick start starts it: with nothing but `sim`."""
    with Gateway({"providers": {}}, tmp_path_factory.mktemp("simulated")) as gateway:
        yield gateway
