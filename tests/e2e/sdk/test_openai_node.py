"""The official JavaScript SDK against the gateway: `node/openai.test.mjs`, with the versions of its lock file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.sdk.conftest import Unconfigured
from tests.support.gateway import Gateway
from tests.support.provider_double import ProviderDouble

FOLDER = Path(__file__).parent / "node"
INSTALL_SECONDS = 100
RUN_SECONDS = 60

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js is no Python package: `make system` installs it")


@pytest.fixture(scope="module")
def installed() -> Path:
    """The folder with the locked packages in it: `npm ci --prefix tests/e2e/sdk/node`, unless they are there already."""
    locked = json.loads((FOLDER / "package-lock.json").read_text())["packages"]["node_modules/openai"]["version"]
    found = FOLDER / "node_modules" / "openai" / "package.json"
    if not found.exists() or json.loads(found.read_text())["version"] != locked:
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        assert done.returncode == 0, f"npm ci failed:\n{done.stdout}\n{done.stderr}"
    return FOLDER


def test_the_javascript_sdk_works_unmodified(installed: Path, gateway: Gateway, unconfigured: Unconfigured, double: ProviderDouble) -> None:
    environment = {**os.environ, "GATEWAY": f"{gateway.url}/v1", "DOUBLE": double.origin, "SIM": f"{unconfigured.url}/v1"}
    environment.pop("NODE_OPTIONS", None)
    command = ["node", "--test", "--test-reporter=tap", "openai.test.mjs"]
    done = subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    failed = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith("not ok")]
    assert done.returncode == 0, "\n".join([*failed, done.stdout[-12_000:], done.stderr[-2_000:]])
