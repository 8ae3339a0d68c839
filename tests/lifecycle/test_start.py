"""What a start loads: what a plain gateway has no use for costs it neither time nor memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.gateway import ROOT

PLAIN = """\
server: {listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0"}
providers: {up: {kind: openai, base_url: "http://127.0.0.1:9/v1"}}
"""

#: What a gateway of one process, with one provider and no storage, serves its first requests without, and who needs it.
UNUSED = {
    "structlog": "lines of the log that people read",
    "rich": "tables of commands",
    "pygments": "rich",
    "prometheus_client": "who asks for /metrics",
    "proxy.administration": "who administers it",
    "proxy.http.api": "who administers it",
    "providers.sim.transport": "who asks the simulated provider",
    "providers.sim.engine": "who asks the simulated provider",
    "proxy.supervisor": "several workers",
    "proxy.keeping": "storage",
    "proxy.storage": "storage",
    "sqlalchemy": "storage",
    "alembic": "storage",
    "aiosqlite": "storage",
    "asyncpg": "storage",
    "proxy.state": "storage that several gateways share",
    "redis": "storage that several gateways share",
    "proxy.vault": "credentials that the gateway keeps itself",
    "cryptography": "credentials that the gateway keeps itself",
    "keyring": "references to a keyring",
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """The modules that a gateway has loaded from its exec to its end, when it was only started."""
    folder = tmp_path_factory.mktemp("start")
    config, log = folder / "comporta.yaml", folder / "log"
    config.write_text(PLAIN)
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("COMPORTA_", "COVERAGE_", "OPENAI_", "OLLAMA_"))}
    environ = {**ours, "XDG_DATA_HOME": str(folder), "PYTHONPROFILEIMPORTTIME": "1"}
    command = [sys.executable, "-m", "comporta", "serve", "--json", "--config", str(config)]
    with log.open("w") as stderr, subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=stderr) as process:
        assert process.stdout is not None
        try:
            assert b'"event":"ready"' in process.stdout.readline(), log.read_text()[-2000:]
        finally:
            process.terminate()
    return frozenset(_modules(log))


def _modules(log: Path) -> list[str]:
    """The names in lines such as `import time:       210 |        210 |   proxy.app`."""
    return [line.rpartition("|")[2].strip() for line in log.read_text().splitlines() if line.startswith("import time:")]


def test_a_start_loads_what_serves(loaded: frozenset[str]):
    assert {"proxy.http.data_plane", "proxy.transport.pool", "providers.openai.provider", "aiohttp", "uvloop"} <= loaded


@pytest.mark.parametrize("module", UNUSED)
def test_a_start_loads_nothing_that_others_need(loaded: frozenset[str], module: str):
    assert [name for name in loaded if name == module or name.startswith(f"{module}.")] == [], f"it is for {UNUSED[module]}"
