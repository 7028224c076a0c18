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
    kind: int = socket.SOCK_STREAM
    """Of its socket; that or SOCK_SEQPACKET."""


@dataclass(frozen=True, slots=True)
class PlaceRecord:
    """What is ours of a unix socket's file, for a program that goes on in this process."""

    path: str
    hidden: str = ""
    """Where it is bound, until it is published."""
    device: int = 0
    inode: int = 0


class UnixSocket:
    """A listening unix socket that ``publish`` puts at its path."""

    def __init__(
        self,
        path: str,
        backlog: int,
        mode: int | None = None,
        owner: Identity | None = None,
        kind: int = socket.SOCK_STREAM,
    ) -> None:
        """Bind beside *path*.  *mode* None: what the umask leaves.  Raises OSError."""
        self._hold(path, socket.socket(socket.AF_UNIX, kind))
        try:
            self._bind(backlog, mode, owner)
        except BaseException:
            self.close()
            raise

    @classmethod
    def restore(cls, record: PlaceRecord, sock: socket.socket) -> UnixSocket:
        """*sock* with the file that the program before this one made for it."""
        self = cls.__new__(cls)
        self._hold(record.path, sock, record.hidden)
        self._made = (record.device, record.inode)
        return self

    def snapshot(self) -> PlaceRecord:
        return PlaceRecord(self.path, self._hidden, *(self._made or (0, 0)))

    def _hold(self, path: str, sock: socket.socket, hidden: str = "") -> None:
        self.path = path
        self.socket = sock
        self._hidden = hidden
        self._made: tuple[int, int] | None = None

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
        self._made = _identity(hidden)

    def publish(self) -> None:
        """Put the socket at its path, in place of what is there; once.  Raises OSError."""
        if self._hidden:
            os.rename(self._hidden, self.path)
            self._hidden = ""

    def replace(self, before: UnixSocket) -> None:
        """Take the place of *before*, at the path or beside it, and close that.  Raises OSError."""
        try:
            if not before._hidden and before._made == _identity(self.path):
                self.publish()
        except OSError:
            self.close()
            raise
        before.close()

    def change_mode(self, mode: int) -> None:
        """Of the file at its path, if that is ours.  Raises OSError, also when none is there."""
        if self._made == _identity(self.path):
            os.chmod(self.path, mode)

    def close(self) -> None:
        """Close the socket, and unlink what is ours: a successor's socket at the path is not."""
        with suppress(OSError):
            if self._hidden:
                os.unlink(self._hidden)
            elif self._made is not None and self._made == _identity(self.path):
                os.unlink(self.path)
        self._made, self._hidden = None, ""
        self.socket.close()


def _identity(path: str) -> tuple[int, int]:
    """Which file *path* is: (st_dev, st_ino)."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


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
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as probe:
            probe.setblocking(False)
            try:
                _connect(probe, path)
            except (ConnectionRefusedError, FileNotFoundError):
                return None
            except BlockingIOError:  # its backlog is full: somebody's it is
                return Occupant(0, found.st_uid, kind)
            except OSError as error:
                if error.errno == errno.EPROTOTYPE:
                    continue
                raise
            return Occupant(_peer_pid(probe), found.st_uid, kind)
    return Occupant(0, found.st_uid)  # of a kind that takes no connections


def _peer_pid(sock: socket.socket) -> int:
    size = struct.calcsize(UCRED)
    pid, _, _ = struct.unpack(UCRED, sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(pid)


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


def send_at_once(sock: socket.socket) -> None:
    """No TCP connection accepted from *sock* holds small segments back until the other side, which
    may take 40 ms, has acknowledged what went before (RFC 896, RFC 1122 section 4.2.3.2)."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # handed on by accept()


def is_shut(sock: socket.socket) -> bool:
    """Whether some process has called shutdown() on the listening *sock*: it takes no connection.

    A TCP socket is closed then (POLLHUP), a unix socket has ended reading (POLLRDHUP).
    """
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))


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
