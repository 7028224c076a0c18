"""Become a daemon, and let the caller wait until the daemon is ready or says why not."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the process that was called gets to know about the daemon."""

    status: int
    """0: ready; otherwise the exit status that the daemon asks for."""
    text: str
    """Why it is not ready; the daemon may have said it on standard error already."""


class ReadyPipe:
    """The daemon's end: exactly one of ``ready`` and ``fail`` is called, once."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def ready(self) -> None:
        """Release the caller with status 0, and the terminal with him."""
        to_null(1, 2)
        self._report(0, "")

    def fail(self, status: int, text: str = "") -> None:
        """Release the caller with *status*."""
        self._report(status, text)

    def _report(self, status: int, text: str) -> None:
        with suppress(BrokenPipeError):  # the caller did not wait
            os.write(self.fd, f"{status} {text}".encode("utf-8", "surrogateescape"))
        os.close(self.fd)


def daemonize() -> ReadyPipe | Outcome:
    """Fork twice.  Returns in two processes: a ReadyPipe in the daemon, the Outcome in the caller.

    The daemon leads no session that could get a terminal, stands in ``/``, and reads nothing.  It
    writes to the caller's standard output and error until it is ready.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        os.close(writer)
        os.waitpid(pid, 0)
        return _wait(reader)
    os.close(reader)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    to_null(0)
    return ReadyPipe(writer)


def _wait(reader: int) -> Outcome:
    with open(reader, "rb") as pipe:
        report = pipe.read().decode("utf-8", "surrogateescape")
    if not report:
        return Outcome(1, "the server ended while it was starting")
    status, _, text = report.partition(" ")
    return Outcome(int(status), text)


def to_null(*fds: int) -> None:
    """Let nothing come from these descriptors, and nothing go there."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in fds:
        os.dup2(null, fd)
    if null > 2:
        os.close(null)


def open_standard() -> None:
    """Make sure that 0, 1 and 2 are open: what is opened first must not be taken for a terminal."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def has_terminal() -> bool:
    """Whether this process has a controlling terminal, whose signals it gets."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True
