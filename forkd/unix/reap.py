"""Children that have ended: each is reaped once, and who spawned it is told.

The group of a dead leader is killed before the leader is reaped: until then its number cannot
belong to anybody else.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

OnExit = Callable[[int], None]
"""Called with the exit status, or minus the number of the signal that ended the process."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Child:
    on_exit: OnExit
    leads_group: bool
    on_dead: Callable[[], None] | None


class Reaper:
    """pid → who wants to know.  Children that nobody asked about are reaped in silence."""

    def __init__(self) -> None:
        self._children: dict[int, _Child] = {}

    def add(
        self,
        pid: int,
        on_exit: OnExit,
        *,
        leads_group: bool = False,
        on_dead: Callable[[], None] | None = None,
    ) -> None:
        """Call *on_exit* once, when *pid* has ended; its own group goes with it if it leads one.

        *on_dead* is called before it is reaped: until then its number, and that of the session it
        leads, cannot belong to anybody else.
        """
        self._children[pid] = _Child(on_exit, leads_group, on_dead)

    def __contains__(self, pid: int) -> bool:
        return pid in self._children

    def reap(self) -> None:
        """Reap every child that has ended."""
        while (pid := _next_dead()) is not None:
            child = self._children.pop(pid, None)
            if child is not None and child.leads_group:
                kill_group(pid, signal.SIGKILL)
            if child is not None and child.on_dead is not None:
                _shielded(child.on_dead)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if child is not None:
                _shielded(partial(child.on_exit, status))


def _shielded(callback: Callable[[], object]) -> None:
    """A defect costs nobody else his turn: a child whose end is not told would be waited for."""
    try:
        callback()
    except Exception:
        log.exception("a child has ended; what comes of that failed")


def _next_dead() -> int | None:
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def kill(pid: int, number: int) -> None:
    """Signal a child that is not reaped yet."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_group(leader: int, number: int) -> None:
    """Signal the group of a child that is not reaped yet; the child alone if it leads none."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        kill(leader, number)
    except PermissionError:  # some member has another user now; the others got it
        pass


def describe(status: int) -> str:
    """``status 1`` or ``signal 9 (SIGKILL)``, for the log."""
    if status >= 0:
        return f"status {status}"
    try:
        return f"signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"signal {-status}"
