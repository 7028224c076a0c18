"""What a worker does when the master is dead: nobody else ends the backends now (decisions 3).

Every worker does it, the others in vain: a signal to a group that is gone is nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

from ..config.backend import Proc
from ..scoreboard import Board

GRACE = 1.5  # seconds from a backend's kill-signal to KILL; the worker is to be gone within 2


def end_backends(board: Board) -> None:
    """Send each spawned backend's process group its kill-signal."""
    for group, proc in _groups(board):
        _signal(group, proc.backend.kill_signal)


def kill_backends(board: Board) -> None:
    """KILL what is left of them."""
    for group, _ in _groups(board):
        _signal(group, signal.SIGKILL)


def are_backends_left(board: Board) -> bool:
    """Whether one of them has not ended; dead members that nobody has reaped count."""
    return any(_signal(group, 0) for group, _ in _groups(board))


def _groups(board: Board) -> Iterator[tuple[int, Proc]]:
    """The process groups that the master made, as the board still has them."""
    for proc in board.procs:
        pid = board.pid(proc)
        if proc.backend.is_spawned and pid > 1:
            yield pid, proc


def _signal(group: int, number: int) -> bool:
    """Whether *group* is there, and ours to signal."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False
