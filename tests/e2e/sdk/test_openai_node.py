"""The official JavaScript SDK against the gateway: `node/openai.test.mjs` and `node/page.test.mjs`, with the versions of the lock file."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.e2e.sdk.conftest import PAGE, Unconfigured
from tests.support import node
from tests.support.gateway import Gateway
from tests.support.provider_double import ProviderDouble

RUN_SECONDS = 60

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js is no Python package: `make system` installs it")


def test_the_javascript_sdk_works_unmodified(gateway: Gateway, unconfigured: Unconfigured, double: ProviderDouble) -> None:
    _run("openai.test.mjs", {"GATEWAY": f"{gateway.url}/v1", "DOUBLE": double.origin, "SIM": f"{unconfigured.url}/v1"})


def test_the_javascript_sdk_works_in_a_page(gateway: Gateway, double: ProviderDouble) -> None:
    _run("page.test.mjs", {"GATEWAY": f"{gateway.url}/v1", "DOUBLE": double.origin, "PAGE": PAGE})


def _run(tests: str, servers: dict[str, str]) -> None:
    environment = {**os.environ, **servers}
    environment.pop("NODE_OPTIONS", None)
    command = ["node", "--test", "--test-reporter=tap", tests]
    done = subprocess.run(command, cwd=node.installed(), env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    failed = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith("not ok")]
    assert done.returncode == 0, "\n".join([*failed, done.stdout[-12_000:], done.stderr[-2_000:]])
