"""The JavaScript packages of the tests, installed once, however many processes want them."""

from __future__ import annotations

import fcntl
import json
import subprocess
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "e2e" / "sdk" / "node"
INSTALL_SECONDS = 100


def installed() -> Path:
    """The folder with the locked packages in it: `npm ci --prefix tests/e2e/sdk/node`, unless they are there already."""
    locked = json.loads((FOLDER / "package-lock.json").read_text())["packages"]["node_modules/openai"]["version"]
    found = FOLDER / "node_modules" / "openai" / "package.json"
    with (FOLDER / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists() or json.loads(found.read_text())["version"] != locked:
            command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
            assert done.returncode == 0, f"npm ci failed:\n{done.stdout}\n{done.stderr}"
    return FOLDER
