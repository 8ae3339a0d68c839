"""A PostgreSQL of the tests' own: its programs as Debian installs them, its data in a folder of /tmp, a free port."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

_USER = "comporta"


def _program(name: str) -> str:
    """Debian keeps most of them out of PATH."""
    places = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", "")]))
    assert found, f"{name} is not installed: run 'make system'"
    return found


class PostgreSQL:
    """One server. It refuses to run as root, so that root becomes another user first."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="comporta-pg-"))
        self._as: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._data = self._folder / "data"
        self._run("initdb", "-D", self._data, "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C")
        self._databases = 0

    def start(self) -> PostgreSQL:
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-t", "60", "-l", self._folder / "log", "-o", options, "start")
        return self

    def restart(self) -> None:
        """Have it run, whether it does or not."""
        if not (self._data / "postmaster.pid").exists():
            self.start()

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def create(self) -> str:
        """A new database's URL."""
        self._databases += 1
        name = f"test_{self._databases}"
        self._run("createdb", "-h", "127.0.0.1", "-p", self.port, "-U", _USER, name)
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{name}"

    def remove(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: object) -> None:
        command = [*self._as, _program(program), *map(str, arguments)]
        # Its output goes to a file: the server that pg_ctl starts would hold a pipe open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=90, check=False
            )
            output.seek(0)
            assert done.returncode == 0, output.read().decode()
