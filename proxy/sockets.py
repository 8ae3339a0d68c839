"""Listening sockets: made here, or handed over by whoever started the process."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import MutableMapping

#: Connections that wait to be accepted.
_BACKLOG = 4096

#: systemd's first file descriptor, https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html
_FIRST = 3

#: What the sockets are for, in the order in which they are handed over; `FileDescriptorName=` may say otherwise.
ROLES = ("data", "admin")


def bind(host: str, port: int, *, shared: bool = False, backlog: int = _BACKLOG) -> socket.socket:
    """A listening socket. Port 0 takes any free one. `shared`: further sockets may listen there too, and connections are dealt out to them.

    Raises OSError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.setblocking(False)
        found.bind((host, port))
        found.listen(backlog)
    except OSError:
        found.close()
        raise
    return found


def bind_several(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` sockets that listen at one address. Raises OSError, also where somebody else shares that address already."""
    with bind(host, port) as alone:
        port = alone.getsockname()[1]
    found: list[socket.socket] = []
    try:
        for _ in range(count):
            found.append(bind(host, port, shared=True))
    except OSError:
        for each in found:
            each.close()
        raise
    return found


def is_exposed(listening: socket.socket) -> bool:
    """Whether other machines can reach a listening socket, whoever has made it."""
    if listening.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return not ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def handed_over(environ: MutableMapping[str, str], *, pid: int | None = None, first: int = _FIRST) -> dict[str, socket.socket]:
    """The sockets that systemd (or whoever speaks its protocol) has opened for this process, by role.

    The variables are taken out of `environ`: they are not for children. Raises OSError for a descriptor that is no listening socket.
    """
    count, meant = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if not count.isdigit() or meant != str(os.getpid() if pid is None else pid):
        return {}
    found: dict[str, socket.socket] = {}
    for index in range(int(count)):
        opened = socket.socket(fileno=first + index)
        opened.set_inheritable(False)
        opened.setblocking(False)
        if opened.type != socket.SOCK_STREAM or not opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            opened.close()
            raise OSError(f"file descriptor {first + index} was handed over, and is no listening socket")
        name = names[index] if index < len(names) else ""
        role = name if name in ROLES else ROLES[min(index, len(ROLES) - 1)]
        found[role] = opened
    return found
