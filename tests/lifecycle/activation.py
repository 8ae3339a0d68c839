"""What systemd does for a socket-activated service, in small: it opens the sockets, and starts a command with them as often as it is told.

`python -m tests.lifecycle.activation COMMAND...` writes the two ports, then for each line on its standard input starts the
command; a second line tells the running one to stop and starts another when it has ended.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

FIRST = 3


def _start(command: list[str], sockets: list[socket.socket]) -> int:
    pid = os.fork()
    if pid:
        return pid
    # Away from where they are to be, before anything is put there.
    copies = [os.dup2(each.fileno(), 100 + place) for place, each in enumerate(sockets)]
    for place, copy in enumerate(copies):
        os.dup2(copy, FIRST + place, inheritable=True)
    environ = {**os.environ, "LISTEN_FDS": str(len(sockets)), "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "data:admin"}
    os.execve(command[0], command, environ)  # noqa: S606 - the test says which


def main() -> None:
    sockets = [socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(2)]
    for each in sockets:
        sys.stdout.write(f"{each.getsockname()[1]}\n")
    sys.stdout.flush()
    running = 0
    for _line in sys.stdin:
        if running:
            os.kill(running, signal.SIGTERM)
            os.waitpid(running, 0)
        running = _start(sys.argv[1:], sockets)
    if running:
        os.kill(running, signal.SIGTERM)
        os.waitpid(running, 0)


if __name__ == "__main__":
    main()
