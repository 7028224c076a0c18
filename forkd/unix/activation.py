"""Sockets that a service manager has opened for us (sd_listen_fds(3)).

The manager says in the environment how many there are, from descriptor 3 on, and perhaps their
names.  What it says is for this process alone: the variables are taken out, the descriptors closed
on exec.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass

from ..address import Address, canonical
from ..errors import StartError

FIRST = 3  # SD_LISTEN_FDS_START
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


@dataclass(frozen=True, slots=True, eq=False)
class Inherited:
    """One listening socket.  It belongs to its manager: its file, if it has one, is never ours."""

    name: str
    socket: socket.socket
    address: Address
    """Where it is bound; "@…" for an abstract unix socket."""

    def __str__(self) -> str:
        return f"{self.name} ({self.address})" if self.name else str(self.address)


def take(environment: MutableMapping[str, str]) -> tuple[Inherited, ...]:
    """What was handed to this process.  Raises StartError for what does not listen."""
    pid, count, names = (environment.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return ()
    listed = names.split(":") if names else []
    listed += [""] * (int(count) - len(listed))
    return tuple(adopt(FIRST + index, name) for index, name in enumerate(listed[: int(count)]))


def adopt(fd: int, name: str) -> Inherited:
    """The listening stream socket *fd*.  Raises StartError when it is none."""
    try:
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise StartError(f"inherited descriptor {fd}: {error.strerror}") from None
    if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM or not listens:
        sock.detach()
        which = f"{fd}, {name}" if name else str(fd)
        raise StartError(f"inherited descriptor {which}: not a listening TCP or unix socket")
    return Inherited(name, sock, _address(sock))


def _address(sock: socket.socket) -> Address:
    place = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        path = place if isinstance(place, str) else "@" + os.fsdecode(place[1:])
        return Address(path)
    return Address(canonical(place[0]), place[1])
