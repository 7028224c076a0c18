"""One log: a file, a ``|command``, an inherited descriptor, or the system's log.

Its descriptor keeps its number for as long as it is open: a reopen puts the new file under the old
number, so whoever writes need not be told.  Nothing that happens to a log (a full disk, a dead
command) is an error for its writer: what cannot be written is counted, and said as soon as
something can be written again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import select
import signal
import socket
import stat
import time
from typing import ClassVar

MODE = 0o640  # of a log file that is created
PIPE_BUF = select.PIPE_BUF  # bytes that one write puts into a pipe whole (pipe(7))
STDERR = ""  # the name of the log that goes to standard error

log = logging.getLogger(__name__)


class LogFile:
    """A file that is appended to.  ``fd`` is its owner's until ``close``."""

    def __init__(
        self, name: str, owner: tuple[int, int] | None = None, fd: int | None = None
    ) -> None:
        """Open or create *name*; *owner* is (uid, gid) to give it to.  Raises OSError.

        *fd*: it is open already.
        """
        self.name = name
        self._path = os.path.abspath(name)  # a daemon may have left this folder by a reopen
        self._owner = owner
        self._lost = 0
        self._why = ""
        self.fd = self._open() if fd is None else fd

    def reopen(self) -> None:
        """Put the file that now has this name under ``fd``.  Raises OSError: the old one stays."""
        replace(self.fd, self._open())

    def close(self) -> None:
        os.close(self.fd)

    def write(self, data: bytes) -> int:
        """Append the whole lines *data*; how many bytes were taken, or given up for lost."""
        try:
            taken = self._write(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._lose(len(data), error)
            return len(data)
        self._recover()
        return taken

    def _open(self) -> int:
        return open_log(self._path, self._owner)

    def _write(self, data: bytes) -> int:
        written = os.write(self.fd, data)
        while written < len(data):  # the disk has just become full, or a quota is near
            written += os.write(self.fd, data[written:])
        return written

    def _lose(self, size: int, error: OSError) -> None:
        self._lost += size
        if not self._why:
            self._why = error.strerror or "write failed"
            log.error("log %s: %s; what comes is lost", self.name, self._why)

    def _recover(self) -> None:
        if self._why:
            lost, why = self._lost, self._why
            self._lost, self._why = 0, ""
            log.warning("log %s: writes again; %d bytes lost: %s", self.name, lost, why)


class LogPipe(LogFile):
    """``|command``: a program that the master starts and that reads lines on standard input."""

    def __init__(
        self,
        name: str,
        stderr: int | None = None,
        running: LogPipe | None = None,
        fd: int | None = None,
    ) -> None:
        """*stderr* is the command's; None: nowhere.  *running*: the same one, to be shared."""
        self._stderr = stderr
        self._running = running
        super().__init__(name, fd=fd)

    def reopen(self) -> None:
        """Start the command again if it has died."""
        if self.is_dead:
            super().reopen()

    @property
    def is_dead(self) -> bool:
        poll = select.poll()
        poll.register(self.fd, 0)
        return bool(poll.poll(0))  # POLLERR: nobody holds the reading end

    def _open(self) -> int:
        running, self._running = self._running, None
        if running is not None and not running.is_dead:
            return os.dup(running.fd)
        return spawn_logger(self.name[1:].strip(), self._stderr)

    def _write(self, data: bytes) -> int:
        """In pieces that the pipe takes whole, so that lines of several writers never mix."""
        taken = 0
        while taken < len(data):
            piece = data[taken : taken + PIPE_BUF]
            if len(piece) == PIPE_BUF:
                piece = piece[: piece.rfind(b"\n") + 1] or piece
            try:
                taken += os.write(self.fd, piece)
            except BlockingIOError:
                break
        return taken


class LogInherited(LogFile):
    """Standard error, or another descriptor that the process was given: there is no reopening."""

    def reopen(self) -> None:
        pass

    def _open(self) -> int:
        number = _NUMBERED.fullmatch(self.name)
        return os.dup(_STANDARD[self.name] if number is None else int(number[1]))


_NUMBERED = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,6})")
_STANDARD = {STDERR: 2, "/dev/stderr": 2, "/dev/stdout": 1}


def is_inherited(name: str) -> bool:
    """Whether *name* stands for a descriptor that the process was given."""
    return name in _STANDARD or _NUMBERED.fullmatch(name) is not None


def open_log(name: str, owner: tuple[int, int] | None) -> int:
    """A descriptor that appends to file *name*, created with MODE, never through a symlink."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        fd = os.open(name, flags | os.O_CREAT | os.O_EXCL, MODE)
    except FileExistsError:
        fd = os.open(name, flags | os.O_CREAT, MODE)
    else:
        os.fchmod(fd, MODE)
    try:
        _give_to(fd, name, owner)
    except OSError:
        os.close(fd)
        raise
    return fd


def _give_to(fd: int, name: str, owner: tuple[int, int] | None) -> None:
    if owner is None:
        return
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or (found.st_uid, found.st_gid) == owner:
        return
    # In a folder that others may write to, a second name may be somebody's trap: /etc/shadow.
    if found.st_nlink != 1:
        raise OSError(errno.EMLINK, "has several names (hard links), not taken for a log", name)
    os.fchown(fd, *owner)


def spawn_logger(command: str, stderr: int | None) -> int:
    """Start *command* by the shell, in a group of its own; the non-blocking end that it reads."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    nowhere = (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)
    # Not the caller's: who waits for the end of his own output would wait for the command.
    errors = (os.POSIX_SPAWN_DUP2, 1 if stderr is None else stderr, 2)
    try:
        os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", f"exec {command}"],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, reader, 0), nowhere, errors],
            setpgroup=0,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
        )
    except OSError:
        os.close(writer)
        raise
    finally:
        os.close(reader)
    os.set_blocking(writer, False)
    return writer


def replace(fd: int, new: int) -> None:
    """Put the file of descriptor *new* under the number *fd*; *new* is closed."""
    os.dup2(new, fd, inheritable=False)
    os.close(new)


class Syslog:
    """A connection to /dev/log (RFC 3164).  It never blocks: what is not taken is lost."""

    PATH: ClassVar[str] = "/dev/log"

    def __init__(self, facility: str = "daemon") -> None:
        """*facility*: a name of syslog(3) without ``LOG_``.  Raises ValueError."""
        number = FACILITIES.get(facility)
        if number is None:
            raise ValueError(f"unknown syslog facility {facility!r}")
        self._facility = number << 3
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._connect()

    @property
    def fd(self) -> int:
        return self._socket.fileno()

    def send(self, priority: int, text: str) -> None:
        """One message; *priority* is 0 (emergency) to 7 (debug)."""
        stamp = time.strftime("%b %e %H:%M:%S")
        head = f"<{self._facility | priority}>{stamp} forkd[{os.getpid()}]: "
        data = (head + text).encode("utf-8", "surrogateescape")
        for _ in range(2):  # the second time behind a restart of the system's logger
            try:
                self._socket.send(data)
            except BlockingIOError:
                return
            except OSError:
                self._connect()
            else:
                return

    def close(self) -> None:
        self._socket.close()

    def _connect(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.connect(self.PATH)


FACILITIES = {
    "kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7,
    "uucp": 8, "cron": 9, "authpriv": 10, "ftp": 11,
    **{f"local{number}": 16 + number for number in range(8)},
}  # fmt: skip
