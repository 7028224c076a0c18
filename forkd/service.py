"""A server seen from outside, by its pid file: is it there, ask it, stop it (admin.md 13).

Whether it runs is what the lock on its pid file says, never the number in it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from . import control, paths
from .unix import pidfile, proctitle

QUIT_PATIENCE = 2.0  # seconds from QUIT to KILL behind a TERM that was not obeyed
QUICK_PATIENCE = 5.0  # seconds from QUIT to KILL when a quick stop was asked for
KILL_PATIENCE = 5.0  # seconds in which the system ends what was killed


class State(Enum):
    """What the pid file says."""

    RUNNING = "running"
    DEAD = "dead, but its pid file is left"
    STOPPED = "not running"


class Refused(Exception):
    """A command could not be carried out; ``exit_code`` as in forkd(8)."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Service:
    """The server that holds, or would hold, the lock on *pid_file*."""

    def __init__(self, pid_file: str) -> None:
        self.pid_file = pid_file
        self.control_socket = paths.control_socket_for(pid_file)

    @property
    def pid(self) -> int:
        """The master's, 0 when there is none.  Raises Refused where that cannot be told."""
        try:
            return pidfile.holder(self.pid_file)
        except OSError as error:
            raise Refused(f"{self.pid_file}: {error.strerror}", 4) from None

    @property
    def state(self) -> State:
        """Raises Refused where that cannot be told."""
        if self.pid:
            return State.RUNNING
        return State.DEAD if os.path.exists(self.pid_file) else State.STOPPED

    def ask(self, do: str, timeout: float, **arguments: object) -> control.Message:
        """The master's answer, one with ``ok`` true.  Raises Refused."""
        try:
            answer = control.ask(self.control_socket, do, timeout, **arguments)
        except control.NotAllowed as error:
            raise Refused(str(error), 4) from None
        except control.ControlError as error:
            raise Refused(str(error)) from None
        if not answer.get("ok"):
            raise Refused(str(answer.get("error") or "refused"), int(answer.get("code") or 1))
        return answer

    def stop(self, patience: float, now: bool = False) -> bool:
        """Stop it; False when it was not running.  Returns when all of it is gone.

        TERM gets *patience* seconds, then comes QUIT, then KILL; *now*: QUIT at once.  Raises
        Refused.
        """
        pid = self.pid
        if not pid:
            return False
        quick = (signal.SIGQUIT, QUICK_PATIENCE if now else QUIT_PATIENCE)
        with self._master(pid) as master:
            for number, wait in (quick,) if now else ((signal.SIGTERM, patience), quick):
                _send(master, number)
                if pidfile.wait_released(self.pid_file, wait):
                    return True
            self._kill(pid, master)
        return True

    @contextlib.contextmanager
    def _master(self, pid: int) -> Iterator[int | None]:
        """A pidfd of the master: a pid is reused, a pidfd is not."""
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            yield None
            return
        try:
            if self.pid == pid and not is_forkd(pid):
                raise Refused(f"{self.pid_file} is locked by process {pid}, which is not forkd")
            yield fd
        finally:
            os.close(fd)

    def _kill(self, pid: int, master: int | None) -> None:
        children = [fd for child in children_of(pid) if (fd := _pidfd(child)) is not None]
        # The master first: it would put others in the place of what ends.
        for fd in (master, *children):
            _send(fd, signal.SIGKILL)
        for fd in children:
            os.close(fd)
        if not pidfile.wait_released(self.pid_file, KILL_PATIENCE):
            raise Refused(f"process {pid} could not be killed")
        self._clear()

    def _clear(self) -> None:
        """Remove what a killed master leaves."""
        with contextlib.suppress(OSError, pidfile.AlreadyRunning):
            left = pidfile.PidFile.acquire(self.pid_file)
            with contextlib.suppress(OSError):
                os.unlink(self.control_socket)
            left.release()


def is_forkd(pid: int) -> bool:
    """Whether process *pid* is one of ours; one that is starting, or has just become another
    version, has no title of its own yet."""
    if proctitle.is_forkd(pid):
        return True
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(os.path.basename(word) == b"forkd" or b"forkd.cli" in word for word in words)


def children_of(pid: int) -> list[int]:
    """The children of process *pid* (proc(5), task/…/children)."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _send(fd: int | None, number: signal.Signals) -> None:
    """Signal the process of a pidfd.  One that has ended needs none."""
    if fd is None:
        return
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise Refused("not allowed to signal the server", 4) from None
