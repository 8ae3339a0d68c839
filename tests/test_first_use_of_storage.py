"""Storage that is first used while a gateway serves: its libraries are loaded beside the event loop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# In a process of its own: in this one they are loaded.
SCRIPT = """
import asyncio, contextlib, sys, threading
from pathlib import Path
from proxy.core.clock import SystemClock
from proxy.core.errors import CapacityError
from proxy.gateway import Gateway
from proxy.settings import load

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in ("sqlalchemy", "alembic", "asyncpg"):
            print(name, "in the loop" if threading.current_thread() is threading.main_thread() else "in a thread")

async def main():
    file = Path(sys.argv[1], "gateway.yaml")
    file.write_text("server: {listen: '127.0.0.1:0'}\\nproviders: {sim: {kind: sim}}\\n")
    gateway = Gateway(load(file, {}, {}).settings, environ={"XDG_DATA_HOME": sys.argv[1]}, emit=lambda _event: None)
    await gateway.start()
    sys.meta_path.insert(0, Finder())
    assert (await gateway.keeper()).is_open
    await gateway.stop()
    from proxy.storage.database import Database
    with contextlib.suppress(CapacityError):
        await Database("postgresql://127.0.0.1:1/nobody", SystemClock()).open()

asyncio.run(main())
"""


def test_its_libraries_are_loaded_in_threads(tmp_path: Path):
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], check=False, timeout=60, capture_output=True, text=True)
    assert sorted(done.stdout.splitlines()) == ["alembic in a thread", "asyncpg in a thread", "sqlalchemy in a thread"], done.stderr
