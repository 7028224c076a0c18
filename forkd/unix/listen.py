"""Listening sockets: bind them, and take a unix path over from whoever left a socket there.

A unix socket is always bound under a temporary name in its folder and renamed to its path when it
listens: whoever connects to the path finds a server behind it at every moment.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass

from ..address import Address
from .user import Identity

UCRED = "iII"  # struct ucred of SO_PEERCRED: pid, uid, gid (unix(7))


@dataclass(frozen=True, slots=True)
class Occupant:
    """Who listens at a unix path, and whose file it is."""

    pid: int
    """Of the process that called listen(); it may have ended, and its children still accept."""
    owner: int
    """uid that the file belongs to."""


class UnixSocket:
    """A listening unix socket that ``publish`` puts at its path."""

    def __init__(
        self, path: str, backlog: int, mode: int | None = None, owner: Identity | None = None
    ) -> None:
        """Bind beside *path*.  *mode* None: what the umask leaves.  Raises OSError."""
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._hidden = ""
        self._made: os.stat_result | None = None
        try:
            self._bind(backlog, mode, owner)
        except BaseException:
            self.close()
            raise

    def _bind(self, backlog: int, mode: int | None, owner: Identity | None) -> None:
        folder, name = os.path.split(self.path)
        hidden = os.path.join(folder, f".fk{self.socket.fileno()}-{os.getpid()}")
        dir_fd = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # By the folder's descriptor: sun_path has room for 107 bytes only (unix(7)).
            short = f"/proc/self/fd/{dir_fd}/{os.path.basename(hidden)}"
            with suppress(FileNotFoundError):
                os.unlink(short)
            before = os.umask(0o177) if mode is not None else None
            try:
                self.socket.bind(short)
            finally:
                if before is not None:
                    os.umask(before)
        finally:
            os.close(dir_fd)
        self._hidden = hidden
        if owner is not None:
            os.chown(hidden, owner.uid, owner.gid)
        if mode is not None:
            os.chmod(hidden, mode)
        self.socket.listen(backlog)
        self._made = os.stat(hidden)

    def publish(self) -> None:
        """Put the socket at its path, in place of what is there; once.  Raises OSError."""
        if self._hidden:
            os.rename(self._hidden, self.path)
            self._hidden = ""

    def close(self) -> None:
        """Close the socket, and unlink what is ours: a successor's socket at the path is not."""
        with suppress(OSError):
            if self._hidden:
                os.unlink(self._hidden)
            elif self._made is not None and os.path.samestat(self._made, os.stat(self.path)):
                os.unlink(self.path)
        self._made, self._hidden = None, ""
        self.socket.close()


def occupant(path: str) -> Occupant | None:
    """Who listens at *path*; None when nothing is there or nobody behind it.

    Raises OSError (EEXIST) when a file is there that is not a socket: nothing of ours.
    """
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "is there and is not a socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            _connect(probe, path)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except BlockingIOError:  # its backlog is full: somebody's it is
            return Occupant(0, found.st_uid)
        pid, _, _ = struct.unpack(
            UCRED, probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(UCRED))
        )
    return Occupant(pid, found.st_uid)


def _connect(probe: socket.socket, path: str) -> None:
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        probe.connect(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def bind_unix(
    path: str, backlog: int, mode: int | None = None, owner: Identity | None = None
) -> UnixSocket:
    """A unix socket that is to listen at *path*; nothing changes there before its ``publish``.

    Raises OSError, EADDRINUSE when somebody listens at the path now.
    """
    if occupant(path) is not None:
        raise OSError(errno.EADDRINUSE, "somebody listens there", path)
    return UnixSocket(path, backlog, mode, owner)


def bind_tcp(address: Address, backlog: int, v6only: bool = True) -> socket.socket:
    """A blocking TCP socket that listens at *address*.  Raises OSError."""
    family, kind, protocol, _, place = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        sock.bind(place)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def defer_accept(sock: socket.socket, seconds: int) -> None:
    """Let TCP connections wait until their first bytes are there, *seconds* at most; 0: not."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, seconds)


def has_waiting(sock: socket.socket) -> bool:
    """Whether a connection waits to be accepted on the listening *sock*."""
    poll = select.poll()  # select() knows no descriptor above 1023
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def refuse_waiting(sock: socket.socket, limit: int = 256) -> int:
    """Accept and close up to *limit* that wait on a non-blocking listening socket; how many."""
    for count in range(limit):
        try:
            sock.accept()[0].close()
        except OSError:
            return count
    return limit
