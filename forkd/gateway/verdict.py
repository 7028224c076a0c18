"""Did a spawned backend end its connection, or did it die?  Both look like EOF.

The scoreboard knows each proc's pid, its deaths and its last exit status, but the master writes
them a moment after the sockets of a dying process are closed.  So: if the process is not exiting
the end was meant; if it is, the master's verdict is awaited for a moment (architecture: tunnels).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent import get_hub

from ..config.backend import Proc
from ..scoreboard import Board

PATIENCE = 0.1  # seconds for the master to reap and say so
_STEP = 0.01
_PF_EXITING = 0x4  # linux/sched.h: field 9 of /proc/PID/stat
_STAT_FLAGS = 6  # counted behind the ")" that ends the name

Verdict = Callable[[bool], None]


class Judge:
    """Tells how the end of one connection to *proc*, made now, is to be read."""

    __slots__ = ("_board", "_deaths", "_proc")

    def __init__(self, board: Board, proc: Proc) -> None:
        self._board = board
        self._proc = proc
        self._deaths = board.deaths(proc)

    def __call__(self, verdict: Verdict) -> None:
        """Call *verdict*, now or within PATIENCE, with whether the backend ended well."""
        if self._has_died():
            verdict(self._board.last_status(self._proc) == 0)
        elif not is_exiting(self._board.pid(self._proc)):
            verdict(True)
        else:
            _Wait(self, verdict)

    def _has_died(self) -> bool:
        return self._board.deaths(self._proc) != self._deaths

    def decide(self) -> bool | None:
        """The verdict, or None while the master has not said."""
        if not self._has_died():
            return None
        return self._board.last_status(self._proc) == 0


class _Wait:
    """Asks the board every 10 ms; silence in the end means a death."""

    def __init__(self, judge: Judge, verdict: Verdict) -> None:
        self._judge = judge
        self._verdict = verdict
        self._left = round(PATIENCE / _STEP)
        self._timer: Any = get_hub().loop.timer(_STEP, _STEP)
        self._timer.start(self._look)

    def _look(self) -> None:
        self._left -= 1
        decided = self._judge.decide()
        if decided is None and self._left > 0:
            return
        self._timer.close()
        self._verdict(bool(decided))


def is_exiting(pid: int) -> bool:
    """Whether process *pid* is on its way out, or gone already."""
    if pid <= 0:
        return True
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rsplit(b")", 1)[1].split()
    except OSError:
        return True
    return fields[0] in b"ZX" or bool(int(fields[_STAT_FLAGS]) & _PF_EXITING)
