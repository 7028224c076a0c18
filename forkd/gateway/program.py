"""A CGI program while it runs, and how it is ended.

It may be dismissed at any time: nobody reads its output any more.  It has seen the end of its
input by then and is given a grace time; then its whole process group gets TERM, and later KILL.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Any, Protocol

from gevent import get_hub
from gevent.event import Event

from ..stderr import StderrLines
from ..unix.reap import describe, kill_group

KILL_DELAY = 5.0  # seconds from TERM to KILL
PIPE_SIZE = 65536  # bytes that a pipe holds (pipe(7)): one read takes all

_READ = 1  # libev's EV_READ

log = logging.getLogger(__name__)


class Programs(Protocol):
    """The programs of a worker."""

    def count(self) -> int:
        """How many run, in all workers."""

    def add(self, program: Program) -> None:
        """It runs: to be ended when the worker ends."""

    def discard(self, program: Program) -> None:
        """It has ended, and all its group."""


class Program:
    """Process *pid*, a child of ours that leads a group.  It is reaped here.

    *name* is for the log; *stderr* the reading end of its standard error, ours from here, or -1.
    *on_end* is called once, when it has ended, was dismissed, and nothing of its group is left.
    Raises OSError when a descriptor is lacking: it is killed then.
    """

    __slots__ = (
        "_grace",
        "_on_end",
        "_pidfd",
        "_signalled",
        "_stderr",
        "_timer",
        "_watcher",
        "ended",
        "is_dismissed",
        "name",
        "pid",
        "status",
    )

    def __init__(
        self, pid: int, name: str, grace: float, stderr: int, on_end: Callable[[Program], None]
    ) -> None:
        self.pid = pid
        self.name = f"{name} pid {pid}"
        self.status = 0
        """Its exit status or minus the number of a signal, when ``ended`` is set."""
        self.ended = Event()
        """Set by itself from ``watch`` on, else by ``wait`` or ``dismiss``."""
        self.is_dismissed = False
        self._grace = grace
        self._on_end = on_end
        self._signalled = False
        self._timer: Any = None
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            _kill(pid)
            raise
        self._stderr = _Stderr(self.name, stderr) if stderr >= 0 else None
        self._watcher: Any = None

    def __str__(self) -> str:
        return self.name

    def watch(self) -> None:
        """Notice its end as it comes."""
        if self._watcher is None and not self.ended.is_set():
            self._watcher = get_hub().loop.io(self._pidfd, _READ)
            self._watcher.start(self._exited)

    def wait(self, timeout: float) -> bool:
        """Until it has ended, at most *timeout* seconds; whether it has."""
        return self._has_ended() or bool(self.ended.wait(timeout))

    def dismiss(self) -> None:
        """Nobody waits for its output any more; its input has ended."""
        if self.is_dismissed:
            return
        self.is_dismissed = True
        if self._has_ended():
            self._bury()
        elif not self._signalled:
            self._after(self._grace, self.terminate)

    def signal(self, number: int) -> None:
        """To the whole group."""
        if self._pidfd >= 0:
            kill_group(self.pid, number)

    def terminate(self) -> None:
        """TERM now, KILL later."""
        if not self._signalled:
            self._signalled = True
            self.signal(signal.SIGTERM)
            self._after(KILL_DELAY, self.kill)

    def kill(self) -> None:
        self._signalled = True
        self.signal(signal.SIGKILL)

    def _after(self, delay: float, act: Callable[[], None]) -> None:
        self._cancel()
        self._timer = get_hub().loop.timer(delay)
        self._timer.start(act, update=True)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _has_ended(self) -> bool:
        """Most have, when somebody asks: a watcher is for those that have not."""
        if self.ended.is_set():
            return True
        # Not reaped yet: others of its group may hold its output, and the number is theirs too.
        found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if found is None:
            self.watch()
            return False
        self.status = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        if self.status < 0 and not self._signalled:
            log.warning("%s: died, %s", self.name, describe(self.status))
        self._unwatch()
        self.ended.set()
        return True

    def _unwatch(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None

    def _exited(self) -> None:
        if self._has_ended() and self.is_dismissed:
            self._bury()

    def _bury(self) -> None:
        """Reap it; what is left of its group goes with it."""
        self._cancel()
        _kill(self.pid)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._stderr is not None:
            self._stderr.close()
        self._on_end(self)


def _kill(leader: int) -> None:
    """KILL a group and reap its leader."""
    kill_group(leader, signal.SIGKILL)
    os.waitpid(leader, 0)


class _Stderr:
    """What a program says on standard error goes to the error log, line by line."""

    __slots__ = ("_fd", "_lines", "_name", "_watcher")

    def __init__(self, name: str, fd: int) -> None:
        self._name = name
        self._fd = fd
        self._lines: StderrLines | None = None
        os.set_blocking(fd, False)
        self._watcher: Any = get_hub().loop.io(fd, _READ)
        self._watcher.start(self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, PIPE_SIZE)
        except BlockingIOError:
            return
        if not data:
            self._end()
            return
        if self._lines is None:
            self._lines = StderrLines()
        self._log(self._lines.feed(data, time.monotonic()))

    def _log(self, lines: list[str]) -> None:
        for line in lines:
            log.warning("%s: %s", self._name, line)

    def _end(self) -> None:
        if self._lines is not None:
            self._log(self._lines.end(time.monotonic()))
        self._watcher.close()
        os.close(self._fd)
        self._fd = -1

    def close(self) -> None:
        """Log what is there, and read no more."""
        if self._fd >= 0:
            self._readable()
        if self._fd >= 0:
            self._end()
