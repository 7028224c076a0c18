"""The pid file: a number for people, and a lock that says whether the number is true.

The lock is POSIX's (fcntl): it belongs to the process, not to the descriptor, so that no child
inherits it, it survives an exec, and F_GETLK names who holds it.  Its price: a process that closes
*any* descriptor of the file loses the lock, so the master opens its pid file once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import struct
import time
from contextlib import suppress
from dataclasses import dataclass

from ..errors import StartError

MODE = 0o644
FLOCK = "hhqqi0q"  # struct flock: type, whence, start, length, pid


class AlreadyRunning(StartError):
    """Another process holds the lock.  Not a failure for ``start``: exit code 0."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"already running, pid {pid}", 0)
        self.pid = pid


@dataclass(frozen=True, slots=True)
class PidFileRecord:
    """A pid file and its lock, for a program that goes on in this process."""

    path: str
    fd: int


class PidFile:
    """A pid file that this process has locked; its lock ends with the process at the latest."""

    def __init__(self, path: str, fd: int, left_over: bool) -> None:
        self.path = path
        self.left_over = left_over
        """True when the file was there already: the last server with it did not end in order."""
        self._fd = fd

    @classmethod
    def acquire(cls, path: str) -> PidFile:
        """Create or take over *path* and lock it.  Raises AlreadyRunning, OSError."""
        while True:
            fd = _open(path)
            try:
                _lock(fd)
                if _is_still(path, fd):
                    left_over = os.fstat(fd).st_size > 0
                    os.ftruncate(fd, 0)
                    return cls(path, fd, left_over)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # its owner unlinked it between our open and our lock

    @classmethod
    def restore(cls, record: PidFileRecord) -> PidFile:
        """The lock of the program before this one; nothing is opened, see above."""
        return cls(record.path, record.fd, left_over=False)

    def snapshot(self) -> PidFileRecord:
        return PidFileRecord(self.path, self._fd)

    def write(self, pid: int) -> None:
        """Write *pid*.  The last step of a start: people signal as soon as it is there."""
        os.pwrite(self._fd, b"%d\n" % pid, 0)

    def release(self) -> None:
        """Unlink the file if it is still ours, then unlock it."""
        if _is_still(self.path, self._fd):
            with suppress(OSError):
                os.unlink(self.path)
        os.close(self._fd)


def _open(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, MODE)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is not a regular file", path)
    return fd


def _lock(fd: int) -> None:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # EAGAIN, EACCES: fcntl(2) allows either
        raise AlreadyRunning(_owner(fd)) from None


def _owner(fd: int) -> int:
    question = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, question))
    return 0 if kind == fcntl.F_UNLCK else pid


def _is_still(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except OSError:
        return False


def holder(path: str) -> int:
    """The process that holds the lock of *path*; 0 when there is no such file or nobody does.

    Raises OSError when the file cannot be read.  Never for the own pid file: see above.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return 0
    try:
        return _owner(fd)
    finally:
        os.close(fd)


def wait_released(path: str, timeout: float) -> bool:
    """Wait until nobody holds the lock of *path*; False after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while (pid := holder(path)) != 0:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        _wait_for(path, pid, left)
    return True


def _wait_for(path: str, pid: int, timeout: float) -> None:
    """Wait until *pid* has ended, as long as it is the holder: a pid may be reused."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if holder(path) == pid:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(timeout * 1000)
    finally:
        os.close(fd)
