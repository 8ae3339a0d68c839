"""Listening sockets: made here, or handed over by whoever started the process."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import MutableMapping, Sequence

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

    A name that is a role says what a socket is for; the others are for what is left, in their order. The variables are taken out of
    `environ`: they are not for children. Raises OSError for a descriptor that is no listening socket, and for sockets that nothing is for.
    """
    count, meant = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if not count.isdigit() or meant != str(os.getpid() if pid is None else pid):
        return {}
    roles = _roles([names[index] if index < len(names) else "" for index in range(int(count))])
    return {role: _taken(first + index) for index, role in enumerate(roles)}


def _roles(names: Sequence[str]) -> list[str]:
    """What each socket is for. Raises OSError where two are for the same, and where there are more than there are roles."""
    named = [name for name in names if name in ROLES]
    free = [role for role in ROLES if role not in named]
    if twice := next((role for role in ROLES if named.count(role) > 1), None):
        raise OSError(f"several of the sockets that were handed over are named {twice}: one is for each of {', '.join(ROLES)}")
    if len(names) > len(ROLES):
        raise OSError(f"{len(names)} sockets were handed over: one is for each of {', '.join(ROLES)}, and nothing for the others")
    return [name if name in ROLES else free.pop(0) for name in names]


def _taken(descriptor: int) -> socket.socket:
    opened = socket.socket(fileno=descriptor)
    opened.set_inheritable(False)
    opened.setblocking(False)
    if opened.type != socket.SOCK_STREAM or not opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        opened.close()
        raise OSError(f"file descriptor {descriptor} was handed over, and is no listening socket")
    return opened
